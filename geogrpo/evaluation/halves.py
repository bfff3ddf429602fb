"""What is chosen on one half of the images and observed on the other: conformal radii and a threshold to back off by.

An image's half depends on its id alone: not on the other images, their order or a seed.

Shapes: N images.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from geogrpo.metrics import FARTHEST_KM, Column, Estimate, mean_estimates
from geogrpo.regions.index import LEVELS
from geogrpo.uncertainty import (
    SPREAD_FLOOR_KM,
    BackOff,
    backed_off_level,
    choose_back_off,
    conformal_radius_km,
    spread_factor,
)

ALPHA = 0.1
"""How often a conformal radius may miss the truth."""


def is_calibrated_on(example_id: str) -> bool:
    """Whether the first bit of the id's BLAKE2b, as b2sum prints it, is 1."""
    return hashlib.blake2b(example_id.encode("utf-8", "surrogatepass")).digest()[0] >= 128


@dataclass(frozen=True)
class Outcomes:
    """What was said of some images, and whether it is so."""

    confidence: np.ndarray
    """(N, 4) of country, state, county and city; NaN where there is no such region."""
    is_right: np.ndarray
    """(N, 4) bool."""
    distance_km: np.ndarray
    """(N,) from answer to truth, charged where there is no answer."""
    spread_km: np.ndarray
    """(N,) mean distance from the answer to the samples."""

    def of(self, rows: np.ndarray) -> "Outcomes":
        """Those of some images."""
        return Outcomes(self.confidence[rows], self.is_right[rows], self.distance_km[rows], self.spread_km[rows])


@dataclass(frozen=True)
class Chosen:
    """What can be said of an image whose truth is not known."""

    target_accuracy: float
    back_off: BackOff
    """The least confidence that gave answers of the target accuracy; its figures are of the images chosen on."""
    radius_km: float
    """Around any answer: misses the truth with probability ALPHA at most."""
    spread_factor: float
    """A scaled radius is (spread + SPREAD_FLOOR_KM) times this; inf where there are too few images."""

    def level(self, confidence: np.ndarray) -> np.ndarray:
        """(N,) int64: the level that an answer is backed off to, -1 where it is not given; confidence (N, 4)."""
        return backed_off_level(confidence, self.back_off.threshold)

    def scaled_radius_km(self, spread_km: np.ndarray) -> np.ndarray:
        """(N,) km: as radius_km, but in proportion to the spread of each image's samples (N,)."""
        return np.minimum(self.spread_factor * (spread_km + SPREAD_FLOOR_KM), FARTHEST_KM)


@dataclass(frozen=True)
class Observed:
    """How what was chosen does on other images."""

    num_images: int
    back_off_accuracy: Estimate | None
    """Of the answers given, at their levels; None where none was given."""
    back_off_coverage: Estimate
    """Share of the images with an answer at any level."""
    back_off_counts: dict[str, int]
    """Level, or "none" -> images."""
    radius_coverage: Estimate
    """Share of the truths within the radius that is the same for all."""
    scaled_coverage: Estimate
    """Share of the truths within the scaled radii."""
    scaled_median_km: float
    """Of the scaled radii."""


def choose(outcomes: Outcomes, target_accuracy: float) -> Chosen:
    """Radii and threshold from images whose truth is known.

    Args:
        target_accuracy: in [0, 1].
    """
    return Chosen(
        target_accuracy=target_accuracy,
        back_off=choose_back_off(outcomes.confidence, outcomes.is_right, target_accuracy),
        radius_km=conformal_radius_km(outcomes.distance_km, ALPHA),
        spread_factor=spread_factor(outcomes.distance_km, outcomes.spread_km, ALPHA),
    )


def observe(outcomes: Outcomes, chosen: Chosen, *, bootstrap_samples: int) -> Observed:
    """What was chosen, on images that it was not chosen on."""
    level, scaled_km = chosen.level(outcomes.confidence), chosen.scaled_radius_km(outcomes.spread_km)
    is_answered = level >= 0
    is_right = np.take_along_axis(outcomes.is_right, np.maximum(level, 0)[:, None], axis=1)[:, 0]
    shares = mean_estimates(
        {
            "accuracy": Column(is_right, is_answered),
            "coverage": Column(is_answered),
            "radius": Column(outcomes.distance_km <= chosen.radius_km),
            "scaled": Column(outcomes.distance_km <= scaled_km),
        },
        num_samples=bootstrap_samples,
    )
    counts = {name: int((level == i).sum()) for i, name in enumerate(LEVELS)}
    return Observed(
        num_images=len(level),
        back_off_accuracy=shares.get("accuracy"),
        back_off_coverage=shares["coverage"],
        back_off_counts=counts | {"none": int((~is_answered).sum())},
        radius_coverage=shares["radius"],
        scaled_coverage=shares["scaled"],
        scaled_median_km=float(np.median(scaled_km)),
    )
