"""How sure the samples of an image are together, and how far that can be relied on.

The answer is the samples' consensus, its confidence in a region the share of the samples there.

Shapes: N images, K samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geogrpo.evaluation.answers import HeldOutPrediction, common_samples, true_points
from geogrpo.evaluation.halves import ALPHA, Chosen, Observed, Outcomes, choose, is_calibrated_on, observe
from geogrpo.evaluation.scores import json_ready
from geogrpo.metrics import Column, Estimate, charged_km, error_km, mean_estimates
from geogrpo.regions.index import LEVELS, RegionIndex
from geogrpo.uncertainty import (
    SPREAD_FLOOR_KM,
    SampleSummary,
    expected_calibration_error,
    risk_coverage,
    summarize_samples,
)

TARGET_ACCURACY = 0.8
"""Of answers at the levels that they are backed off to."""
SPLIT = "an image is calibrated on where the first bit of its id's BLAKE2b is 1, else observed"


@dataclass(frozen=True)
class LevelReliability:
    """Confidence in one level of regions."""

    num_images: int
    """Whose consensus is in a region of the level; the next three are of these."""
    accuracy: float
    mean_confidence: float
    expected_calibration_error: float
    aurc: float
    """Area under the risk-coverage curve of all images; the risk is the share in another region than the truth."""


@dataclass(frozen=True)
class Uncertainty:
    """What the samples of each image say together."""

    num_samples: int
    """K."""
    levels: dict[str, LevelReliability]
    """Level -> reliability; a level that no consensus has a region of is absent."""
    aurc_km: float
    """Area under the curve of the mean error against coverage, images of the least expected distance first."""
    coverage_50: Estimate
    """Share of the truths within the samples' radius of 50 %."""
    coverage_90: Estimate
    """The same of 90 %."""
    chosen: Chosen | None
    """On one half of the images; None where either half has none."""
    observed: Observed | None
    """On the other half."""
    summary: SampleSummary
    outcomes: Outcomes
    is_calibration: np.ndarray
    """(N,) bool: the half of each image."""

    def to_json(self) -> dict[str, Any]:
        """What metrics.json holds of it: nothing of single images."""
        names = ("num_samples", "aurc_km", "coverage_50", "coverage_90", "chosen", "observed")
        return {
            **{name: json_ready(getattr(self, name)) for name in names},
            "levels": {level: json_ready(found) for level, found in self.levels.items()},
            "num_calibration": int(self.is_calibration.sum()),
            "split": SPLIT,
            "conformal_alpha": ALPHA,
            "spread_floor_km": SPREAD_FLOOR_KM,
        }


def measure_uncertainty(
    predictions: Sequence[HeldOutPrediction],
    index: RegionIndex,
    *,
    target_accuracy: float = TARGET_ACCURACY,
    bootstrap_samples: int = 2000,
) -> Uncertainty | None:
    """What the samples say, measured; None unless every image has as many, and two or more.

    Args:
        target_accuracy: in [0, 1], of answers at the levels that they are backed off to.
        bootstrap_samples: resamples behind each interval.
    """
    samples = common_samples(predictions)
    if samples is None or samples.shape[1] < 2:
        return None
    summary = summarize_samples(samples, index)
    outcomes = _outcomes(summary, true_points(predictions).numpy(), index)
    coverage = mean_estimates(
        {
            "50": Column(outcomes.distance_km <= summary.radius_50_km),
            "90": Column(outcomes.distance_km <= summary.radius_90_km),
        },
        num_samples=bootstrap_samples,
    )
    is_calibration = np.array([is_calibrated_on(prediction.id) for prediction in predictions])
    chosen = observed = None
    if is_calibration.any() and not is_calibration.all():
        chosen = choose(outcomes.of(is_calibration), target_accuracy)
        observed = observe(outcomes.of(~is_calibration), chosen, bootstrap_samples=bootstrap_samples)
    return Uncertainty(
        num_samples=samples.shape[1],
        levels=_levels(outcomes),
        aurc_km=risk_coverage(-outcomes.spread_km, outcomes.distance_km).area,
        coverage_50=coverage["50"],
        coverage_90=coverage["90"],
        chosen=chosen,
        observed=observed,
        summary=summary,
        outcomes=outcomes,
        is_calibration=is_calibration,
    )


def _outcomes(summary: SampleSummary, truth: np.ndarray, index: RegionIndex) -> Outcomes:
    found, there = index.lookup(summary.answer_latlon_deg).ids, index.lookup(truth).ids
    return Outcomes(
        confidence=summary.level_confidence,
        is_right=(found >= 0) & (found == there),
        distance_km=charged_km(error_km(summary.answer_latlon_deg, truth)),
        spread_km=summary.expected_km,
    )


def _levels(outcomes: Outcomes) -> dict[str, LevelReliability]:
    levels = {}
    for k, level in enumerate(LEVELS):
        confidence, is_right = outcomes.confidence[:, k], outcomes.is_right[:, k]
        has_region = ~np.isnan(confidence)
        if has_region.any():
            levels[level] = LevelReliability(
                num_images=int(has_region.sum()),
                accuracy=float(is_right[has_region].mean()),
                mean_confidence=float(confidence[has_region].mean()),
                expected_calibration_error=expected_calibration_error(confidence, is_right),
                aurc=risk_coverage(confidence, (~is_right).astype(np.float64)).area,
            )
    return levels


def image_records(
    uncertainty: Uncertainty, predictions: Sequence[HeldOutPrediction], index: RegionIndex
) -> Iterator[dict[str, Any]]:
    """What uncertainty.jsonl says of each image, in their order.

    `clusters` are the shares of the samples in each, the largest first; samples without coordinates are in none.
    """
    summary, chosen = uncertainty.summary, uncertainty.chosen
    names = index.names(index.lookup(summary.answer_latlon_deg).ids)
    levels = backed_off_levels(uncertainty)
    scaled_km = [None] * len(names) if chosen is None else chosen.scaled_radius_km(summary.expected_km).tolist()
    for i, prediction in enumerate(predictions):
        level, num_clusters = levels[i], int(summary.cluster[i].max()) + 1
        shares = [float((summary.cluster[i] == number).mean()) for number in range(num_clusters)]
        yield {
            "id": prediction.id,
            "half": "calibration" if uncertainty.is_calibration[i] else "observed",
            "consensus_latlon_deg": _point(summary.answer_latlon_deg[i]),
            "expected_km": _km(summary.expected_km[i]),
            "radius_50_km": _km(summary.radius_50_km[i]),
            "radius_90_km": _km(summary.radius_90_km[i]),
            "conformal_radius_km": None if chosen is None else _km(chosen.radius_km),
            "scaled_conformal_radius_km": _km(scaled_km[i]),
            "num_clusters": num_clusters,
            "clusters": shares,
            "confidence": json_ready(dict(zip(LEVELS, summary.level_confidence[i].tolist(), strict=True))),
            "backed_off_level": level,
            "backed_off_name": None if level is None else names[i, LEVELS.index(level)],
        }


def backed_off_levels(uncertainty: Uncertainty) -> list[str | None]:
    """The level that each image's answer is backed off to; None where it is not given, or nothing was chosen."""
    confidence, chosen = uncertainty.summary.level_confidence, uncertainty.chosen
    numbers = [-1] * len(confidence) if chosen is None else chosen.level(confidence).tolist()
    return [None if number < 0 else LEVELS[number] for number in numbers]


def _point(latlon_deg: np.ndarray) -> list[float] | None:
    return None if np.isnan(latlon_deg).any() else [round(degrees, 6) for degrees in latlon_deg.tolist()]


def _km(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
