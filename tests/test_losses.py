"""The clipped objective by hand, on both sides of the boundary and for both signs of the advantage.

Shapes: S scored tokens.
"""

import math
from dataclasses import replace

import pytest
import torch
from geogrpo_kernels.objective import TokenTerms, token_terms
from geogrpo_kernels.reference import kl_estimate as k3_kl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geogrpo import losses
from geogrpo.config import LossConfig
from geogrpo.losses import LOSSES, find_loss

# clip_low and clip_high differ, so that one in the other's place shows; ratios between 0.8 and 1.5 are kept.
CONFIG = LossConfig(clip_low=0.2, clip_high=0.5, beta=0.25)
EPS64 = torch.finfo(torch.float64).eps

LOGPROBS = st.floats(-20, 0)


def tokens(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logprobs(*ratios: float) -> Tensor:
    """Log-probs whose ratio to an old log-prob of 0 is given, with gradient."""
    return tokens(*ratios).log().requires_grad_()


def grpo_loss(
    policy: Tensor, old: Tensor | None, ref: Tensor | None, advantages: Tensor, config: LossConfig
) -> TokenTerms:
    """The loss of each token with the gradient that the kernels give it."""
    config = config if ref is not None else replace(config, beta=0.0)
    objective = losses.grpo_loss(advantages, torch.ones_like(advantages), old, ref, config)
    terms = token_terms(policy.detach(), torch.zeros_like(advantages), objective, slice(None))
    return terms._replace(loss=terms.loss + (policy - policy.detach()) * terms.grad_logprobs)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped", "gradient"),
    [
        # Better than its siblings: no reward for going above 1 + clip_high; below, whatever the ratio, push up.
        (1.7, 1.0, -1.5, True, 0.0),
        (1.4, 1.0, -1.4, False, -1.4),
        (1.0, 1.0, -1.0, False, -1.0),
        (0.5, 1.0, -0.5, False, -0.5),
        # Worse: no reward for going below 1 - clip_low; above, whatever the ratio, push down.
        (0.5, -1.0, 0.8, True, 0.0),
        (0.9, -1.0, 0.9, False, 0.9),
        (1.0, -1.0, 1.0, False, 1.0),
        (1.7, -1.0, 1.7, False, 1.7),
        # The advantage scales both
        (1.7, 3.0, -4.5, True, 0.0),
        (0.9, -0.5, 0.45, False, 0.45),
    ],
)
def test_clipping_is_that_computed_by_hand(
    ratio: float, advantage: float, loss: float, is_clipped: bool, gradient: float
) -> None:
    policy = logprobs(ratio)
    result = grpo_loss(policy, tokens(0.0), None, tokens(advantage), CONFIG)
    result.loss.sum().backward()
    torch.testing.assert_close(result.loss, tokens(loss), rtol=4 * EPS64, atol=0)
    torch.testing.assert_close(policy.grad, tokens(gradient), rtol=4 * EPS64, atol=0)
    assert result.is_clipped.tolist() == [is_clipped]
    assert result.kl.tolist() == [0.0]


@pytest.mark.parametrize(("boundary", "advantage"), [(1.5, 1.0), (0.8, -1.0)])
def test_the_boundary_itself_is_not_clipped(boundary: float, advantage: float) -> None:
    old = -tokens(boundary).log()
    at_boundary = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    # exp(log(x)) may miss x by one place; one more outwards is beyond, two inwards are within
    steps = {"within": 1 - advantage * 4 * EPS64, "beyond": 1 + advantage * 4 * EPS64}
    for name, factor in steps.items():
        policy = (at_boundary + math.log(factor)).detach().requires_grad_()
        result = grpo_loss(policy, old, None, tokens(advantage), CONFIG)
        assert result.is_clipped.tolist() == [name == "beyond"]


def test_clips_of_0_leave_no_room_and_large_ones_all() -> None:
    ratios, advantages = (0.25, 0.99, 1.01, 3.0), tokens(-1.0, -1.0, 1.0, 1.0)
    old = torch.zeros(4, dtype=torch.float64)
    tight = grpo_loss(logprobs(*ratios), old, None, advantages, LossConfig(clip_low=0.0, clip_high=0.0))
    assert tight.is_clipped.all()
    torch.testing.assert_close(tight.loss, -advantages, rtol=0, atol=0)
    loose = grpo_loss(logprobs(*ratios), old, None, advantages, LossConfig(clip_low=1.0, clip_high=9.0))
    assert not loose.is_clipped.any()
    torch.testing.assert_close(loose.loss, -tokens(*ratios) * advantages, rtol=4 * EPS64, atol=0)


@settings(deadline=None)
@given(policy=LOGPROBS, advantage=st.floats(-5, 5, allow_subnormal=False))
def test_without_old_logprobs_the_gradient_is_that_of_minus_advantage_times_logprob(
    policy: float, advantage: float
) -> None:
    value = tokens(policy).requires_grad_()
    result = grpo_loss(value, None, None, tokens(advantage), CONFIG)
    (gradient,) = torch.autograd.grad(result.loss.sum(), value)
    assert gradient.tolist() == [-advantage]
    assert result.loss.tolist() == [-advantage]
    assert not result.is_clipped.any()


