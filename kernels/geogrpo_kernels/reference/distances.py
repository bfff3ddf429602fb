"""Plain PyTorch distances on the sphere, their rewards and advantages: the CPU path, and what the Triton kernels are
tested against.

Shapes: N pairs of points, P prompts, G group.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

EARTH_RADIUS_KM = 6371.0088
"""Mean radius R1 of the WGS84 ellipsoid (IUGG)."""
EPSILON = 1e-4
"""Added to the standard deviation, as in TRL and the Geo-R code."""
KINDS = ("exponential", "piecewise", "threshold")

# Pairs per block: what a block computes stays in the cache, and two threads share it in halves. Per million pairs on 2
# cores 12.1 ms with half as many, 8.7 ms with these, 8.2 ms with twice as many.
BLOCK_PAIRS = 1 << 16
# PyTorch's vector and scalar atan2 differ in the last place: blocks and their halves end where vectors do.
VECTOR_PAIRS = 64


@dataclass(frozen=True)
class DistanceReward:
    """What a distance earns. "exponential": the mean of exp(-d / scale). "piecewise": linear between knots, constant
    before the first and after the last. "threshold": the share of the limits that d does not exceed.
    """

    kind: str
    """One of KINDS."""
    km: tuple[float, ...]
    """Scales > 0, knots >= 0 in rising order, or limits >= 0."""
    values: tuple[float, ...] = ()
    """What each knot earns; for the other kinds empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "km", tuple(float(x) for x in self.km))
        object.__setattr__(self, "values", tuple(float(x) for x in self.values))
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}.")
        if not self.km or not all(math.isfinite(x) and x >= 0 for x in self.km):
            raise ValueError(f"km must be one or more finite numbers >= 0, got {self.km}.")
        if self.kind == "exponential" and min(self.km) == 0:
            raise ValueError(f"the scales of an exponential reward must be > 0, got {self.km}.")
        expected = len(self.km) if self.kind == "piecewise" else 0
        if len(self.values) != expected or not all(math.isfinite(x) for x in self.values):
            raise ValueError(
                f"values must be {expected} finite numbers for this {self.kind} reward, got {self.values}."
            )
        if self.kind == "piecewise" and any(a >= b for a, b in pairwise(self.km)):
            raise ValueError(f"the knots of a piecewise reward must rise, got {self.km}.")


DISTANCE_REWARDS = {
    # Street, city, region, country, continent: the field's accuracy thresholds
    "multiscale": DistanceReward("exponential", (1.0, 25.0, 200.0, 750.0, 2500.0)),
    # Geo-R as printed (arXiv 2601.00388), and with the 3000 km of its repository (aialt/geo-r)
    "geor_paper": DistanceReward("piecewise", (0.0, 750.0, 2500.0, 20000.0), (1.0, 0.5, 0.2, 0.0)),
    "geor_code": DistanceReward("piecewise", (0.0, 750.0, 3000.0, 20000.0), (1.0, 0.5, 0.2, 0.0)),
}


class GroupDistanceRewards(NamedTuple):
    """What group_distance_rewards returns."""

    distance_km: Tensor
    """(P, G) float32, NaN without usable coordinates."""
    reward: Tensor
    """(P, G) float32."""
    advantages: Tensor
    """(P, G) float32; each row sums to 0."""
    has_signal: Tensor
    """(P,) bool: whether the rewards of a group differ."""


def check_points(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> None:
    """Check that two tensors of points are (..., 2) float32 or float64 on one device, and broadcast together."""
    shapes = f"{tuple(a_latlon_deg.shape)} and {tuple(b_latlon_deg.shape)}"
    if a_latlon_deg.shape[-1:] != (2,) or b_latlon_deg.shape[-1:] != (2,):
        raise ValueError(f"expected (..., 2) lat, lon, got {shapes}.")
    for points in (a_latlon_deg, b_latlon_deg):
        if points.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"lat, lon must be float32 or float64, got {points.dtype}.")
    if a_latlon_deg.device != b_latlon_deg.device:
        raise ValueError(f"points must be on one device, got {a_latlon_deg.device} and {b_latlon_deg.device}.")
    try:
        torch.broadcast_shapes(a_latlon_deg.shape, b_latlon_deg.shape)
    except RuntimeError:
        raise ValueError(f"expected shapes that broadcast together, got {shapes}.") from None


