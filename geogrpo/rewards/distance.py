"""Rewards from the great-circle distance between the predicted and the true point.

Every function maps kilometres to [0, 1]; NaN (no usable coordinates) earns 0.
"""

import torch
from torch import Tensor

MULTISCALE_KM = (1.0, 25.0, 200.0, 750.0, 2500.0)
"""Street, city, region, country, continent: the field's accuracy thresholds."""


def multiscale(distance_km: Tensor) -> Tensor:
    """Mean of exp(-d / t) over the five thresholds: rewards progress at every scale.

    Between 1 and 25 km it changes by 0.22, where Geo-R's reward changes by 0.016.
    """
    scales = distance_km.new_tensor(MULTISCALE_KM)
    return torch.exp(-distance_km[..., None] / scales).mean(-1).nan_to_num(0.0)


def geor_paper(distance_km: Tensor) -> Tensor:
    """Geo-R as printed (arXiv 2601.00388): linear pieces through 1, 0.5, 0.2 and 0 at 0, 750, 2500 and 20000 km."""
    return _piecewise(distance_km, far_km=2500.0)


def geor_code(distance_km: Tensor) -> Tensor:
    """Geo-R as its repository (aialt/geo-r) computes it: the middle piece ends at 3000 km instead of 2500.

    The repository adds a format reward whose pattern still asks for a bounding box and so is always 0.
    """
    return _piecewise(distance_km, far_km=3000.0)


def _piecewise(distance_km: Tensor, far_km: float) -> Tensor:
    near_km, end_km = 750.0, 20000.0
    near = 1.0 - 0.5 * distance_km / near_km
    middle = 0.5 - 0.3 * (distance_km - near_km) / (far_km - near_km)
    far = 0.2 - 0.2 * (distance_km - far_km) / (end_km - far_km)
    reward = torch.where(distance_km <= near_km, near, torch.where(distance_km <= far_km, middle, far))
    # The antipode is 20015 km away, 15 km past the end of the last piece.
    return reward.clamp(0.0, 1.0).nan_to_num(0.0)
