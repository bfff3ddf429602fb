"""haversine_km, distance_reward and group_distance_rewards: laws, and float64 definitions that share no code with them.

Shapes: N pairs of points, P prompts, G group.
"""

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from distance_oracles import (
    EPS,
    HALF_CIRCUMFERENCE_KM,
    LIMITS,
    REGIMES,
    STEPS,
    distances_are_accurate,
    exact_km,
    exact_reward,
    group_rewards_are_accurate,
    groups_of_points,
    pairs_of_points,
)
from geogrpo_kernels.distances import MAX_GROUP_SIZE, PAIRS_PER_PROGRAM, group_distance_rewards, haversine_km
from geogrpo_kernels.launch import GRAPH_BREAK
from geogrpo_kernels.reference import distances as reference
from geogrpo_kernels.reference.distances import DISTANCE_REWARDS, DistanceReward, distance_reward, group_advantages
from kernel_mutants import Mutant, mutants_of, mutated_package
from pyproj import Geod
from torch import Tensor

REWARDS = {**DISTANCE_REWARDS, "steps": STEPS, "limits": LIMITS}
SIZES = (1, 2, 63, PAIRS_PER_PROGRAM - 1, PAIRS_PER_PROGRAM, PAIRS_PER_PROGRAM + 3)
GROUP_SIZES = (1, 2, 3, 8, 16, 100, 131, 1024, 1031)


def points(num_points: int, device: torch.device) -> Tensor:
    """(N, 2) multiples of 1/64 degree, so that every sum with a multiple of 180 is exact in float32. Corners first."""
    rng = np.random.default_rng(1)
    some = rng.integers((-90 * 64, -180 * 64), (90 * 64 + 1, 180 * 64 + 1), size=(num_points, 2)) / 64
    corners = [(lat, lon) for lat in (-90, 0, 90) for lon in (-180, -90, 0, 90, 180)]
    some[: len(corners)] = corners
    return torch.from_numpy(some).to(device, torch.float32)


@pytest.mark.parametrize("regime", REGIMES)
def test_float32_distance_is_within_4_m_and_4_eps(regime: str, device: torch.device) -> None:
    assert distances_are_accurate(haversine_km, device, regime)


@pytest.mark.parametrize("factor", ["(1 + 2**-23)", "(1 - 2**-23)"])
def test_a_gpus_approximate_square_root_keeps_to_4_m(factor: str, kernel_device: torch.device, tmp_path: Path) -> None:
    # sqrt.approx.f32 may be off by a relative 2^-23 (PTX ISA), the interpreter's is exact
    name = "high" if "+" in factor else "low"
    mutant = Mutant(
        "haversine", f"square_root_is_{name}", "distances.py", "tl.sqrt(hav) *", f"tl.sqrt(hav) * {factor} *"
    )
    a, b = pairs_of_points("random", kernel_device, num_pairs=100_000)
    error = (distances_module(mutant, tmp_path).haversine_km(a, b).double().cpu() - exact_km(a, b)).abs()
    assert error.max() <= 0.004


@pytest.mark.parametrize("regime", REGIMES)
def test_float64_distance_is_within_a_micrometre(regime: str, device: torch.device) -> None:
    a, b = pairs_of_points(regime, device, torch.float64)
    assert (haversine_km(a, b).cpu() - exact_km(a, b)).abs().max() <= 1e-9


@pytest.mark.parametrize("regime", REGIMES)
def test_distance_is_symmetric(regime: str, device: torch.device) -> None:
    a, b = pairs_of_points(regime, device)
    forth, back = haversine_km(a, b), haversine_km(b, a)
    assert ((forth - back).abs() <= 4 * EPS * forth).all()


