"""What one answer is worth: distance, thresholds, GeoScore.

A prediction without coordinates is a miss at every threshold, half the Earth away, and earns 0 points.

Shapes: N images.
"""

import math
import operator

import numpy as np
import torch
from geogrpo_kernels import EARTH_RADIUS_KM, haversine_km

THRESHOLDS_KM = (1, 25, 200, 750, 2500)
"""Street, city, region, country, continent."""
COMPARATORS = {"<=": operator.le, "<": operator.lt}
"""Whether a distance equal to the threshold is within: GeoCLIP says yes; OSV-5M, PLONK and PIGEON say no."""
GEOSCORE_SCALE_KM = 1492.7
"""Source: OSV-5M (arXiv 2404.18873), after the game GeoGuessr."""
GEOAGENT_SCALE_KM = 1805.0
"""Source: GeoAgent (arXiv 2602.12617), equation 10: 5000 exp(-10 d / 18050)."""
FARTHEST_KM = math.pi * EARTH_RADIUS_KM
"""Half the circumference: the distance charged to an answer without coordinates."""


def usable_points(latlon_deg: np.ndarray) -> np.ndarray:
    """The same points in float64, NaN where one is not a place: NaN, infinite, or a latitude beyond the poles.

    Args:
        latlon_deg: (..., 2) degrees.
    """
    points = np.array(latlon_deg, dtype=np.float64)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"latlon_deg must be (..., 2), got {points.shape}.")
    with np.errstate(invalid="ignore"):
        is_place = np.isfinite(points).all(axis=-1) & (np.abs(points[..., 0]) <= 90)
    points[~is_place] = np.nan
    return points


def error_km(
    predicted_latlon_deg: np.ndarray, true_latlon_deg: np.ndarray, *, earth_radius_km: float = EARTH_RADIUS_KM
) -> np.ndarray:
    """(N,) float64 great-circle km from truth to answer, NaN where the answer has no usable coordinates.

    Args:
        predicted_latlon_deg: (N, 2) degrees, NaN without coordinates.
        true_latlon_deg: (N, 2) degrees, each one a place, N > 0.
        earth_radius_km: 6371.0088 by default; OSV-5M and Geo-R compute with 6371, PIGEON with 6378.137.
    """
    check_images(predicted_latlon_deg, true_latlon_deg)
    predicted, truth = torch.from_numpy(usable_points(predicted_latlon_deg)), torch.from_numpy(_truths(true_latlon_deg))
    return haversine_km(predicted, truth).numpy() * (earth_radius_km / EARTH_RADIUS_KM)


def check_images(predicted_latlon_deg: np.ndarray, true_latlon_deg: np.ndarray) -> None:
    """Raise ValueError unless both are (N, 2) with the same N > 0, and every truth is a place."""
    shapes = np.shape(predicted_latlon_deg), np.shape(true_latlon_deg)
    if shapes[0] != shapes[1] or len(shapes[1]) != 2 or shapes[1][1] != 2 or shapes[1][0] == 0:
        raise ValueError(f"predicted and true points must both be (N, 2) with N > 0, got {shapes[0]} and {shapes[1]}.")
    _truths(true_latlon_deg)


def _truths(true_latlon_deg: np.ndarray) -> np.ndarray:
    truth = usable_points(true_latlon_deg)
    is_missing = np.isnan(truth[..., 0])
    if is_missing.any():
        row = int(is_missing.argmax())
        raise ValueError(f"true_latlon_deg[{row}] is not a place: {np.asarray(true_latlon_deg)[row].tolist()}.")
    return truth


def charged_km(distance_km: np.ndarray) -> np.ndarray:
    """Distances with NaN (no coordinates) replaced by FARTHEST_KM."""
    return np.where(np.isnan(distance_km), FARTHEST_KM, distance_km)


def is_within(distance_km: np.ndarray, threshold_km: float, *, comparator: str = "<=") -> np.ndarray:
    """(N,) bool: whether the distance is within the threshold; NaN is a miss.

    Args:
        comparator: a key of COMPARATORS.
    """
    if comparator not in COMPARATORS:
        raise ValueError(f"comparator must be one of {', '.join(COMPARATORS)}, got {comparator!r}.")
    # NaN compares false
    return COMPARATORS[comparator](distance_km, threshold_km)


def accuracy_within(distance_km: np.ndarray, threshold_km: float, *, comparator: str = "<=") -> np.ndarray:
    """(N,) 1.0 where the distance is at most the threshold, else 0.0; NaN counts as a miss.

    Args:
        comparator: "<" leaves out a distance equal to the threshold.
    """
    return is_within(distance_km, threshold_km, comparator=comparator).astype(np.float64)


def geoscore(distance_km: np.ndarray) -> np.ndarray:
    """(N,) points in [0, 5000]: 5000 * exp(-d / 1492.7), 0 for NaN."""
    return _points(distance_km, GEOSCORE_SCALE_KM)


def geoscore_geoagent(distance_km: np.ndarray) -> np.ndarray:
    """(N,) points in [0, 5000]: 5000 * exp(-d / 1805), 0 for NaN. GeoAgent's; more than `geoscore` for any answer."""
    return _points(distance_km, GEOAGENT_SCALE_KM)


def _points(distance_km: np.ndarray, scale_km: float) -> np.ndarray:
    points = 5000 * np.exp(-charged_km(distance_km) / scale_km)
    return np.where(np.isnan(distance_km), 0.0, points)
