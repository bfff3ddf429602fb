"""Great-circle distances, and the rewards and advantages of groups, in one launch each.

Where PyTorch's functions on a GPU would reduce angles of any size, and in float64, short polynomials do for the angles
that occur: all are differences of latitudes and longitudes, brought into [-90, 90] degrees exactly.

Shapes: N pairs of points, P prompts, G group.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from geogrpo_kernels.launch import GRAPH_BREAK, use_triton
from geogrpo_kernels.reference import distances as reference
from geogrpo_kernels.reference.distances import (
    EPSILON,
    DistanceReward,
    GroupDistanceRewards,
    check_groups,
    check_points,
)

# Two pairs for each of 256 threads: 128-bit loads, and a 64-bit store that needs no exchange between threads.
PAIRS_PER_PROGRAM, NUM_WARPS = 512, 8
MAX_GROUP_SIZE = 8192
"""Larger groups do not fit into one program's registers."""

# pi R: float32 holds it to 0.8 m, so the rest is added apart.
HALF_TURN_KM, HALF_TURN_REST_KM = tl.constexpr(20015.115234375), tl.constexpr(-0.000792339)
# Added to a float32, 1.5 * 2^23 rounds it to an integer; the lowest bit of the sum tells whether that is odd.
ROUND = tl.constexpr(12582912.0)


# Minimax polynomials with float32 coefficients (Remez, then rounded one by one and the rest fitted again).


@triton.jit
def _hav_of_square(square):
    """sin^2(x / 2) of x^2 in degrees: relative error 2e-8 up to 90.5 degrees, 2e-5 up to 180."""
    value = -1.0713133414487358e-19 + square * 3.731407731080144e-25
    value = -1.933165849621332e-09 + square * (1.9631316700279705e-14 + square * value)
    return square * (7.615435606567189e-05 + square * value)


@triton.jit
def _cos_lat(lat_deg):
    """As the sine of the distance to the pole, accurate and never negative there: relative error 8e-9."""
    colat_deg = 90.0 - tl.abs(lat_deg)
    square = colat_deg * colat_deg
    value = 1.3495400109919675e-11 + square * (-9.76920155759827e-17 + square * 3.893750280330662e-22)
    return colat_deg * (0.01745329238474369 + square * (-8.860954494593898e-07 + square * value))


@triton.jit
def _arc_km(hav):
    """2 R asin(sqrt(hav)) up to 0.5005: relative error 2e-8."""
    value = 205.87657165527344 + hav * (989.1343383789062 + hav * (-1192.08349609375 + hav * 1425.1715087890625))
    value = 2123.7021484375 + hav * (954.131591796875 + hav * (593.0866088867188 + hav * value))
    return tl.sqrt(hav) * (12742.017578125 + hav * value)


@triton.jit
def _hav_lon(lon_a, lon_b):
    """hav of the longitudes' difference and hav of 180 degrees minus it, both to full relative precision."""
    gap = lon_b - lon_a
    # Two-sum: what rounding took from the difference, which counts where it is a whole number of half turns.
    minus_a = gap - lon_b
    lost = (lon_b - (gap - minus_a)) - (lon_a + minus_a)
    shifted = gap * (1.0 / 180.0) + ROUND
    rest = (gap - 180.0 * (shifted - ROUND)) + lost
    # Past 7e8 degrees float32 no longer tells half turns apart; any angle is as right as another, but not NaN's.
    square = tl.minimum(rest * rest, 8100.0, propagate_nan=tl.PropagateNan.ALL)
    small = _hav_of_square(square)
    is_odd = (shifted.to(tl.int32, bitcast=True) & 1) != 0
    return tl.where(is_odd, 1.0 - small, small), tl.where(is_odd, small, 1.0 - small)


@triton.jit
def _distance_km(a_latlon_deg, b_latlon_deg):
    """The smaller of hav(d) and hav(pi - d) is at most 1/2 and was computed without cancellation."""
    lat_a, lon_a = tl.split(a_latlon_deg)
    lat_b, lon_b = tl.split(b_latlon_deg)
    hav_lon, hav_lon_antipode = _hav_lon(lon_a, lon_b)
    cos_cos = _cos_lat(lat_a) * _cos_lat(lat_b)
    dlat, dlat_antipode = lat_b - lat_a, lat_a + lat_b
    hav = _hav_of_square(dlat * dlat) + cos_cos * hav_lon
    hav_antipode = _hav_of_square(dlat_antipode * dlat_antipode) + cos_cos * hav_lon_antipode
    is_far = hav_antipode < hav
    smaller = tl.where(is_far, hav_antipode, hav)
    km = _arc_km(smaller)
    km = tl.where(is_far, HALF_TURN_KM - (km - HALF_TURN_REST_KM), km)
    # Infinite coordinates leave an infinity or NaN here, finite ones never more than rounding above 1/2.
    return tl.where(smaller < 1.0, km, float("nan"))