@pytest.mark.parametrize("regime", ["random", "25 km", "antimeridian"])
def test_distance_is_within_0_57_percent_of_the_wgs84_geodesic(regime: str, device: torch.device) -> None:
    a, b = pairs_of_points(regime, device)
    # pyproj takes lon, lat
    lon_lat = (x.double().cpu().numpy() for x in (a[:, 1], a[:, 0], b[:, 1], b[:, 0]))
    geodesic_m = Geod(ellps="WGS84").inv(*lon_lat)[2]
    distance_m = 1000 * haversine_km(a, b).double().cpu().numpy()
    assert (np.abs(distance_m - geodesic_m) <= 0.0057 * geodesic_m).all()


@pytest.mark.parametrize("turns", [-3, -1, 1, 2])
def test_whole_turns_of_longitude_change_nothing(turns: int, device: torch.device) -> None:
    a, b = points(600, device), points(600, device).flip(0)
    turned = a + torch.tensor([0.0, 360.0 * turns], device=device)
    expected = haversine_km(a, b)
    assert ((haversine_km(turned, b) - expected).abs() <= 2 * EPS * expected).all()


def test_a_point_is_0_km_from_itself(device: torch.device) -> None:
    a = torch.cat([points(600, device), pairs_of_points("random", device)[0]])
    assert not haversine_km(a, a).any()


def test_antipodes_are_half_the_circumference_apart(device: torch.device) -> None:
    a = points(600, device)
    antipode = torch.stack([-a[:, 0], a[:, 1] + 180], -1)
    distance = haversine_km(a, antipode).double()
    assert ((distance - HALF_CIRCUMFERENCE_KM).abs() <= EPS * HALF_CIRCUMFERENCE_KM).all()


@pytest.mark.parametrize("pole", [90.0, -90.0])
def test_longitude_means_nothing_at_a_pole(pole: float, device: torch.device) -> None:
    a = points(600, device)
    a[:, 0] = pole
    assert not haversine_km(a, a.flip(0)).any()


def test_a_quarter_turn_is_a_quarter_of_the_circumference(device: torch.device) -> None:
    others = torch.tensor([[90.0, 13.0], [-90.0, 0.0], [0.0, 90.0], [0.0, -90.0]], device=device)
    distance = haversine_km(torch.zeros(2, device=device), others).double()
    assert ((distance - HALF_CIRCUMFERENCE_KM / 2).abs() <= EPS * HALF_CIRCUMFERENCE_KM).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(4))
def test_what_is_not_finite_is_nan_kilometres_away(place: int, value: float, device: torch.device) -> None:
    values = torch.rand(7, 4, device=device)
    values[3, place] = value
    assert haversine_km(values[:, :2], values[:, 2:]).isnan().tolist() == [False] * 3 + [True] + [False] * 3


@pytest.mark.parametrize("lon", [1e7, 1e9, 1e12, 3e38])
def test_any_longitude_gives_a_distance_on_the_sphere(lon: float, device: torch.device) -> None:
    a, b = torch.tensor([[20.0, lon], [20.0, -lon]], device=device), torch.tensor([-40.0, 7.0], device=device)
    distance = haversine_km(a, b)
    assert ((distance >= 0) & (distance <= 1.000001 * HALF_CIRCUMFERENCE_KM)).all()


def test_points_broadcast_like_any_tensor(device: torch.device) -> None:
    a, b = (x[:12] for x in pairs_of_points("random", device))
    grid = haversine_km(a[:3, None], b)
    assert grid.shape == (3, 12)
    assert torch.equal(grid, torch.stack([haversine_km(a[i].expand(12, 2), b) for i in range(3)]))
    assert torch.equal(haversine_km(a[0], b[0]), grid[0, 0])


@pytest.mark.parametrize("num_pairs", SIZES)
def test_a_pairs_distance_does_not_depend_on_its_neighbours(num_pairs: int, device: torch.device) -> None:
    a, b = pairs_of_points("random", device)
    assert torch.equal(haversine_km(a[:num_pairs], b[:num_pairs]), haversine_km(a, b)[:num_pairs])


