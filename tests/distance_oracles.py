"""Points on the sphere, distances and advantages in float64 that share no code with the package, and what must hold.

Shapes: N pairs of points, P prompts, G group.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from geogrpo_kernels.reference.distances import EARTH_RADIUS_KM, EPSILON, DistanceReward
from torch import Tensor

EPS = torch.finfo(torch.float32).eps
HALF_CIRCUMFERENCE_KM = math.pi * EARTH_RADIUS_KM
REGIMES = ("random", "1 m", "25 km", "antipodes", "antimeridian", "poles", "all scales")
# Five times a program's pairs, and three more
NUM_PAIRS = 5 * 512 + 3
STEPS = DistanceReward("piecewise", (0.0, 100.0, 1000.0, 3000.0), (1.0, 0.7, 0.2, 0.05))
LIMITS = DistanceReward("threshold", (25.0, 2500.0, 10000.0))


def exact_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """(...) float64: the angle between unit vectors from their cross and dot product, accurate at every angle."""
    vectors = []
    for latlon_deg in (a_latlon_deg, b_latlon_deg):
        radians = np.radians(latlon_deg.double().cpu().numpy())
        lat, lon = radians[..., 0], radians[..., 1]
        vectors.append(np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1))
    cross = np.linalg.norm(np.cross(*vectors), axis=-1)
    return torch.from_numpy(EARTH_RADIUS_KM * np.arctan2(cross, (vectors[0] * vectors[1]).sum(-1)))


def pairs_of_points(
    regime: str, device: torch.device, dtype: torch.dtype = torch.float32, num_pairs: int = NUM_PAIRS
) -> tuple[Tensor, Tensor]:
    """Two (N, 2) tensors of degrees."""
    rng = np.random.default_rng(0)
    a = rng.uniform((-90, -180), (90, 180), size=(num_pairs, 2))
    b = rng.uniform((-90, -180), (90, 180), size=(num_pairs, 2))
    side = rng.choice((-1.0, 1.0), size=len(a))
    if regime == "1 m":
        b = a + rng.uniform(-1e-5, 1e-5, size=a.shape)
    elif regime == "25 km":
        b = a + rng.uniform(-0.25, 0.25, size=a.shape)
    elif regime == "antipodes":
        b = a * (-1, 1) + (0, 180) + rng.uniform(-0.01, 0.01, size=a.shape)
    elif regime == "antimeridian":
        a[:, 1] = 180 * side - side * rng.uniform(0, 0.1, size=len(a))
        b = np.stack([a[:, 0], -180 * side + side * rng.uniform(0, 0.1, size=len(a))], axis=-1)
    elif regime == "poles":
        a[:, 0] = side * (90 - rng.uniform(0, 0.1, size=len(a)))
        b[:, 0] = side * (90 - rng.uniform(0, 0.1, size=len(a)))
    elif regime == "all scales":
        b = a + 180 * 10 ** rng.uniform(-8, 0, size=a.shape) * rng.choice((-1.0, 1.0), size=a.shape)
    a[:, 0], b[:, 0] = np.clip(a[:, 0], -90, 90), np.clip(b[:, 0], -90, 90)
    return torch.from_numpy(a).to(device, dtype), torch.from_numpy(b).to(device, dtype)


def distances_are_accurate(op: Callable[..., Tensor], device: torch.device, regime: str) -> bool:
    """Within 4 m, and within 4 eps of the distance: short ones are as accurate as long ones."""
    a, b = pairs_of_points(regime, device)
    exact = exact_km(a, b)
    error = (op(a, b).double().cpu() - exact).abs()
    # The exact value is itself off by a float64 eps of the radius.
    return bool(((error <= 0.004) & (error <= 4 * EPS * exact + 1e-11)).all())


def groups_of_points(group_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Predictions (P, G, 2), from near to far around truths (P, 2). Where G > 2, one prediction of the second group has
    no coordinates; the third has none at all; in the fourth all are the same, and in the fifth nearly.
    """
    rng = np.random.default_rng(0)
    truth = rng.uniform((-80, -180), (80, 180), size=(6, 2))
    spread = 10 ** rng.uniform(-3, 1.8, size=(6, group_size, 1)) * rng.choice((-1.0, 1.0), size=(6, group_size, 2))
    predicted = truth[:, None] + spread
    predicted[..., 0] = np.clip(predicted[..., 0], -90, 90)
    if group_size > 2:
        predicted[1, 1, 0] = math.nan
    predicted[2] = math.nan
    predicted[3] = predicted[3, :1]
    predicted[4] = predicted[4, :1] + np.linspace(0, 1e-4, group_size)[:, None]
    return torch.from_numpy(predicted).to(device, torch.float32), torch.from_numpy(truth).to(device, torch.float32)


def exact_reward(distance_km: Tensor, reward: DistanceReward) -> Tensor:
    """In float64, through numpy."""
    km = distance_km.double().cpu().numpy()
    if reward.kind == "exponential":
        earned = np.mean([np.exp(-km / scale) for scale in reward.km], axis=0)
    elif reward.kind == "piecewise":
        earned = np.interp(km, reward.km, reward.values)
    else:
        earned = np.mean([km <= limit for limit in reward.km], axis=0)
    return torch.from_numpy(np.where(np.isnan(km), 0.0, earned))


def exact_advantages(rewards: Tensor, scale: str) -> Tensor:
    """In float64, row by row."""
    rows = []
    for row in rewards.double().cpu():
        centered = row - row.mean()
        if len(set(row.tolist())) == 1:
            centered = torch.zeros_like(row)
        elif scale == "group":
            centered = centered / (row.std(correction=1) + EPSILON)
        rows.append(centered)
    return torch.stack(rows)


def group_rewards_are_accurate(
    op: Callable[..., tuple[Tensor, ...]], device: torch.device, group_size: int, reward: DistanceReward, scale: str
) -> bool:
    """Each output against its definition in float64, given the one before it."""
    predicted, truth = groups_of_points(group_size, device)
    distance_km, rewards, advantages, has_signal = (x.cpu() for x in op(predicted, truth, reward, scale=scale))
    is_known = ~predicted.cpu().isnan().any(-1)
    distance_error = (distance_km.double() - exact_km(predicted, truth[:, None].expand_as(predicted)))[is_known].abs()
    reward_error = (rewards - exact_reward(distance_km, reward)).abs()
    exact = exact_advantages(rewards, scale)
    # Means and squares are sums of G terms, in float32; the reference rounds once.
    advantage_error = (advantages - exact).abs() - 8 * EPS * exact.abs().amax(-1, keepdim=True)
    differs = torch.tensor([len(set(row.tolist())) > 1 for row in rewards])
    return bool(
        torch.equal(~distance_km.isnan(), is_known)
        and (distance_error <= 0.004).all()
        # exp turns the rounding of d / scale, up to 90, into a relative error
        and (reward_error <= 4 * EPS).all()
        and (advantage_error <= 0).all()
        and torch.equal(has_signal, differs)
        and not advantages[~differs].any()
    )
