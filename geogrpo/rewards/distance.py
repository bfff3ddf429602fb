"""Rewards from the great-circle distance between the predicted and the true point.

Every function maps kilometres to [0, 1]; NaN (no usable coordinates) earns 0.
"""

from geogrpo_kernels import DISTANCE_REWARDS, distance_reward
from torch import Tensor


def multiscale(distance_km: Tensor) -> Tensor:
    """Mean of exp(-d / t) over the field's five thresholds (1 to 2500 km): rewards progress at every scale.

    Between 1 and 25 km it changes by 0.22, where Geo-R's reward changes by 0.016.
    """
    return distance_reward(distance_km, DISTANCE_REWARDS["multiscale"])


def geor_paper(distance_km: Tensor) -> Tensor:
    """Geo-R as printed (arXiv 2601.00388): linear pieces through 1, 0.5, 0.2 and 0 at 0, 750, 2500 and 20000 km."""
    return distance_reward(distance_km, DISTANCE_REWARDS["geor_paper"])


def geor_code(distance_km: Tensor) -> Tensor:
    """Geo-R as its repository (aialt/geo-r) computes it: the middle piece ends at 3000 km instead of 2500.

    The repository adds a format reward whose pattern still asks for a bounding box and so is always 0.
    """
    return distance_reward(distance_km, DISTANCE_REWARDS["geor_code"])
