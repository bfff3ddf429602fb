"""The losses by hand: clipping on both sides of the boundary and for both signs of the advantage; completions' ratios.

Shapes: S scored tokens.
"""

import math
import re
from dataclasses import replace

import pytest
import torch
from geogrpo_kernels import PolicyLoss
from geogrpo_kernels.objective import TokenTerms, token_terms
from geogrpo_kernels.reference import kl_estimate as k3_kl
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geogrpo.config import LossConfig
from geogrpo.losses import LOSSES, CompletionObjective, LossInputs, clips, find_loss

# clip_low and clip_high differ, so that one in the other's place shows; ratios between 0.8 and 1.5 are kept.
CONFIG = LossConfig(name="grpo", clip_low=0.2, clip_high=0.5, beta=0.25)
EPS64 = torch.finfo(torch.float64).eps
E02, E04, E05 = math.exp(0.2), math.exp(0.4), math.exp(-0.5)

LOGPROBS = st.floats(-20, 0)


def tokens(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logprobs(*ratios: float) -> Tensor:
    """Log-probs whose ratio to an old log-prob of 0 is given, with gradient."""
    return tokens(*ratios).log().requires_grad_()


def loss_of(
    policy: Tensor,
    old: Tensor | None,
    ref: Tensor | None,
    advantages: Tensor,
    config: LossConfig,
    lengths: tuple[int, ...] | None = None,
) -> TokenTerms | PolicyLoss:
    """The loss of each token, or of completions of the given lengths, with the gradient that training gives it."""
    config = config if ref is not None else replace(config, beta=0.0)
    of_each = torch.tensor(lengths or (len(policy),))
    ones = torch.ones_like(advantages)
    inputs = LossInputs(advantages, ones, torch.arange(len(of_each)).repeat_interleave(of_each), of_each, old, ref)
    objective = find_loss(config).function(inputs, config)
    if isinstance(objective, CompletionObjective):
        return objective.loss(policy, torch.zeros_like(advantages))
    terms = token_terms(policy.detach(), torch.zeros_like(advantages), objective, slice(None))
    return terms._replace(loss=terms.loss + (policy - policy.detach()) * terms.grad_logprobs)


def gradient_of(policy: Tensor, *args: object, **options: object) -> Tensor:
    (gradient,) = torch.autograd.grad(loss_of(policy, *args, **options).loss.sum(), policy)
    return gradient


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
    result = loss_of(policy, tokens(0.0), None, tokens(advantage), CONFIG)
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
        result = loss_of(policy, old, None, tokens(advantage), CONFIG)
        assert result.is_clipped.tolist() == [name == "beyond"]


def test_clips_of_0_leave_no_room_and_large_ones_all() -> None:
    ratios, advantages = (0.25, 0.99, 1.01, 3.0), tokens(-1.0, -1.0, 1.0, 1.0)
    old = torch.zeros(4, dtype=torch.float64)
    tight = loss_of(logprobs(*ratios), old, None, advantages, replace(CONFIG, clip_low=0.0, clip_high=0.0))
    assert tight.is_clipped.all()
    torch.testing.assert_close(tight.loss, -advantages, rtol=0, atol=0)
    loose = loss_of(logprobs(*ratios), old, None, advantages, replace(CONFIG, clip_low=1.0, clip_high=9.0))
    assert not loose.is_clipped.any()
    torch.testing.assert_close(loose.loss, -tokens(*ratios) * advantages, rtol=4 * EPS64, atol=0)


@settings(deadline=None)
@given(policy=LOGPROBS, advantage=st.floats(-5, 5, allow_subnormal=False))
def test_without_old_logprobs_the_gradient_is_that_of_minus_advantage_times_logprob(
    policy: float, advantage: float
) -> None:
    value = tokens(policy).requires_grad_()
    result = loss_of(value, None, None, tokens(advantage), CONFIG)
    (gradient,) = torch.autograd.grad(result.loss.sum(), value)
    assert gradient.tolist() == [-advantage]
    assert result.loss.tolist() == [-advantage]
    assert not result.is_clipped.any()


@settings(deadline=None)
@given(policy=LOGPROBS, old=LOGPROBS, size=st.floats(0.01, 5), sign=st.sampled_from([-1, 1]))
def test_the_gradient_pushes_towards_what_was_better(policy: float, old: float, size: float, sign: int) -> None:
    value = tokens(policy).requires_grad_()
    result = loss_of(value, tokens(old), None, tokens(sign * size), CONFIG)
    (gradient,) = torch.autograd.grad(result.loss.sum(), value)
    assert gradient.sign().tolist() == [0 if result.is_clipped else -sign]


def test_advantages_of_0_give_a_gradient_of_exactly_0() -> None:
    policy = logprobs(0.3, 1.0, 1.2, 4.0)
    zero = torch.zeros(4, dtype=torch.float64)
    for old in (None, zero):
        result = loss_of(policy, old, None, zero, CONFIG)
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
    without = loss_of(policy, old, None, advantages, CONFIG)
    result = loss_of(policy, old, ref, advantages, CONFIG)
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
    result = loss_of(policy, tokens(0.0), tokens(-1.0), tokens(1.0), CONFIG)
    (gradient,) = torch.autograd.grad(result.loss.sum(), policy)
    assert result.is_clipped.all()
    assert float(gradient) == pytest.approx(0.25 * (1 - math.exp(-1) / 1.7), rel=8 * EPS64, abs=0)


# Two completions, of two tokens and of one; log-ratios 0.1 and 0.3 (mean 0.2, sum 0.4), and -0.5.
LENGTHS = (2, 1)
LOG_RATIOS = (0.1, 0.3, -0.5)


@pytest.mark.parametrize(
    ("name", "advantages", "of_tokens", "gradient"),
    [
        # exp(0.2) is within 1.3, and counts at each token; exp(-0.5) = 0.61 is below 0.75, clipped for what was worse.
        ("gspo", (1.0, 1.0, -2.0), (-E02, -E02, 1.5), (-E02, -E02, 0.0)),
        ("gspo", (-1.0, -1.0, 2.0), (E02, E02, -2 * E05), (E02, E02, -2 * E05)),
        # Half of the completion's gain at the first token alone: both tokens' log-probs move its ratio.
        ("gspo", (2.0, 0.0, 0.0), (-2 * E02, 0.0, 0.0), (-E02, -E02, 0.0)),
        ("gspo_token", (1.0, 1.0, -2.0), (-E02, -E02, 1.5), (-E02, -E02, 0.0)),
        ("gspo_token", (2.0, 0.0, 0.0), (-2 * E02, 0.0, 0.0), (-2 * E02, 0.0, 0.0)),
        # exp(0.4) is above 1.3 and clipped for a better completion, not for a worse one.
        ("rloo", (1.0, 1.0, 2.0), (-1.3, -1.3, -2 * E05), (0.0, 0.0, -2 * E05)),
        ("rloo", (-1.0, -1.0, 2.0), (E04, E04, -2 * E05), (2 * E04, 2 * E04, -2 * E05)),
    ],
)
def test_ratios_of_completions_are_those_computed_by_hand(
    name: str, advantages: tuple[float, ...], of_tokens: tuple[float, ...], gradient: tuple[float, ...]
) -> None:
    config = LossConfig(name=name, clip_low=0.25, clip_high=0.3)
    policy, old = tokens(*LOG_RATIOS).requires_grad_(), tokens(0.0, 0.0, 0.0)
    result = loss_of(policy, old, None, tokens(*advantages), config, LENGTHS)
    assert float(result.loss.detach()) == pytest.approx(sum(of_tokens), rel=1e-12)
    (actual,) = torch.autograd.grad(result.loss, policy)
    torch.testing.assert_close(actual, tokens(*gradient), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("cispo", "sapo")])
