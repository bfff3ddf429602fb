"""What ignoring the picture earns: the best constant answer, and a random draw from a prior.

Shapes: N images, C candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from geogrpo_kernels import EARTH_RADIUS_KM, haversine_km

from geogrpo.metrics.evaluate import Protocol
from geogrpo.metrics.scores import check_images, geoscore, geoscore_geoagent, is_within, usable_points
from geogrpo.regions.index import LEVELS, RegionIndex

LESS_IS_BETTER = ("mean_km", "median_km")
BLOCK_PAIRS = 1 << 20
"""Distances in memory at once: 8 MiB."""


@dataclass(frozen=True)
class ConstantFloor:
    """The best constant answer for one metric."""

    value: float
    latlon_deg: tuple[float, float]


def constant_floors(
    candidate_latlon_deg: np.ndarray,
    true_latlon_deg: np.ndarray,
    *,
    index: RegionIndex | None = None,
    protocol: Protocol | None = None,
) -> dict[str, ConstantFloor]:
    """For each metric the candidate that is best when it is the answer to every image; of equal ones the first.

    Chosen on the images it is measured on, which flatters it: for a fair floor choose on training images and give the
    point to evaluate_predictions.

    Args:
        candidate_latlon_deg: (C, 2) degrees, all of them tried.
        true_latlon_deg: (N, 2) degrees.
        index: for country_accuracy and the finer levels; None leaves them out.
    """
    table = _constant_table(candidate_latlon_deg, true_latlon_deg, index, protocol or Protocol(), with_median=True)
    floors = {}
    for name, values in table.items():
        best = int(values.argmin() if name in LESS_IS_BETTER else values.argmax())
        lat_deg, lon_deg = np.asarray(candidate_latlon_deg, dtype=np.float64)[best].tolist()
        floors[name] = ConstantFloor(float(values[best]), (lat_deg, lon_deg))
    return floors


def random_floors(
    prior_latlon_deg: np.ndarray,
    true_latlon_deg: np.ndarray,
    *,
    index: RegionIndex | None = None,
    protocol: Protocol | None = None,
) -> dict[str, float]:
    """Each metric's expectation when every answer is a point of the prior drawn at random.

    Exact: the mean over all pairs of a prior point and an image. There is no median, which is no such mean.

    Args:
        prior_latlon_deg: (C, 2) degrees, as likely as each other.
        true_latlon_deg: (N, 2) degrees.
        index: for country_accuracy and the finer levels; None leaves them out.
    """
    table = _constant_table(prior_latlon_deg, true_latlon_deg, index, protocol or Protocol(), with_median=False)
    return {name: float(values.mean()) for name, values in table.items()}


def _constant_table(
    candidates: np.ndarray, truth: np.ndarray, index: RegionIndex | None, protocol: Protocol, *, with_median: bool
) -> dict[str, np.ndarray]:
    """Metric -> (C,) what each candidate earns as the answer to every image."""
    check_images(candidates, candidates)
    check_images(truth, truth)
    candidates, truth = usable_points(candidates), usable_points(truth)
    parts: dict[str, list[np.ndarray]] = {}
    for distance_km in _distance_blocks(candidates, truth, protocol.earth_radius_km):
        for km in protocol.thresholds_km:
            within = is_within(distance_km, km, comparator=protocol.comparator)
            parts.setdefault(f"within_{km:g}_km", []).append(within.mean(axis=1))
        parts.setdefault("mean_km", []).append(distance_km.mean(axis=1))
        parts.setdefault("geoscore", []).append(geoscore(distance_km).mean(axis=1))
        parts.setdefault("geoscore_geoagent", []).append(geoscore_geoagent(distance_km).mean(axis=1))
        if with_median:
            parts.setdefault("median_km", []).append(np.median(distance_km, axis=1))
    table = {name: np.concatenate(values) for name, values in parts.items()}
    if index is not None:
        table |= _region_shares(candidates, truth, index)
    return table


def _distance_blocks(candidates: np.ndarray, truth: np.ndarray, earth_radius_km: float) -> Iterator[np.ndarray]:
    """(B, N) km from each candidate to each image, candidates in order."""
    truths = torch.from_numpy(truth)
    block = max(1, BLOCK_PAIRS // len(truth))
    for start in range(0, len(candidates), block):
        some = torch.from_numpy(candidates[start : start + block])[:, None].expand(-1, len(truth), -1)
        yield haversine_km(some, truths.expand_as(some)).numpy() * (earth_radius_km / EARTH_RADIUS_KM)


def _region_shares(candidates: np.ndarray, truth: np.ndarray, index: RegionIndex) -> dict[str, np.ndarray]:
    """Metric -> (C,) share of the images whose truth has a region of the level and that lie in the candidate's."""
    here, there = index.lookup(candidates).ids, index.lookup(truth).ids
    shares = {}
    for k, level in enumerate(LEVELS):
        known = there[there[:, k] >= 0, k]
        if len(known) == 0:
            continue
        count = np.bincount(known, minlength=len(index))
        shares[f"{level}_accuracy"] = np.where(here[:, k] >= 0, count[here[:, k]], 0) / len(known)
    return shares