def check_groups(predicted_latlon_deg: Tensor, true_latlon_deg: Tensor, scale: str) -> None:
    """Check that predictions are (P, G, 2) and truths (P, 2), of one dtype, and the scale "group" or "none"."""
    predicted, truth = tuple(predicted_latlon_deg.shape), tuple(true_latlon_deg.shape)
    if len(predicted) != 3 or predicted[2] != 2 or truth != (predicted[0], 2):
        raise ValueError(f"expected predictions (P, G, 2) and truths (P, 2), got {predicted} and {truth}.")
    if predicted_latlon_deg.dtype != true_latlon_deg.dtype:
        raise ValueError(
            f"predictions and truths must have one dtype, got {predicted_latlon_deg.dtype} and {true_latlon_deg.dtype}."
        )
    check_points(predicted_latlon_deg, true_latlon_deg[:, None])
    if scale not in ("group", "none"):
        raise ValueError(f"scale must be group or none, got {scale!r}.")


def haversine_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """Definition of geogrpo_kernels.haversine_km, which documents it."""
    check_points(a_latlon_deg, b_latlon_deg)
    dtype = torch.promote_types(a_latlon_deg.dtype, b_latlon_deg.dtype)
    a, b = torch.broadcast_tensors(a_latlon_deg.to(dtype), b_latlon_deg.to(dtype))
    if a.device.type != "cpu" or (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        return _two_sided_km(a, b)
    flat_a, flat_b = a.reshape(-1, 2), b.reshape(-1, 2)
    km = a.new_empty(len(flat_a))
    for start in range(0, len(km), BLOCK_PAIRS):
        rows = slice(start, min(start + BLOCK_PAIRS, len(km)))
        km[rows] = _two_sided_km(_padded(flat_a[rows]), _padded(flat_b[rows]))[: rows.stop - start]
    return km.view(a.shape[:-1])


def _padded(points: Tensor) -> Tensor:
    missing = -len(points) % VECTOR_PAIRS
    return torch.nn.functional.pad(points, (0, 0, 0, missing)) if missing else points


def _two_sided_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """hav(d) and hav(pi - d) side by side, each without cancellation; atan2 takes the accurate one at either end.

    In place wherever a value is not needed again, which saves a tenth of the time and which autograd allows.
    """
    lat_a, lon_a = a_latlon_deg.unbind(-1)
    lat_b, lon_b = b_latlon_deg.unbind(-1)
    gap = lon_b - lon_a
    # Two-sum: what rounding took from the difference, which counts where it is a whole number of half turns.
    minus_a = gap - lon_b
    lost = (gap - minus_a).neg_().add_(lon_b).sub_(minus_a + lon_a)
    half_turns = torch.round(gap / 180)
    rest = lost.add_(gap - 180 * half_turns)
    is_odd = (half_turns - 2 * torch.round(half_turns / 2)).abs_()
    # cos(lat) as a sine of the distance to the pole: never negative there
    angles_deg = torch.stack([lat_b - lat_a, lat_a + lat_b, rest, 180 - 2 * lat_a.abs(), 180 - 2 * lat_b.abs()])
    sin_lat, sin_lat_antipode, sin_rest, cos_a, cos_b = angles_deg.mul_(math.pi / 360).sin_().unbind()
    cos_cos, hav_rest = cos_a * cos_b, sin_rest.square()
    # |1 - hav_rest| and |0 - hav_rest| stand for a choice by is_odd
    hav = (is_odd - hav_rest).abs_().mul_(cos_cos).add_(sin_lat.square())
    hav_antipode = (1 - is_odd).sub_(hav_rest).abs_().mul_(cos_cos).add_(sin_lat_antipode.square())
    return torch.atan2(hav.sqrt_(), hav_antipode.sqrt_()).mul_(2 * EARTH_RADIUS_KM)


def distance_reward(distance_km: Tensor, reward: DistanceReward) -> Tensor:
    """What each distance earns.

    Args:
        distance_km: (...) float, >= 0; NaN where there are no usable coordinates.
        reward: which function, e.g. one of DISTANCE_REWARDS.
    Returns:
        (...) of the same dtype; 0 for NaN.
    Raises:
        ValueError: when distance_km is not float32 or float64.
    """
    if distance_km.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"distance_km must be float32 or float64, got {distance_km.dtype}.")
    if reward.kind == "exponential":
        earned = torch.zeros_like(distance_km)
        for scale_km in reward.km:
            earned += torch.exp(-distance_km / scale_km)
        return (earned / len(reward.km)).nan_to_num(0.0)
    if reward.kind == "threshold":
        met = sum((distance_km <= limit_km).to(distance_km.dtype) for limit_km in reward.km)
        return torch.as_tensor(met / len(reward.km))
    knots = list(zip(reward.km, reward.values, strict=True))
    earned = torch.full_like(distance_km, knots[0][1])
    for (low_km, low), (high_km, high) in pairwise(knots):
        share = ((distance_km - low_km) / (high_km - low_km)).clamp(max=1.0)
        earned = torch.where(distance_km > low_km, low + (high - low) * share, earned)
    return torch.where(distance_km.isnan(), 0.0, earned)


