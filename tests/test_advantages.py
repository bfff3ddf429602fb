"""Hand-computed advantages and their laws. Shapes: P prompts, G group."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from geogrpo.advantages import EPSILON, decoupled_advantages, group_advantages, has_signal

EPS = torch.finfo(torch.float32).eps
# A mean in float64 is off by some eps; at worst EPSILON alone divides it.
OF_THE_MEAN = 8 * torch.finfo(torch.float64).eps / EPSILON
SCALES = ("group", "batch", "none")
# Deviation of 0, 0, 1, 1 around 1/2 with n - 1 in the denominator
DEVIATION = math.sqrt(1 / 3)

REWARDS = (
    st.integers(2, 6)
    .flatmap(
        lambda group_size: st.lists(
            st.lists(st.floats(0, 1), min_size=group_size, max_size=group_size), min_size=1, max_size=5
        )
    )
    .map(lambda rows: torch.tensor(rows, dtype=torch.float64))
)


@pytest.mark.parametrize(
    ("scale", "rewards", "expected"),
    [
        ("group", [[0, 0, 1, 1]], [[-0.5 / (DEVIATION + EPSILON)] * 2 + [0.5 / (DEVIATION + EPSILON)] * 2]),
        # Each group by its own deviation: 1 / sqrt(2) and 3 / sqrt(2)
        (
            "group",
            [[0, 1], [0, 3]],
            [
                [-0.5 / (math.sqrt(0.5) + EPSILON), 0.5 / (math.sqrt(0.5) + EPSILON)],
                [-1.5 / (math.sqrt(4.5) + EPSILON), 1.5 / (math.sqrt(4.5) + EPSILON)],
            ],
        ),
        # All of 0, 1, 0, 3: mean 1, squares 1 + 0 + 1 + 4 over 3, so sqrt(2)
        (
            "batch",
            [[0, 1], [0, 3]],
            [
                [-0.5 / (math.sqrt(2) + EPSILON), 0.5 / (math.sqrt(2) + EPSILON)],
                [-1.5 / (math.sqrt(2) + EPSILON), 1.5 / (math.sqrt(2) + EPSILON)],
            ],
        ),
        ("none", [[0, 1], [0, 3]], [[-0.5, 0.5], [-1.5, 1.5]]),
    ],
)
def test_advantages_of_small_groups_are_those_computed_by_hand(
    scale: str, rewards: list[list[float]], expected: list[list[float]]
) -> None:
    actual = group_advantages(torch.tensor(rewards, dtype=torch.float64), scale)
    assert actual.dtype == torch.float32
    assert torch.equal(actual, torch.tensor(expected, dtype=torch.float64).float())


def test_the_default_scale_is_the_groups_own_deviation() -> None:
    rewards = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert torch.equal(group_advantages(rewards), group_advantages(rewards, "group"))


@settings(deadline=None)
@given(rewards=REWARDS, scale=st.sampled_from(SCALES))
def test_each_row_sums_to_0(rewards: Tensor, scale: str) -> None:
    advantages = group_advantages(rewards, scale)
    # Each element is rounded to float32 once.
    bound = EPS * advantages.double().abs().sum(-1) + rewards.shape[1] * OF_THE_MEAN
    assert (advantages.double().sum(-1).abs() <= bound).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("reward", "group_size"), [(0.9, 8), (0.1, 3), (0.7, 10), (0.0, 2)])
def test_equal_rewards_give_exactly_0(reward: float, group_size: int, dtype: torch.dtype, scale: str) -> None:
    # The second row keeps the deviation of the batch away from 0.
    rewards = torch.tensor([[reward] * group_size, [float(i) for i in range(group_size)]], dtype=dtype)
    advantages = group_advantages(rewards, scale)
    assert not advantages[0].any()
    assert advantages[1].any()
    assert has_signal(rewards).tolist() == [False, True]


@pytest.mark.parametrize("scale", SCALES)
def test_a_batch_of_equal_rewards_is_0(scale: str) -> None:
    assert not group_advantages(torch.full((3, 8), 0.9), scale).any()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0)])
def test_no_rewards_have_no_advantages(shape: tuple[int, int], scale: str) -> None:
    assert has_signal(torch.zeros(shape)).tolist() == [False] * shape[0]
    assert torch.equal(group_advantages(torch.zeros(shape, dtype=torch.float64), scale), torch.zeros(shape))


def test_the_smallest_difference_is_a_signal() -> None:
    rewards = torch.full((1, 8), 0.9)
    rewards[0, 3] = torch.nextafter(rewards[0, 3], torch.tensor(1.0))
    assert has_signal(rewards).tolist() == [True]
    advantages = group_advantages(rewards)
    assert advantages.argmax() == 3
    assert (advantages != 0).all()


@settings(deadline=None)
@given(rewards=REWARDS, scale=st.sampled_from(SCALES), seed=st.integers(0, 99))
def test_the_order_of_groups_and_of_completions_does_not_matter(rewards: Tensor, scale: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randperm(rewards.shape[0], generator=generator)
    members = torch.randperm(rewards.shape[1], generator=generator)
    expected = group_advantages(rewards, scale)[groups][:, members]
    actual = group_advantages(rewards[groups][:, members], scale)
    # float64 sums in another order, then float32
    torch.testing.assert_close(actual, expected, rtol=EPS, atol=OF_THE_MEAN)


@settings(deadline=None)
@given(rewards=REWARDS, shift=st.integers(-4, 4))
def test_a_constant_added_to_all_rewards_changes_no_advantage(rewards: Tensor, shift: int) -> None:
    # Multiples of 1/1024: the shift is exact
    rewards = (rewards * 1024).round() / 1024
    torch.testing.assert_close(
        group_advantages(rewards + shift), group_advantages(rewards), rtol=EPS, atol=5 * OF_THE_MEAN
    )


def test_a_better_completion_has_a_larger_advantage() -> None:
    rewards = torch.tensor([[0.2, 0.9, 0.1, 0.5]])
    for scale in SCALES:
        assert torch.equal(group_advantages(rewards, scale).argsort(), rewards.argsort())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("scale", SCALES)
def test_a_reward_that_is_not_finite_is_rejected(value: float, scale: str) -> None:
    with pytest.raises(ValueError, match=r"rewards must be finite; a completion that cannot be scored earns 0"):
        group_advantages(torch.tensor([[0.0, 1.0], [0.5, value]]), scale)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 2)])
def test_rewards_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rewards must be \(P, G\), got") as error:
        group_advantages(torch.zeros(shape))
    assert f"got {shape}" in str(error.value)


def test_an_unknown_scale_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"scale must be group, batch or none, got 'std'"):
        group_advantages(torch.zeros(2, 2), "std")


def test_decoupled_advantages_by_hand() -> None:
    rewards = torch.tensor([[[0.0, 0.0, 1.0, 1.0]], [[0.0, 10.0, 0.0, 10.0]]], dtype=torch.float64)
    found = decoupled_advantages(rewards, torch.tensor([1.0, 1.0]))
    # Each reward alone is -1 or 1 times its own scale, so the tens weigh no more than the ones; then over the step.
    assert found == pytest.approx(torch.tensor([[-1.0, 0.0, 0.0, 1.0]]) * 1.5**0.5, abs=1e-3)
    assert decoupled_advantages(rewards, torch.tensor([1.0, 0.0]))[0].tolist() == pytest.approx(
        [-(0.75**0.5), -(0.75**0.5), 0.75**0.5, 0.75**0.5], abs=1e-3
    )


def test_rewards_that_cancel_in_the_sum_still_give_a_decoupled_signal() -> None:
    rewards = torch.tensor([[[0.0, 0.5, 1.0]], [[1.0, 0.5, 0.0]]], dtype=torch.float64)
    weights = torch.tensor([1.0, 1.0])
    assert not has_signal(rewards.sum(0)).any()
    assert decoupled_advantages(rewards, torch.tensor([2.0, 1.0])).any()
    # With equal weights there is nothing to tell them apart by either.
    assert decoupled_advantages(rewards, weights).abs().max() < 1e-12


@given(rewards=REWARDS, scale=st.sampled_from(SCALES), weight=st.floats(0.1, 10))
def test_a_weight_on_the_only_reward_does_not_change_decoupled_advantages(
    rewards: torch.Tensor, scale: str, weight: float
) -> None:
    # The step's deviation takes it out, but for the small constants that keep a division by 0 away, and that count
    # where rewards themselves differ by as little.
    deviations = rewards.std(-1)
    assume(not ((deviations > 0) & (deviations < 1000 * EPSILON)).any())
    one, many = (decoupled_advantages(rewards[None], torch.tensor([w]), scale) for w in (1.0, weight))
    if one.numel() > 1 and one.std() > 0.5:
        assert many == pytest.approx(one, rel=0.02, abs=1e-9)


@given(rewards=REWARDS, scale=st.sampled_from(SCALES))
def test_decoupled_advantages_sum_to_zero_and_are_exactly_zero_without_a_signal(
    rewards: torch.Tensor, scale: str
) -> None:
    found = decoupled_advantages(torch.stack([rewards, -2 * rewards]), torch.tensor([1.0, 0.5]), scale)
    # G numbers of float32, each off by its own rounding, and the division by a deviation of up to 1 / EPSILON
    assert torch.all(found.sum(-1).abs() <= found.shape[-1] * EPS * (found.abs().max() + 1 / EPSILON * EPS))
    assert not found[~has_signal(rewards)].any()


def test_no_groups_have_no_decoupled_advantages() -> None:
    assert decoupled_advantages(torch.zeros(2, 0, 0), torch.ones(2)).shape == (0, 0)