@triton.jit
def _haversine_kernel(a_ptr, b_ptr, km_ptr, num_pairs, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    floats, pairs = tl.arange(0, 2 * BLOCK), tl.arange(0, BLOCK)
    a_ptr += 2 * start
    b_ptr += 2 * start
    km_ptr += start
    # Masks of any length keep loads from being 128 bits wide: only the last program has them.
    if start + BLOCK <= num_pairs:
        a, b = tl.load(a_ptr + floats), tl.load(b_ptr + floats)
    else:
        is_inside = floats < 2 * (num_pairs - start)
        a = tl.load(a_ptr + floats, mask=is_inside, other=0.0)
        b = tl.load(b_ptr + floats, mask=is_inside, other=0.0)
    km = _distance_km(a.reshape(BLOCK, 2), b.reshape(BLOCK, 2))
    if start + BLOCK <= num_pairs:
        tl.store(km_ptr + pairs, km)
    else:
        tl.store(km_ptr + pairs, km, mask=pairs < num_pairs - start)


@triton.jit
def _reward(km, KIND: tl.constexpr, KM: tl.constexpr, VALUES: tl.constexpr):
    """As reference.distance_reward."""
    if KIND == "piecewise":
        reward = tl.zeros_like(km) + VALUES[0]
        for i in tl.static_range(len(KM) - 1):
            share = tl.minimum((km - KM[i]) * (1.0 / (KM[i + 1] - KM[i])), 1.0)
            reward = tl.where(km > KM[i], VALUES[i] + (VALUES[i + 1] - VALUES[i]) * share, reward)
    else:
        reward = tl.zeros_like(km)
        for i in tl.static_range(len(KM)):
            reward += tl.exp(km * (-1.0 / KM[i])) if KIND == "exponential" else tl.where(km <= KM[i], 1.0, 0.0)
        reward *= 1.0 / len(KM)
    return tl.where(km == km, reward, 0.0)


@triton.jit
def _group_distance_kernel(
    predicted_ptr,
    true_ptr,
    km_ptr,
    reward_ptr,
    advantage_ptr,
    has_signal_ptr,
    group_size,
    KIND: tl.constexpr,
    KM: tl.constexpr,
    VALUES: tl.constexpr,
    SCALE: tl.constexpr,
    EPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    prompt = tl.program_id(0).to(tl.int64)
    first = prompt * group_size
    floats, members = tl.arange(0, 2 * BLOCK), tl.arange(0, BLOCK)
    is_member = members < group_size
    predicted = tl.load(predicted_ptr + 2 * first + floats, mask=floats < 2 * group_size, other=0.0)
    truth = tl.load(true_ptr + 2 * prompt + floats % 2)
    km = _distance_km(predicted.reshape(BLOCK, 2), truth.reshape(BLOCK, 2))
    reward = _reward(km, KIND, KM, VALUES)
    lowest = tl.min(tl.where(is_member, reward, float("inf")), 0)
    highest = tl.max(tl.where(is_member, reward, -float("inf")), 0)
    # From the lowest reward on, nearly equal rewards are subtracted exactly; then once more what is left of the mean.
    centered = tl.where(is_member, reward - lowest, 0.0)
    centered = tl.where(is_member, centered - tl.sum(centered, 0) / group_size, 0.0)
    centered = tl.where(is_member, centered - tl.sum(centered, 0) / group_size, 0.0)
    if SCALE == "group":
        centered /= tl.sqrt_rn(tl.sum(centered * centered, 0) / tl.maximum(group_size - 1, 1)) + EPS
    tl.store(km_ptr + first + members, km, mask=is_member)
    tl.store(reward_ptr + first + members, reward, mask=is_member)
    tl.store(advantage_ptr + first + members, tl.where(lowest != highest, centered, 0.0), mask=is_member)
    tl.store(has_signal_ptr + prompt, lowest != highest)


def _haversine_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    a, b = (x.contiguous() for x in torch.broadcast_tensors(a_latlon_deg, b_latlon_deg))
    km = torch.empty(a.shape[:-1], dtype=torch.float32, device=a.device)
    if km.numel() > 0:
        grid = (triton.cdiv(km.numel(), PAIRS_PER_PROGRAM),)
        with torch.cuda.device_of(km):
            _haversine_kernel[grid](a, b, km, km.numel(), BLOCK=PAIRS_PER_PROGRAM, num_warps=NUM_WARPS)
    return km


def _group_distance_rewards(
    predicted_latlon_deg: Tensor, true_latlon_deg: Tensor, reward: DistanceReward, scale: str
) -> GroupDistanceRewards:
    num_prompts, group_size = predicted_latlon_deg.shape[:2]
    if group_size > MAX_GROUP_SIZE:
        raise ValueError(f"a group may have up to {MAX_GROUP_SIZE} completions, got {group_size}.")
    # Three tensors, not one: each begins aligned, so that one compiled kernel serves all shapes.
    km, rewards, advantages = (predicted_latlon_deg.new_empty(num_prompts, group_size) for _ in range(3))
    has_signal = torch.empty(num_prompts, dtype=torch.bool, device=km.device)
    if group_size == 0:
        has_signal.zero_()
    elif num_prompts > 0:
        block = triton.next_power_of_2(group_size)
        with torch.cuda.device_of(km):
            _group_distance_kernel[(num_prompts,)](
                predicted_latlon_deg.contiguous(),
                true_latlon_deg.contiguous(),
                km,
                rewards,
                advantages,
                has_signal,
                group_size,
                KIND=reward.kind,
                KM=reward.km,
                VALUES=reward.values,
                SCALE=scale,
                EPS=EPSILON,
                BLOCK=block,
                num_warps=min(max(block // 128, 1), 16),
            )
    return GroupDistanceRewards(km, rewards, advantages, has_signal)


@torch.compiler.disable(reason=GRAPH_BREAK)
def haversine_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """Great-circle distance on a sphere of EARTH_RADIUS_KM, within 4 m of it everywhere.

    The usual form loses 1.3 m at short range and 5.5 km near antipodes in float32. Here hav(d) and hav(pi - d) are
    computed side by side, each without cancellation. On a GPU in one launch; with gradients, or in float64, by the
    PyTorch reference.

    Args:
        a_latlon_deg, b_latlon_deg: (..., 2) float32 or float64 degrees, broadcast together; lat in [-90, 90], lon any
            (wraps). Half precision cannot say where something is: 0.06 degrees are 7 km.
    Returns:
        (...) km in [0, 20015.2], in the inputs' common dtype. NaN or infinity in, NaN out.
    Raises:
        ValueError: when a last dimension is not 2, on another dtype, on two devices, when shapes do not broadcast.
    Source: R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984. Within 0.57 % of the WGS84 geodesic.
    """
    check_points(a_latlon_deg, b_latlon_deg)
    wants_grad = torch.is_grad_enabled() and (a_latlon_deg.requires_grad or b_latlon_deg.requires_grad)
    is_float32 = a_latlon_deg.dtype == b_latlon_deg.dtype == torch.float32
    if is_float32 and not wants_grad and use_triton(a_latlon_deg):
        return _haversine_km(a_latlon_deg, b_latlon_deg)
    return reference.haversine_km(a_latlon_deg, b_latlon_deg)


@torch.compiler.disable(reason=GRAPH_BREAK)
def group_distance_rewards(
    predicted_latlon_deg: Tensor, true_latlon_deg: Tensor, reward: DistanceReward, *, scale: str = "group"
) -> GroupDistanceRewards:
    """Distance, reward and advantage of every completion; on a GPU in one launch.

    Advantages are the rewards minus their group's mean, divided by the group's standard deviation (with G - 1) plus
    1e-4 under the scale "group", or by nothing under "none". A group of equal rewards has advantages of exactly 0.

    Args:
        predicted_latlon_deg: (P, G, 2) float32 or float64 degrees; NaN where a completion holds no coordinates. On a
            GPU G is at most 8192.
        true_latlon_deg: (P, 2), the same dtype.
        reward: what a distance earns, e.g. one of DISTANCE_REWARDS.
        scale: "group" (GRPO, arXiv 2402.03300) or "none" (Dr. GRPO, arXiv 2503.20783).
    Returns:
        distance_km, reward and advantages, each (P, G) float32, and has_signal, (P,) bool. No coordinates: distance
        NaN, reward 0. No gradient flows back.
    Raises:
        ValueError: on other shapes, dtypes, devices, or an unknown scale.
    """
    check_groups(predicted_latlon_deg, true_latlon_deg, scale)
    if use_triton(predicted_latlon_deg):
        return _group_distance_rewards(predicted_latlon_deg, true_latlon_deg, reward, scale)
    return reference.group_distance_rewards(predicted_latlon_deg, true_latlon_deg, reward, scale=scale)
