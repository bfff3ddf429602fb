"""Rewards from the great-circle distance between the predicted and the true point.

Every function maps kilometres to [0, 1]; NaN (no usable coordinates) earns 0.
"""

import math
from collections.abc import Sequence

import torch
from geogrpo_kernels import DISTANCE_REWARDS, EARTH_RADIUS_KM, DistanceReward, distance_reward, haversine_km
from torch import Tensor

THRESHOLDS = DistanceReward("threshold", (1.0, 25.0, 200.0, 750.0, 2500.0))
GEOSCORE = DistanceReward("exponential", (1492.7,))
THINKING_WITH_MAP_STEPS = ((0.5, 1.0), (2.0, 0.8), (10.0, 0.6), (25.0, 0.4), (200.0, 0.2), (750.0, 0.1))
"""Below so many km, so much."""


def distances_km(
    a_latlon_deg: Sequence[tuple[float, float] | None], b_latlon_deg: Sequence[tuple[float, float] | None]
) -> Tensor:
    """(N,) float64 km between N pairs of points, NaN where one of the two is None."""
    nowhere = (math.nan, math.nan)
    a, b = (
        torch.tensor([point or nowhere for point in points], dtype=torch.float64).view(-1, 2)
        for points in (a_latlon_deg, b_latlon_deg)
    )
    return haversine_km(a, b)


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


def thresholds(distance_km: Tensor) -> Tensor:
    """Share of the field's five thresholds (1 to 2500 km) that the distance does not exceed."""
    return distance_reward(distance_km, THRESHOLDS)


def geoscore(distance_km: Tensor) -> Tensor:
    """GeoScore / 5000 = exp(-d / 1492.7), as OSV-5M and PLONK compute it."""
    return distance_reward(distance_km, GEOSCORE)


def gre(distance_km: Tensor) -> Tensor:
    """GRE Suite (arXiv 2505.18700): 2 / (1 + exp(d / 200)). Its repository swaps latitude and longitude; not here."""
    return (2 * torch.sigmoid(-distance_km / 200)).nan_to_num(0.0)


def geoagent(distance_km: Tensor) -> Tensor:
    """GeoAgent (arXiv 2602.12617), its spatial part: exp(-d / 200), and 0 from 2000 km."""
    return torch.where(distance_km < 2000, torch.exp(-distance_km / 200), 0.0)


def twm(distance_km: Tensor) -> Tensor:
    """Thinking-with-Map (arXiv 2601.05432): 1, 0.8, 0.6, 0.4, 0.2, 0.1 below 0.5, 2, 10, 25, 200, 750 km."""
    earned = torch.zeros_like(distance_km)
    for limit_km, value in reversed(THINKING_WITH_MAP_STEPS):
        earned = torch.where(distance_km < limit_km, value, earned)
    return earned


def logarithmic(distance_km: Tensor) -> Tensor:
    """1 - ln(1 + d) / ln(1 + half the Earth's circumference)."""
    farthest = math.log1p(math.pi * EARTH_RADIUS_KM)
    return (1 - torch.log1p(distance_km) / farthest).clamp(0.0, 1.0).nan_to_num(0.0)


DISTANCE_FUNCTIONS = (multiscale, geor_paper, geor_code, thresholds, geoscore, gre, geoagent, twm, logarithmic)
"""Every reward of this file; in REWARDS by its name."""