def has_signal(rewards: Tensor) -> Tensor:
    """Whether the completions of a group earned different rewards: (P, G) -> (P,) bool.

    Compares the largest with the smallest exactly. A mean of equal fractions such as 0.9 is not 0.9 in floating
    point, so `reward - mean != 0` would see a signal where there is none.
    """
    if rewards.numel() == 0:
        return torch.zeros(len(rewards), dtype=torch.bool, device=rewards.device)
    return rewards.amax(-1) != rewards.amin(-1)


def group_advantages(rewards: Tensor, scale: str = "group") -> Tensor:
    """Reward minus the group's mean, divided by a standard deviation; in float64, where the rewards are.

    Args:
        rewards: (P, G) float.
        scale: "group" divides by each group's own deviation (GRPO, arXiv 2402.03300); "batch" by the deviation of all
            P * G rewards (arXiv 2508.08221); "none" not at all (Dr. GRPO, arXiv 2503.20783).
    Returns:
        (P, G) float32; each row sums to 0, and a group of equal rewards is exactly 0.
    Raises:
        ValueError: on another shape, an unknown scale, or a reward that is not finite.
    """
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be (P, G), got {tuple(rewards.shape)}.")
    if not rewards.isfinite().all():
        raise ValueError("rewards must be finite; a completion that cannot be scored earns 0.")
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale must be group, batch or none, got {scale!r}.")
    if rewards.shape[0] == 0 or rewards.shape[1] < 2:
        return torch.zeros_like(rewards, dtype=torch.float32)
    exact = rewards.double()
    centered = exact - exact.mean(-1, keepdim=True)
    if scale == "group":
        centered = centered / (exact.std(-1, keepdim=True) + EPSILON)
    elif scale == "batch":
        centered = centered / (exact.std() + EPSILON)
    return torch.where(has_signal(rewards)[:, None], centered, 0.0).float()


def group_distance_rewards(
    predicted_latlon_deg: Tensor, true_latlon_deg: Tensor, reward: DistanceReward, *, scale: str = "group"
) -> GroupDistanceRewards:
    """Definition of geogrpo_kernels.group_distance_rewards, which documents it."""
    check_groups(predicted_latlon_deg, true_latlon_deg, scale)
    with torch.no_grad():
        distance_km = haversine_km(predicted_latlon_deg, true_latlon_deg[:, None])
        rewards = distance_reward(distance_km, reward).float()
        return GroupDistanceRewards(distance_km.float(), rewards, group_advantages(rewards, scale), has_signal(rewards))