def test_memory_layout_does_not_matter(device: torch.device) -> None:
    a, b = pairs_of_points("random", device)
    expected = haversine_km(a, b)
    assert torch.equal(haversine_km(a[1:], b[1:]), expected[1:])
    assert torch.equal(haversine_km(a[::3], b[::3]), expected[::3])
    assert torch.equal(haversine_km(a.T.contiguous().T, b), expected)
    assert haversine_km(a[:0], b[:0]).shape == (0,)


@pytest.mark.parametrize("block_pairs", [1, 100, 1024])
def test_blocks_of_the_reference_do_not_change_a_bit(block_pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pairs_of_points("random", torch.device("cpu"))
    expected = reference.haversine_km(a, b)
    monkeypatch.setattr(reference, "BLOCK_PAIRS", block_pairs)
    assert torch.equal(reference.haversine_km(a, b), expected)


def test_float64_and_mixed_points_are_computed_in_float64(device: torch.device) -> None:
    a, b = pairs_of_points("random", device)
    expected = haversine_km(a.double(), b.double())
    assert expected.dtype == torch.float64
    assert torch.equal(haversine_km(a, b.double()), expected)
    assert torch.equal(haversine_km(a.double(), b), expected)


def test_gradient_is_that_of_finite_differences(device: torch.device) -> None:
    a, b = (x[:9].requires_grad_() for x in pairs_of_points("random", device, torch.float64))
    assert torch.autograd.gradcheck(haversine_km, (a, b))


def test_distances_have_gradients_in_float32_too(device: torch.device) -> None:
    a, b = pairs_of_points("random", device)
    (grad,) = torch.autograd.grad(haversine_km(a.requires_grad_(), b).sum(), a)
    exact_a = a.detach().double().requires_grad_()
    (exact,) = torch.autograd.grad(haversine_km(exact_a, b.double()).sum(), exact_a)
    assert (grad - exact).abs().median() <= 4 * EPS * exact.abs().median()


def test_a_compiled_caller_gets_the_same_distances(device: torch.device) -> None:
    a, b = pairs_of_points("random", device)
    compiled = torch.compile(lambda a, b: 2 * haversine_km(a, b) + 1, backend="eager")
    assert torch.equal(compiled(a, b), 2 * haversine_km(a, b) + 1)
    predicted, truth = groups_of_points(8, device)
    compiled = torch.compile(lambda *pair: 2 * group_distance_rewards(*pair, STEPS).advantages, backend="eager")
    assert torch.equal(compiled(predicted, truth), 2 * group_distance_rewards(predicted, truth, STEPS).advantages)
    with pytest.raises(Exception, match=GRAPH_BREAK):
        torch.compile(lambda a, b: haversine_km(a, b), backend="eager", fullgraph=True)(a, b)


@pytest.mark.parametrize(("a_shape", "b_shape"), [((5, 3), (5, 2)), ((5, 2), (5, 1)), ((2,), ())])
def test_points_that_are_not_pairs_are_rejected(a_shape: tuple, b_shape: tuple, device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 2\) lat, lon, got") as error:
        haversine_km(torch.zeros(a_shape, device=device), torch.zeros(b_shape, device=device))
    assert f"{a_shape} and {b_shape}" in str(error.value)


def test_points_of_other_shapes_types_and_devices_are_rejected(device: torch.device) -> None:
    a = torch.zeros(5, 2, device=device)
    with pytest.raises(ValueError, match=r"shapes that broadcast together, got \(5, 2\) and \(3, 2\)"):
        haversine_km(a, a[:3])
    for dtype in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(ValueError, match=f"lat, lon must be float32 or float64, got {dtype}"):
            haversine_km(a, a.to(dtype))
    with pytest.raises(ValueError, match=r"points must be on one device, got .* and meta"):
        haversine_km(a, a.to("meta"))


@pytest.mark.parametrize(
    ("reward", "distance_km", "expected"),
    [
        (DISTANCE_REWARDS["geor_paper"], 375.0, 0.75),
        (DISTANCE_REWARDS["geor_paper"], 1625.0, 0.35),
        (DISTANCE_REWARDS["geor_code"], 1875.0, 0.35),
        (DISTANCE_REWARDS["geor_paper"], 20015.0, 0.0),
        (DISTANCE_REWARDS["multiscale"], 100.0, sum(math.exp(-100 / x) for x in (1, 25, 200, 750, 2500)) / 5),
        (DistanceReward("piecewise", (10.0, 20.0), (0.8, 0.4)), 5.0, 0.8),
        (DistanceReward("piecewise", (10.0, 20.0), (0.8, 0.4)), 15.0, 0.6),
        (DistanceReward("piecewise", (10.0, 20.0), (0.8, 0.4)), math.inf, 0.4),
        (DistanceReward("threshold", (1.0, 25.0, 200.0, 750.0)), 25.0, 0.75),
        (DistanceReward("threshold", (1.0, 25.0, 200.0, 750.0)), 25.1, 0.5),
        *((reward, math.nan, 0.0) for reward in REWARDS.values()),
    ],
)
def test_rewards_are_those_computed_by_hand(reward: DistanceReward, distance_km: float, expected: float) -> None:
    value = distance_reward(torch.tensor([distance_km], dtype=torch.float64), reward)
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_are_as_accurate_in_float32(name: str) -> None:
    distance_km = torch.cat([torch.linspace(0, 20015, 997), torch.tensor([750.0, 2500.0, 20000.0, math.inf])])
    error = (distance_reward(distance_km, REWARDS[name]) - exact_reward(distance_km, REWARDS[name])).abs()
    assert error.max() <= 4 * EPS


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (("linear", (1.0,)), r"kind must be one of exponential, piecewise, threshold, got 'linear'"),
        (("exponential", ()), r"km must be one or more finite numbers >= 0, got \(\)"),
        (("threshold", (-1.0,)), r"finite numbers >= 0, got \(-1.0,\)"),
        (("threshold", (math.nan,)), r"finite numbers >= 0, got \(nan,\)"),
        (("exponential", (25.0, 0.0)), r"scales of an exponential reward must be > 0, got \(25.0, 0.0\)"),
        (
            ("exponential", (25.0,), (1.0,)),
            r"values must be 0 finite numbers for this exponential reward, got \(1.0,\)",
        ),
        (("piecewise", (0.0, 1.0), (1.0,)), r"values must be 2 finite numbers for this piecewise reward"),
        (("piecewise", (0.0,), (math.inf,)), r"values must be 1 finite numbers"),
        (
            ("piecewise", (0.0, 5.0, 5.0), (1.0, 0.5, 0.0)),
            r"knots of a piecewise reward must rise, got \(0.0, 5.0, 5.0",
        ),
    ],
)
def test_a_reward_that_makes_no_sense_is_rejected(fields: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DistanceReward(*fields)


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_group_rewards_are_accurate(group_size: int, scale: str, device: torch.device) -> None:
    assert group_rewards_are_accurate(group_distance_rewards, device, group_size, REWARDS["multiscale"], scale)


@pytest.mark.parametrize("name", REWARDS)
def test_every_reward_is_accurate_within_groups(name: str, device: torch.device) -> None:
    assert group_rewards_are_accurate(group_distance_rewards, device, 131, REWARDS[name], "group")


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("group_size", GROUP_SIZES[1:])
def test_advantages_of_a_group_sum_to_0(group_size: int, scale: str, device: torch.device) -> None:
    advantages = group_distance_rewards(*groups_of_points(group_size, device), STEPS, scale=scale).advantages.double()
    assert (advantages.sum(-1).abs() <= 2 * EPS * advantages.abs().sum(-1)).all()


@pytest.mark.parametrize("scale", ["group", "none"])
@pytest.mark.parametrize("earned", [0.9, 0.1, 0.7])
def test_equal_rewards_have_advantages_of_exactly_0(earned: float, scale: str, device: torch.device) -> None:
    # Every distance earns the same fraction, whose mean in floating point is another number.
    reward = DistanceReward("piecewise", (0.0, 1.0), (earned, earned))
    predicted, truth = groups_of_points(10, device)
    result = group_distance_rewards(predicted[3:], truth[3:], reward, scale=scale)
    assert result.reward.unique().tolist() == [torch.tensor(earned).item()]
    assert not result.advantages.any()
    assert not result.has_signal.any()


def test_float64_groups_agree_with_float32(device: torch.device) -> None:
    predicted, truth = groups_of_points(8, device)
    single = group_distance_rewards(predicted, truth, LIMITS)
    double = group_distance_rewards(predicted.double(), truth.double(), LIMITS)
    assert [x.dtype for x in double] == [torch.float32] * 3 + [torch.bool]
    for one, other in zip(single, double, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_no_completions_have_no_advantages(shape: tuple[int, int], device: torch.device) -> None:
    predicted, truth = torch.zeros(*shape, 2, device=device), torch.zeros(shape[0], 2, device=device)
    result = group_distance_rewards(predicted, truth, STEPS)
    assert all(x.shape == shape for x in result[:3])
    assert result.has_signal.tolist() == [False] * shape[0]


def test_groups_that_do_not_fit_are_rejected(device: torch.device) -> None:
    predicted, truth = torch.zeros(3, 4, 2, device=device), torch.zeros(3, 2, device=device)
    for wrong in (predicted[0], predicted[:2], predicted[..., :1]):
        with pytest.raises(ValueError, match=r"expected predictions \(P, G, 2\) and truths \(P, 2\), got") as error:
            group_distance_rewards(wrong, truth, STEPS)
        assert f"{tuple(wrong.shape)} and (3, 2)" in str(error.value)
    with pytest.raises(ValueError, match=r"must have one dtype, got torch.float32 and torch.float64"):
        group_distance_rewards(predicted, truth.double(), STEPS)
    with pytest.raises(ValueError, match=r"scale must be group or none, got 'batch'"):
        group_distance_rewards(predicted, truth, STEPS, scale="batch")


def test_a_group_too_large_for_one_program_is_rejected(kernel_device: torch.device) -> None:
    predicted = torch.zeros(1, MAX_GROUP_SIZE + 1, 2, device=kernel_device)
    with pytest.raises(ValueError, match=rf"up to {MAX_GROUP_SIZE} completions, got {MAX_GROUP_SIZE + 1}"):
        group_distance_rewards(predicted, predicted[:, 0], STEPS)
    assert group_rewards_are_accurate(group_distance_rewards, kernel_device, MAX_GROUP_SIZE, LIMITS, "group")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rewards_that_are_not_finite_have_no_advantages(value: float) -> None:
    with pytest.raises(ValueError, match=r"rewards must be finite"):
        group_advantages(torch.tensor([[0.0, value]]))


def distances_module(mutant: Mutant, folder: Path):  # type: ignore[no-untyped-def]
    return importlib.import_module(f"{mutated_package(mutant, folder).__name__}.distances")


@pytest.mark.parametrize("mutant", mutants_of("haversine"), ids=str)
def test_a_wrong_distance_kernel_fails(mutant: Mutant, kernel_device: torch.device, tmp_path: Path) -> None:
    wrong = distances_module(mutant, tmp_path).haversine_km
    assert not all(distances_are_accurate(wrong, kernel_device, regime) for regime in REGIMES)


@pytest.mark.parametrize("mutant", mutants_of("group_distance"), ids=str)
def test_a_wrong_group_kernel_fails(mutant: Mutant, kernel_device: torch.device, tmp_path: Path) -> None:
    wrong = distances_module(mutant, tmp_path).group_distance_rewards
    assert not all(
        group_rewards_are_accurate(wrong, kernel_device, 131, reward, scale)
        for reward in REWARDS.values()
        for scale in ("group", "none")
    )
