"""Geolocalization metrics.

A prediction without coordinates is a miss at every threshold, half the Earth away, and earns 0 points.

Shapes: N images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from geogrpo_kernels import EARTH_RADIUS_KM

STATISTICS: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "median": np.median}
THRESHOLDS_KM = (1, 25, 200, 750, 2500)
"""Street, city, region, country, continent."""
GEOSCORE_SCALE_KM = 1492.7
"""Source: OSV-5M (arXiv 2404.18873), after the game GeoGuessr."""
FARTHEST_KM = math.pi * EARTH_RADIUS_KM
"""Half the circumference: the distance charged to an answer without coordinates."""


def charged_km(distance_km: np.ndarray) -> np.ndarray:
    """Distances with NaN (no coordinates) replaced by FARTHEST_KM."""
    return np.where(np.isnan(distance_km), FARTHEST_KM, distance_km)


def accuracy_within(distance_km: np.ndarray, threshold_km: float) -> np.ndarray:
    """(N,) 1.0 where the distance is at most the threshold, else 0.0; NaN counts as a miss."""
    # NaN <= anything is False
    return (distance_km <= threshold_km).astype(np.float64)


def geoscore(distance_km: np.ndarray) -> np.ndarray:
    """(N,) points in [0, 5000]: 5000 * exp(-d / 1492.7), 0 for NaN."""
    points = 5000 * np.exp(-charged_km(distance_km) / GEOSCORE_SCALE_KM)
    return np.where(np.isnan(distance_km), 0.0, points)


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(values: np.ndarray, *, num_samples: int, seed: int = 0, statistic: str = "mean") -> Estimate:
    """Percentile bootstrap over images.

    Args:
        values: (N,) one number per image, N > 0.
        num_samples: resamples, at least 1.
        statistic: a key of STATISTICS.
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be (N,) with N > 0, got {values.shape}.")
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}.")
    compute = STATISTICS[statistic]
    rng = np.random.default_rng(seed)
    draws = np.empty(num_samples)
    for i in range(num_samples):
        draws[i] = compute(values[rng.integers(0, len(values), len(values))])
    low, high = np.percentile(draws, [2.5, 97.5])
    return Estimate(float(compute(values)), float(low), float(high))


def paired_difference(before: np.ndarray, after: np.ndarray, *, num_samples: int, seed: int = 0) -> Estimate:
    """Mean of after - before on the same images, with its 95 % bootstrap interval."""
    if before.shape != after.shape:
        raise ValueError(f"before and after must be the same images, got {before.shape} and {after.shape}.")
    return bootstrap(after - before, num_samples=num_samples, seed=seed)


def summarize(
    distance_km: np.ndarray, country_is_right: np.ndarray, *, num_samples: int, seed: int = 0
) -> dict[str, Estimate]:
    """The closing table's columns.

    Args:
        distance_km: (N,) km, NaN without coordinates.
        country_is_right: (N,) bool.
        num_samples: bootstrap resamples.
    """
    if distance_km.shape != country_is_right.shape:
        shapes = f"{distance_km.shape} and {country_is_right.shape}"
        raise ValueError(f"distance_km and country_is_right must be of the same images, got {shapes}.")
    columns = {f"within_{km}_km": accuracy_within(distance_km, km) for km in THRESHOLDS_KM}
    columns["geoscore"] = geoscore(distance_km)
    columns["country_accuracy"] = country_is_right.astype(np.float64)
    columns["unparseable"] = np.isnan(distance_km).astype(np.float64)
    summary = {name: bootstrap(values, num_samples=num_samples, seed=seed) for name, values in columns.items()}
    summary["median_km"] = bootstrap(charged_km(distance_km), num_samples=num_samples, seed=seed, statistic="median")
    return summary