def test_delta_holds_the_ratio_of_what_was_worse(name: str) -> None:
    config = LossConfig(name=name, clip_low=0.2, clip_high=0.3, delta=1.5)
    for ratio, advantage, loss, gradient in ((2.0, -1.0, 1.5, 0.0), (1.4, -1.0, 1.4, 1.4), (2.0, 1.0, -1.3, 0.0)):
        policy = logprobs(ratio)
        result = loss_of(policy, tokens(0.0), None, tokens(advantage), config)
        assert float(result.loss.sum()) == pytest.approx(loss, rel=1e-12)
        assert result.is_clipped.tolist() == [gradient == 0.0]
        (actual,) = torch.autograd.grad(result.loss.sum(), policy)
        assert float(actual) == pytest.approx(gradient, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("advantage", [1.5, -1.5])
def test_every_loss_pushes_towards_what_was_better(name: str, advantage: float) -> None:
    policy = tokens(-0.3, -0.1).requires_grad_()
    for old in (None, tokens(-0.3001, -0.1001)):
        gradient = gradient_of(policy, old, None, tokens(advantage, advantage), LossConfig(name=name))
        assert gradient.sign().tolist() == [-math.copysign(1, advantage)] * 2


@pytest.mark.parametrize("name", LOSSES)
def test_at_a_ratio_of_1_every_loss_has_the_policy_gradient(name: str) -> None:
    """Up to what its average makes of it: RLOO's ratio is of the sum, GSPO's of the mean."""
    policy = tokens(-0.3, -0.1, -2.0).requires_grad_()
    gradient = gradient_of(policy, None, None, tokens(1.0, 1.0, -0.5), LossConfig(name=name), LENGTHS)
    expected = tokens(-2.0, -2.0, 0.5) if name == "rloo" else tokens(-1.0, -1.0, 0.5)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [("k1", -0.5, 1.0), ("k2", 0.125, -0.5), ("k3", math.exp(0.5) - 1.5, 1 - math.exp(0.5))],
)
def test_every_loss_takes_every_estimate_of_the_kl(name: str, estimator: str, value: float, gradient: float) -> None:
    config = LossConfig(name=name, beta=0.25, kl_estimator=estimator)
    policy = tokens(-1.0, -1.0).requires_grad_()
    result = loss_of(policy, None, tokens(-0.5, -0.5), tokens(0.0, 0.0), config)
    assert result.kl.tolist() == pytest.approx([value] * 2, rel=1e-12)
    assert float(result.loss.sum()) == pytest.approx(0.5 * value, rel=1e-12)
    (actual,) = torch.autograd.grad(result.loss.sum(), policy)
    assert actual.tolist() == pytest.approx([0.25 * gradient] * 2, rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_kl_in_the_reward_or_exact_is_no_estimate_in_the_loss(name: str) -> None:
    policy, ref = tokens(-1.0, -1.0).requires_grad_(), tokens(-0.5, -0.5)
    for changes in ({"kl_in": "reward"}, {"kl_estimator": "exact"}):
        config = LossConfig(name=name, beta=0.25, **changes)
        assert not gradient_of(policy, None, ref, tokens(0.0, 0.0), config).any()


def test_the_entropy_bonus_pays_for_entropy() -> None:
    inputs = LossInputs(tokens(0.0, 0.0), tokens(0.5, 0.25), torch.tensor([0, 0]), torch.tensor([2]))
    for name in LOSSES:
        objective = find_loss(LossConfig(name=name)).function(inputs, LossConfig(name=name, entropy_coef=0.1))
        entropy = tokens(2.0, 3.0)
        if isinstance(objective, CompletionObjective):
            loss = objective.loss(tokens(-1.0, -1.0), entropy).loss
        else:
            loss = token_terms(tokens(-1.0, -1.0), entropy, objective, slice(None)).loss.sum()
        assert float(loss) == pytest.approx(-0.1 * (0.5 * 2 + 0.25 * 3), rel=1e-12), name


def test_losses_are_found_by_name_and_an_unknown_one_is_rejected() -> None:
    assert {name: find_loss(LossConfig(name=name)) for name in LOSSES} == LOSSES
    with pytest.raises(ValueError, match=r"grpo\.loss\.name 'ppo' is unknown\. Known: grpo"):
        find_loss(LossConfig(name="ppo"))


def test_clips_are_the_losses_own_unless_given() -> None:
    assert clips(LossConfig(name="dapo")) == (0.2, 0.28)
    assert clips(LossConfig(name="gspo")) == (3e-4, 4e-4)
    assert clips(LossConfig(name="dapo", clip_low=0.1)) == (0.1, 0.28)
    assert clips(LossConfig(name="dapo", clip_high=0.0)) == (0.2, 0.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LossConfig(name="cispo", delta=9.0), "delta bounds a clipped ratio, and cispo clips none"),
        (LossConfig(name="dapo", delta=1.28), "must be above 1 + clip_high (1.28), got 1.28"),
        (LossConfig(name="grpo", clip_high=0.5, delta=1.4), "must be above 1 + clip_high (1.5), got 1.4"),
    ],
)
def test_a_delta_that_cannot_act_is_refused(config: LossConfig, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find_loss(config)
