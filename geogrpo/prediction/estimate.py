"""What a greedy answer and samples say together: a chain, a point, how far the samples lie from it, and where they lie.

The point is the greedy answer's. The radii are around it, as on an evaluation's page: the least that hold half and nine
tenths of the samples.

Shapes: K samples.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from geogrpo_kernels import haversine_km

from geogrpo.metrics import FARTHEST_KM
from geogrpo.parsing import parse_completion
from geogrpo.regions.index import LEVELS, RegionIndex
from geogrpo.regions.names import locate
from geogrpo.types import Prediction
from geogrpo.uncertainty import geometric_median, level_confidence, sample_clusters, sample_radii_km
from geogrpo.uncertainty.samples import LINKAGE_KM

SHOWN_LEVELS = ("country", "state", "city")
"""Of the region index; not every country has counties."""
MAX_ALTERNATIVES = 5


@dataclass(frozen=True)
class Regions:
    """Where a point is by the region index; None where it is in none."""

    country: str | None = None
    state: str | None = None
    city: str | None = None


@dataclass(frozen=True)
class Alternative:
    """Samples that lie together."""

    share: float
    """Of all samples, those without a point too."""
    latlon_deg: tuple[float, float]
    """Their geometric median."""
    regions: Regions
    holds_answer: bool
    """Whether the answer's point is within LINKAGE_KM of one of them."""


@dataclass(frozen=True)
class PlaceEstimate:
    """Where a model says a photograph was taken, and how sure its samples are."""

    said: Prediction
    """The greedy answer: names, coordinates and reasoning as the model gave them."""
    latlon_deg: tuple[float, float] | None
    """The greedy answer's coordinates, or where the place is that it names."""
    is_from_names: bool
    """Whether the point was found by the names, the answer having no coordinates."""
    regions: Regions
    """Of the point."""
    num_samples: int
    radius_50_km: float | None
    """Around the point, with half of the samples inside; None without samples or point, or if too few have a point."""
    radius_90_km: float | None
    agreement: dict[str, float]
    """Level -> share of the samples in the point's country, state and city; a level it is in none of is left out."""
    alternatives: list[Alternative]
    """Where the samples lie, the most first, at most MAX_ALTERNATIVES."""


def place_estimate(text: str, sampled_texts: Sequence[str], index: RegionIndex) -> PlaceEstimate:
    """The estimate that a greedy completion and K >= 0 sampled ones make."""
    said = parse_completion(text)
    point = answer_point(said)
    samples = np.array(
        [answer_point(parse_completion(sampled)) or (math.nan, math.nan) for sampled in sampled_texts], dtype=np.float64
    ).reshape(1, -1, 2)
    has_both = point is not None and len(sampled_texts) > 0
    answer = np.array([point], dtype=np.float64) if has_both else None
    radii = [None, None] if answer is None else [_known_km(km) for km in sample_radii_km(samples, answer)[0].tolist()]
    return PlaceEstimate(
        said=said,
        latlon_deg=point,
        is_from_names=point is not None and said.latlon_deg is None,
        regions=Regions() if point is None else regions_of(point, index),
        num_samples=len(sampled_texts),
        radius_50_km=radii[0],
        radius_90_km=radii[1],
        agreement={} if answer is None else _agreement(samples, answer, index),
        alternatives=_alternatives(samples, point, index) if sampled_texts else [],
    )


def answer_point(said: Prediction) -> tuple[float, float] | None:
    """(lat, lon) of an answer: its coordinates, else the place that its names mean, else None.

    Raises:
        ValueError: when it has names alone and a library of geogrpo[names] is missing.
    """
    return said.latlon_deg or locate(said.country, said.state, said.city)


def regions_of(latlon_deg: tuple[float, float], index: RegionIndex) -> Regions:
    """The names of a point's country, state and city."""
    names = dict(zip(LEVELS, index.names(index.lookup(np.array(latlon_deg)).ids), strict=True))
    return Regions(**{level: names[level] for level in SHOWN_LEVELS})


def distance_km(a_latlon_deg: tuple[float, float], b_latlon_deg: tuple[float, float]) -> float:
    """Great-circle km between two points."""
    a, b = (torch.tensor(point, dtype=torch.float64) for point in (a_latlon_deg, b_latlon_deg))
    return float(haversine_km(a, b))


def _known_km(radius_km: float) -> float | None:
    return radius_km if radius_km < FARTHEST_KM else None


def _agreement(samples: np.ndarray, answer: np.ndarray, index: RegionIndex) -> dict[str, float]:
    shares = dict(zip(LEVELS, level_confidence(samples, answer, index)[0].tolist(), strict=True))
    return {level: shares[level] for level in SHOWN_LEVELS if not math.isnan(shares[level])}


def _alternatives(samples: np.ndarray, point: tuple[float, float] | None, index: RegionIndex) -> list[Alternative]:
    """The largest clusters of samples (1, K, 2)."""
    cluster = sample_clusters(samples)[0]
    found = []
    for number in range(min(int(cluster.max()) + 1, MAX_ALTERNATIVES)):
        members = samples[:, cluster == number]
        lat_deg, lon_deg = geometric_median(members)[0].tolist()
        is_near = point is not None and any(distance_km(point, (lat, lon)) <= LINKAGE_KM for lat, lon in members[0])
        found.append(
            Alternative(
                share=members.shape[1] / len(cluster),
                latlon_deg=(lat_deg, lon_deg),
                regions=regions_of((lat_deg, lon_deg), index),
                holds_answer=is_near,
            )
        )
    return found
