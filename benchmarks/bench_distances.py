"""Distances per second beside plain and compiled PyTorch, and the fused group op beside its parts.

pytest benchmarks/bench_distances.py        under a minute on 2 CPU cores; on a GPU 1e8 pairs

Peers: the usual one-sided haversine formula, which loses 5.5 km near antipodes in float32; our two-sided formula as
torch.compile makes it, once written plainly and once as the reference has it: on a CPU Inductor vectorizes the latter,
whose sines are stacked. extra_info: pairs per second, GB/s over 20 bytes a pair, on a GPU the share of the
bandwidth that a copy of the same size reaches in the same run.
"""

import math
import os
from collections.abc import Callable

import pytest
import torch
from geogrpo_kernels.distances import group_distance_rewards, haversine_km
from geogrpo_kernels.reference import distances as reference
from geogrpo_kernels.reference.distances import DISTANCE_REWARDS, EARTH_RADIUS_KM
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

HAS_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if HAS_GPU else "cpu")
NUM_PAIRS = (100_000_000,) if HAS_GPU else (1_000_000, 10_000_000)
# Prompts and group size: a step of the recipes, and a long one
GROUPS = ((64, 8), (4096, 16), (1024, 1000))
BYTES_PER_PAIR = 20
MIN_SHARE_OF_COPY = 0.85

Distance = Callable[[Tensor, Tensor], Tensor]


def usual_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """The formula as it is found everywhere."""
    lat_a, lon_a = torch.deg2rad(a_latlon_deg).unbind(-1)
    lat_b, lon_b = torch.deg2rad(b_latlon_deg).unbind(-1)
    along_lat, along_lon = torch.sin((lat_b - lat_a) / 2).square(), torch.sin((lon_b - lon_a) / 2).square()
    hav = along_lat + torch.cos(lat_a) * torch.cos(lat_b) * along_lon
    return 2 * EARTH_RADIUS_KM * torch.asin(hav.sqrt().clamp(max=1))


def two_sided_km(a_latlon_deg: Tensor, b_latlon_deg: Tensor) -> Tensor:
    """The reference's formula without its blocks, buffers and work in place: what a compiler fuses best."""
    lat_a, lon_a = a_latlon_deg.unbind(-1)
    lat_b, lon_b = b_latlon_deg.unbind(-1)
    gap = lon_b - lon_a
    minus_a = gap - lon_b
    lost = (lon_b - (gap - minus_a)) - (lon_a + minus_a)
    half_turns = torch.round(gap / 180)
    is_odd = (half_turns - 2 * torch.round(half_turns / 2)).abs()
    hav_rest = _sin_of_half((gap - 180 * half_turns) + lost).square()
    cos_cos = _sin_of_half(180 - 2 * lat_a.abs()) * _sin_of_half(180 - 2 * lat_b.abs())
    hav = _sin_of_half(lat_b - lat_a).square() + cos_cos * (is_odd - hav_rest).abs()
    hav_antipode = _sin_of_half(lat_a + lat_b).square() + cos_cos * ((1 - is_odd) - hav_rest).abs()
    return 2 * EARTH_RADIUS_KM * torch.atan2(hav.sqrt(), hav_antipode.sqrt())


def _sin_of_half(angle_deg: Tensor) -> Tensor:
    return torch.sin(angle_deg * (math.pi / 360))


def peers() -> dict[str, Distance]:
    """Ours last."""
    return {
        "usual": usual_km,
        "usual compiled": torch.compile(usual_km, dynamic=False),
        "two-sided compiled": torch.compile(two_sided_km, dynamic=False),
        "reference compiled": torch.compile(reference._two_sided_km, dynamic=False),
        "haversine_km": haversine_km,
    }


def points(num_pairs: int) -> tuple[Tensor, Tensor]:
    """Two (N, 2) tensors, uniform in degrees."""
    generator = torch.Generator(DEVICE).manual_seed(0)
    limits = torch.tensor([90.0, 180.0], device=DEVICE)
    one, other = (torch.rand(num_pairs, 2, device=DEVICE, generator=generator) for _ in range(2))
    return one.mul_(2).sub_(1).mul_(limits), other.mul_(2).sub_(1).mul_(limits)


def run(benchmark: BenchmarkFixture, function: Callable[[], object], rounds: int) -> float:
    """Median seconds per call, after two calls to warm up; on a GPU until the device is done."""

    def timed() -> None:
        function()
        if HAS_GPU:
            torch.cuda.synchronize()

    benchmark.pedantic(timed, rounds=rounds, warmup_rounds=2)
    benchmark.extra_info["device"] = torch.cuda.get_device_name() if HAS_GPU else f"{torch.get_num_threads()} threads"
    benchmark.extra_info["torch"] = torch.__version__
    benchmark.extra_info["load_average"] = round(os.getloadavg()[0], 2)
    return float(benchmark.stats.stats.median)


def copy_gb_per_s(num_bytes: int) -> float:
    """What a copy that moves as many bytes reaches on this GPU, the best of 20."""
    source = torch.empty(num_bytes // 8, dtype=torch.float32, device=DEVICE)
    target = torch.empty_like(source)
    best = math.inf
    for _ in range(20):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        best = min(best, start.elapsed_time(end) / 1e3)
    return 2 * source.nbytes / best / 1e9


@pytest.mark.parametrize("num_pairs", NUM_PAIRS)
@pytest.mark.parametrize("name", peers())
def test_distances(benchmark: BenchmarkFixture, name: str, num_pairs: int) -> None:
    a, b = points(num_pairs)
    function = peers()[name]
    seconds = run(benchmark, lambda: function(a, b), rounds=20 if HAS_GPU or num_pairs < 2_000_000 else 5)
    gb_per_s = BYTES_PER_PAIR * num_pairs / seconds / 1e9
    benchmark.extra_info["million_pairs_per_s"] = round(num_pairs / seconds / 1e6, 1)
    benchmark.extra_info["gb_per_s"] = round(gb_per_s, 1)
    if HAS_GPU:
        share = gb_per_s / copy_gb_per_s(BYTES_PER_PAIR * num_pairs)
        benchmark.extra_info["share_of_copy_bandwidth"] = round(share, 3)
        assert name != "haversine_km" or share >= MIN_SHARE_OF_COPY


@pytest.mark.parametrize(("num_prompts", "group_size"), GROUPS)
@pytest.mark.parametrize("name", ["parts", "group_distance_rewards"])
def test_group_rewards(benchmark: BenchmarkFixture, name: str, num_prompts: int, group_size: int) -> None:
    predicted, truth = points(num_prompts * group_size)
    predicted, truth = predicted.view(num_prompts, group_size, 2), truth[:num_prompts]
    function = {"parts": reference.group_distance_rewards, "group_distance_rewards": group_distance_rewards}[name]
    seconds = run(benchmark, lambda: function(predicted, truth, DISTANCE_REWARDS["multiscale"]), rounds=10)
    benchmark.extra_info["million_completions_per_s"] = round(num_prompts * group_size / seconds / 1e6, 2)


@pytest.mark.gpu
@pytest.mark.skipif(not HAS_GPU, reason="there is no CUDA device to copy on")
def test_copy_bandwidth(benchmark: BenchmarkFixture) -> None:
    source = torch.empty(500_000_000, dtype=torch.float32, device=DEVICE)
    target = torch.empty_like(source)
    seconds = run(benchmark, lambda: target.copy_(source), rounds=20)
    benchmark.extra_info["gb_per_s"] = round(2 * source.nbytes / seconds / 1e9, 1)