@settings(deadline=None)
@given(policy=LOGPROBS, old=LOGPROBS, size=st.floats(0.01, 5), sign=st.sampled_from([-1, 1]))
def test_the_gradient_pushes_towards_what_was_better(policy: float, old: float, size: float, sign: int) -> None:
    value = tokens(policy).requires_grad_()
    result = grpo_loss(value, tokens(old), None, tokens(sign * size), CONFIG)
    (gradient,) = torch.autograd.grad(result.loss.sum(), value)
    assert gradient.sign().tolist() == [0 if result.is_clipped else -sign]


def test_advantages_of_0_give_a_gradient_of_exactly_0() -> None:
    policy = logprobs(0.3, 1.0, 1.2, 4.0)
    zero = torch.zeros(4, dtype=torch.float64)
    for old in (None, zero):
        result = grpo_loss(policy, old, None, zero, CONFIG)
        (gradient,) = torch.autograd.grad(result.loss.sum(), policy)
        assert not gradient.any()
        assert not result.loss.any()
        assert not result.is_clipped.any()


@pytest.mark.parametrize(
    ("policy", "ref", "expected"),
    # r = ref - policy: e^r - r - 1
    [(-1.0, -1.0, 0.0), (-2.0, -1.0, math.e - 2), (-1.0, -2.0, 1 / math.e), (-3.0, -1.0, math.e**2 - 3)],
)
def test_kl_is_that_computed_by_hand(policy: float, ref: float, expected: float) -> None:
    assert float(k3_kl(tokens(policy), tokens(ref))) == pytest.approx(expected, abs=8 * EPS64)


@settings(deadline=None)
@given(policy=LOGPROBS, ref=LOGPROBS)
def test_kl_is_never_negative_and_its_gradient_is_1_minus_the_ratio(policy: float, ref: float) -> None:
    value = tokens(policy).requires_grad_()
    kl = k3_kl(value, tokens(ref))
    (gradient,) = torch.autograd.grad(kl.sum(), value)
    ratio = math.exp(ref - policy)
    # Near 0 the subtraction leaves the rounding of 1.
    assert float(kl.detach()) >= -2 * EPS64
    assert float(gradient) == pytest.approx(1 - ratio, rel=4 * EPS64, abs=4 * EPS64)
    if ref == policy:
        assert float(kl.detach()) == 0


def test_kl_is_unbiased_for_the_divergence() -> None:
    policy, ref = tokens(0.5, 0.3, 0.2), tokens(0.2, 0.2, 0.6)
    # The expectation over the policy's own samples, exactly
    estimate = (policy * k3_kl(policy.log(), ref.log())).sum()
    divergence = (policy * (policy.log() - ref.log())).sum()
    assert float(estimate) == pytest.approx(float(divergence), rel=16 * EPS64, abs=0)


def test_the_kl_is_added_with_weight_beta() -> None:
    policy, ref, advantages = logprobs(0.5, 1.0, 1.7), tokens(-0.5, -1.0, 0.5), tokens(1.0, -1.0, 2.0)
    old = torch.zeros(3, dtype=torch.float64)
    without = grpo_loss(policy, old, None, advantages, CONFIG)
    result = grpo_loss(policy, old, ref, advantages, CONFIG)
    kl = k3_kl(policy, ref).detach()
    assert not result.kl.requires_grad
    assert torch.equal(result.kl, kl)
    assert torch.equal(result.loss, without.loss + 0.25 * kl)
    assert torch.equal(result.is_clipped, without.is_clipped)
    (gradient,) = torch.autograd.grad(result.loss.sum(), policy)
    (of_policy,) = torch.autograd.grad(without.loss.sum(), policy)
    torch.testing.assert_close(gradient, of_policy + 0.25 * (1 - (ref - policy.detach()).exp()), rtol=8 * EPS64, atol=0)


def test_clipping_stops_the_policy_gradient_but_not_the_kl() -> None:
    policy = logprobs(1.7)
    result = grpo_loss(policy, tokens(0.0), tokens(-1.0), tokens(1.0), CONFIG)
    (gradient,) = torch.autograd.grad(result.loss.sum(), policy)
    assert result.is_clipped.all()
    assert float(gradient) == pytest.approx(0.25 * (1 - math.exp(-1) / 1.7), rel=8 * EPS64, abs=0)


def test_losses_are_found_by_name_and_an_unknown_one_is_rejected() -> None:
    assert {name: find_loss(name) for name in LOSSES} == LOSSES
    assert find_loss("grpo") is losses.grpo_loss
    with pytest.raises(ValueError, match=r"grpo\.loss\.name 'ppo' is unknown\. Known: grpo"):
        find_loss("ppo")
