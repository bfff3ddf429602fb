"""Split conformal prediction: a radius around the answer that holds the truth with a chosen probability.

The guarantee is over the draw of calibration and test images together, which must be exchangeable: images of other
places or another camera are not. It is no promise for any one country or kind of image.

Shapes: N calibration images, M test images.
Source: V. Vovk et al., "Algorithmic Learning in a Random World", 2005; J. Lei et al., "Distribution-free predictive
inference for regression", 2018, for scores divided by a spread.
"""

import math

import numpy as np

from geogrpo.metrics import FARTHEST_KM, charged_km

SPREAD_FLOOR_KM = 1.0
"""Added to a spread: samples that all agree would otherwise promise a radius of 0."""


def conformal_quantile(scores: np.ndarray, alpha: float) -> float:
    """The ceil((N + 1) (1 - alpha))-th least score: a new one is at most this with probability >= 1 - alpha.

    Args:
        scores: (N,) of the calibration split, N > 0, no NaN.
        alpha: in (0, 1), how often the truth may lie outside.
    Returns:
        inf where N is too small for alpha.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"scores must be (N,) with N > 0, got {scores.shape}.")
    if np.isnan(scores).any():
        raise ValueError("scores must not be NaN.")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}.")
    # 10 * (1 - 0.7) is 3.0000000000000004
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    return math.inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def conformal_radius_km(calibration_distance_km: np.ndarray, alpha: float) -> float:
    """One radius for all answers that holds the truth with probability >= 1 - alpha.

    Args:
        calibration_distance_km: (N,) km from answer to truth on a held-out split, NaN for an answer without
            coordinates, which only the whole Earth holds.
        alpha: in (0, 1).
    Returns:
        km; FARTHEST_KM, the whole Earth, where nothing smaller will do.
    """
    return min(conformal_quantile(_charged(calibration_distance_km), alpha), FARTHEST_KM)


def scaled_conformal_radius_km(
    calibration_distance_km: np.ndarray, calibration_spread_km: np.ndarray, spread_km: np.ndarray, alpha: float
) -> np.ndarray:
    """A radius for each answer, in proportion to how far its samples lie apart, with the same guarantee.

    Args:
        calibration_distance_km: (N,) km from answer to truth, NaN without coordinates.
        calibration_spread_km: (N,) km >= 0, such as radius_50_km of SampleSummary.
        spread_km: (M,) the same of the images to be answered.
        alpha: in (0, 1).
    Returns:
        (M,) km, at most FARTHEST_KM.
    """
    factor = spread_factor(calibration_distance_km, calibration_spread_km, alpha)
    return np.minimum(factor * (_checked_spread(spread_km) + SPREAD_FLOOR_KM), FARTHEST_KM)


def spread_factor(calibration_distance_km: np.ndarray, calibration_spread_km: np.ndarray, alpha: float) -> float:
    """What scaled_conformal_radius_km multiplies a spread with, SPREAD_FLOOR_KM added to it; inf where N is too small.

    Args:
        calibration_distance_km, calibration_spread_km, alpha: as there.
    """
    distance_km, spread_km = _charged(calibration_distance_km), _checked_spread(calibration_spread_km)
    if distance_km.shape != spread_km.shape:
        shapes = f"{distance_km.shape} and {spread_km.shape}"
        raise ValueError(f"calibration distances and spreads must be of the same images, got {shapes}.")
    return conformal_quantile(distance_km / (spread_km + SPREAD_FLOOR_KM), alpha)


def _charged(distance_km: np.ndarray) -> np.ndarray:
    return charged_km(np.asarray(distance_km, dtype=np.float64))


def _checked_spread(spread_km: np.ndarray) -> np.ndarray:
    spread_km = np.asarray(spread_km, dtype=np.float64)
    if spread_km.ndim != 1 or not (spread_km >= 0).all():
        raise ValueError(
            f"spreads must be (N,) km >= 0, got {spread_km.shape} with minimum {spread_km.min(initial=0)}."
        )
    return spread_km
