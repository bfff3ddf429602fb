"""linear_grpo_loss against the papers' formulas with autograd in float64.

Shapes: T tokens, H hidden, V vocabulary.
"""

import math
from dataclasses import replace

import pytest
import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective, head, linear_grpo_loss, token_logprobs, token_weights
from geogrpo_kernels.objective import KL_ESTIMATORS, MAX_LOG_RATIO, SURROGATES
from kernel_oracles import (
    EPS,
    NUM_TOKENS,
    SHAPES_OF_LOGITS,
    VOCAB_SIZES,
    Inputs,
    make_inputs,
    make_objective,
    policy_loss_is_accurate,
)
from torch import Tensor


def loss_and_gradients(inputs: Inputs, objective: PolicyObjective, **options: object) -> tuple[PolicyLoss, ...]:
    result = linear_grpo_loss(*inputs, objective, **options)
    return result, *torch.autograd.grad(result.loss, inputs[:2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
def test_values_and_gradients_are_as_accurate_as_autograd(
    kind: str, surrogate: str, dtype: torch.dtype, device: torch.device
) -> None:
    assert policy_loss_is_accurate(linear_grpo_loss, make_inputs(kind, 515, device, dtype), surrogate)


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_so_they_are_for_every_vocabulary(vocab_size: int, device: torch.device) -> None:
    assert policy_loss_is_accurate(linear_grpo_loss, make_inputs("flat", vocab_size, device), "clip")


def test_so_they_are_for_the_vocabulary_of_a_real_model(device: torch.device) -> None:
    inputs = make_inputs("peaked", 152064, device, num_tokens=2)
    assert policy_loss_is_accurate(linear_grpo_loss, inputs, "clip", beta=0.0)


OPTIONS = [
    {"surrogate": "sapo", "tau_positive": 0.5, "tau_negative": 2.0},
    {"surrogate": "clip", "delta": 1.5},
    {"surrogate": "clip", "kl_estimator": "k1"},
    {"surrogate": "clip", "kl_estimator": "k2"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("kind", "vocab_size"), [*((kind, 515) for kind in SHAPES_OF_LOGITS), ("flat", 4097)])
def test_so_they_are_with_every_option(kind: str, vocab_size: int, options: dict, device: torch.device) -> None:
    assert policy_loss_is_accurate(linear_grpo_loss, make_inputs(kind, vocab_size, device), **options)


def value_and_slope(
    device: torch.device, ratio: float, advantage: float, log_ratio_to_ref: float = 0.0, **options: object
) -> tuple[PolicyLoss, float, float]:
    """Result, loss and derivative by the log-prob of one of two equally likely tokens with this ratio."""
    hidden = torch.zeros(1, 1, device=device, requires_grad=True)
    weight, target_ids = torch.tensor([[1.0], [-1.0]], device=device), torch.zeros(1, dtype=torch.int64, device=device)
    one = torch.ones(1, device=device)
    objective = PolicyObjective(
        one * advantage,
        one,
        old_logprobs=one * -math.log(2 * ratio),
        ref_logprobs=one * (log_ratio_to_ref - math.log(2)),
        **options,
    )
    result = linear_grpo_loss(hidden, weight, target_ids, objective)
    # The log-prob's own derivative by the hidden state is 1.
    return result, float(result.loss.detach()), float(torch.autograd.grad(result.loss, hidden)[0])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # sigmoid(1) = 0.73105858, sigmoid(1.05) = 0.74077489
        (2.0, 1.0, -4 * 0.73105858, -4 * 0.19661193 * 2),
        (2.0, -1.0, 4 / 1.05 * 0.74077489, 4 * 0.19202745 * 2),
        (1.0, 3.0, -2 * 3.0, -3.0),
        (1.0, -3.0, 2 * 3.0 / 1.05, 3.0),
        # 1 - sigmoid(20) = 2.0611536e-9, which float32 cannot tell from 0 beside 1
        (21.0, 1.0, -4.0, -4 * 2.0611536e-9 * 21),
    ],
)
def test_sapo_has_the_values_of_its_formula(
    ratio: float, advantage: float, loss: float, slope: float, device: torch.device
) -> None:
    result, *actual = value_and_slope(device, ratio, advantage, surrogate="sapo")
    # The rounding of a log-prob, times the ratio
    assert actual == pytest.approx([loss, slope], rel=8 * EPS * ratio)
    assert not result.is_clipped.any()


@pytest.mark.parametrize(
    ("ratio", "advantage", "delta", "loss", "slope", "is_clipped"),
    [
        (4.0, -2.0, 3.0, 3.0 * 2, 0.0, True),
        (2.0, -2.0, 3.0, 2.0 * 2, 2.0 * 2, False),
        (0.5, -2.0, 3.0, 0.8 * 2, 0.0, True),
        (4.0, 2.0, 3.0, -1.2 * 2, 0.0, True),
        (4.0, 0.0, 3.0, 0.0, 0.0, False),
        (4.0, -2.0, None, 4.0 * 2, 4.0 * 2, False),
    ],
)
def test_delta_bounds_the_ratio_where_the_advantage_is_negative(
    ratio: float,
    advantage: float,
    delta: float | None,
    loss: float,
    slope: float,
    is_clipped: bool,
    device: torch.device,
) -> None:
    result, *actual = value_and_slope(device, ratio, advantage, delta=delta)
    assert actual == pytest.approx([loss, slope], rel=8 * EPS)
    assert result.is_clipped.tolist() == [is_clipped]


@pytest.mark.parametrize(
    ("estimator", "kl", "slope"),
    # exp(0.5) = 1.64872127
    [("k1", -0.5, 1.0), ("k2", 0.125, -0.5), ("k3", 0.14872127, -0.64872127)],
)
def test_the_kl_term_is_the_chosen_estimate(estimator: str, kl: float, slope: float, device: torch.device) -> None:
    result, *actual = value_and_slope(device, 1.0, 0.0, log_ratio_to_ref=0.5, beta=0.1, kl_estimator=estimator)
    assert actual == pytest.approx([0.1 * kl, 0.1 * slope], rel=16 * EPS)
    assert float(result.kl) == pytest.approx(kl, rel=16 * EPS)


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
def test_the_kl_of_a_policy_that_is_its_reference_is_0(estimator: str, device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    ones = torch.ones(NUM_TOKENS, device=device)
    logprobs = linear_grpo_loss(*inputs, PolicyObjective(ones, ones)).logprobs
    objective = PolicyObjective(ones, ones, ref_logprobs=logprobs, kl_estimator=estimator)
    assert not linear_grpo_loss(*inputs, objective).kl.any()


def loss_at(device: torch.device, ratios: list[float], advantage: float) -> PolicyLoss:
    """Loss of tokens with these ratios: the only token of a vocabulary has log-prob 0."""
    objective = PolicyObjective(
        advantages=torch.full((len(ratios),), advantage, device=device),
        token_weights=torch.ones(len(ratios), device=device),
        old_logprobs=-torch.tensor(ratios, device=device).log(),
    )
    return linear_grpo_loss(*make_inputs("flat", 1, device, num_tokens=len(ratios)), objective)


def test_the_clip_acts_beyond_its_bounds_and_only_against_the_advantage(device: torch.device) -> None:
    ratios = [0.79, 0.81, 1.0, 1.19, 1.21]
    assert loss_at(device, ratios, 1.0).is_clipped.tolist() == [False, False, False, False, True]
    assert loss_at(device, ratios, -1.0).is_clipped.tolist() == [True, False, False, False, False]
    assert float(loss_at(device, [1.5], 2.0).loss.detach()) == pytest.approx(-1.2 * 2.0, rel=4 * EPS)
    assert float(loss_at(device, [1.5], -2.0).loss.detach()) == pytest.approx(1.5 * 2.0, rel=4 * EPS)
    assert float(loss_at(device, [0.5], 2.0).loss.detach()) == pytest.approx(-0.5 * 2.0, rel=4 * EPS)
    assert float(loss_at(device, [0.5], -2.0).loss.detach()) == pytest.approx(0.8 * 2.0, rel=4 * EPS)


def test_a_ratio_on_the_bound_is_not_clipped(device: torch.device) -> None:
    """exp(0) is exactly 1: with a clip of 0 both bounds are hit, and the gradient still flows."""
    inputs = make_inputs("flat", 515, device)
    ones = torch.ones(NUM_TOKENS, device=device)
    for advantage in (ones, -ones):
        objective = PolicyObjective(advantage, ones, clip_low=0.0, clip_high=0.0)
        result, grad_hidden, _ = loss_and_gradients(inputs, objective)
        assert not result.is_clipped.any()
        assert grad_hidden.any(-1).all()


def test_without_old_logprobs_the_ratio_is_1(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, "clip", beta=0.0, entropy_coef=0.0)
    on_policy = replace(objective, old_logprobs=None)
    result, *grads = loss_and_gradients(inputs, on_policy)
    _, *expected = loss_and_gradients(inputs, replace(objective, old_logprobs=result.logprobs))
    assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))
    weighted = (objective.advantages * objective.token_weights).double().sum()
    assert float(result.loss.detach()) == pytest.approx(-float(weighted), rel=1e-5)


def test_reinforce_with_advantages_of_1_is_maximum_likelihood(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    weights = torch.rand(NUM_TOKENS, device=device)
    result, *grads = loss_and_gradients(
        inputs, PolicyObjective(torch.ones_like(weights), weights, surrogate="reinforce")
    )
    logprobs, _ = token_logprobs(*inputs)
    expected = torch.autograd.grad(-(weights * logprobs).sum(), inputs[:2])
    torch.testing.assert_close(result.loss, -(weights * logprobs).sum().detach())
    for actual, value in zip(grads, expected, strict=True):
        torch.testing.assert_close(actual, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_masked_tokens_have_no_loss_and_exactly_no_gradient(surrogate: str, device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, surrogate)
    is_masked = objective.token_weights == 0
    _, grad_hidden, _ = loss_and_gradients(inputs, objective)
    assert torch.equal(~grad_hidden.any(-1), is_masked)
    nothing = replace(objective, token_weights=torch.zeros_like(objective.token_weights))
    result, *grads = loss_and_gradients(inputs, nothing)
    assert not result.loss
    assert not any(grad.any() for grad in grads)


def test_equal_rewards_give_no_gradient(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, "clip", beta=0.0, entropy_coef=0.0)
    result, *grads = loss_and_gradients(inputs, replace(objective, advantages=torch.zeros(NUM_TOKENS, device=device)))
    assert not result.loss
    assert not any(grad.any() for grad in grads)


def test_a_kl_that_is_only_logged_may_be_infinite(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, "clip", beta=0.0)
    logged = replace(objective, ref_logprobs=torch.full((NUM_TOKENS,), -torch.inf, device=device))
    result, *grads = loss_and_gradients(inputs, logged)
    expected, *wanted = loss_and_gradients(inputs, replace(objective, ref_logprobs=None))
    assert result.kl.isinf().all()
    assert torch.equal(result.loss, expected.loss)
    assert all(torch.equal(a, b) for a, b in zip(grads, wanted, strict=True))


def test_a_ratio_that_would_overflow_is_bounded(device: torch.device) -> None:
    """At exp(120) an advantage of 0 would give a loss of NaN."""
    inputs = make_inputs("flat", 515, device)
    far = torch.full((NUM_TOKENS,), -120.0, device=device)
    for advantage in (0.0, -1.0):
        objective = PolicyObjective(torch.full_like(far, advantage), torch.ones_like(far), far)
        result, *grads = loss_and_gradients(inputs, objective)
        expected = -advantage * NUM_TOKENS * math.exp(MAX_LOG_RATIO)
        assert float(result.loss.detach()) == pytest.approx(expected, rel=1e-5)
        assert all(grad.isfinite().all() for grad in grads)


def test_float16_is_refused(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device, torch.float16)
    ones = torch.ones(NUM_TOKENS, device=device)
    with pytest.raises(ValueError, match="float16 gradients.* underflow: use bfloat16 or float32"):
        linear_grpo_loss(*inputs, PolicyObjective(ones, ones))


def test_parts_of_a_batch_add_up_to_the_whole(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, "clip")
    _, _, whole = loss_and_gradients(inputs, objective)
    total = torch.zeros_like(whole)
    for rows in (slice(0, 7), slice(7, NUM_TOKENS)):
        names = ("advantages", "token_weights", "old_logprobs", "ref_logprobs")
        part = replace(objective, **{name: getattr(objective, name)[rows] for name in names})
        total += loss_and_gradients((inputs[0][rows], inputs[1], inputs[2][rows]), part)[2]
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-5)


def test_chunks_change_no_bit_of_a_token(kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs("flat", 515, kernel_device, num_tokens=150)
    objective = make_objective(inputs, "clip")
    whole, whole_hidden, whole_weight = loss_and_gradients(inputs, objective)
    # 128 rows, the fewest that a chunk has
    monkeypatch.setattr(head, "CHUNK_BYTES", 1)
    chunked, chunked_hidden, chunked_weight = loss_and_gradients(inputs, objective)
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], chunked[1:], strict=True))
    assert torch.equal(whole_hidden, chunked_hidden)
    torch.testing.assert_close(chunked_weight, whole_weight, rtol=1e-5, atol=1e-6)


def test_forbidden_ids_and_bias_are_those_of_token_logprobs(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    forbidden_ids = torch.tensor([0, 3, 200], device=device)
    inputs[2][torch.isin(inputs[2], forbidden_ids)] = 7
    bias = torch.randn(515, device=device, requires_grad=True)
    options = {"forbidden_ids": forbidden_ids, "bias": bias, "temperature": 0.7}
    objective = replace(make_objective(inputs, "reinforce"), old_logprobs=None, beta=0.0)
    result = linear_grpo_loss(*inputs, objective, **options)
    logprobs, entropy = token_logprobs(*inputs, **options)
    torch.testing.assert_close(result.logprobs, logprobs.detach())
    torch.testing.assert_close(result.entropy, entropy.detach())
    per_token = -objective.advantages * logprobs - objective.entropy_coef * entropy
    leaves = (*inputs[:2], bias)
    expected = torch.autograd.grad((objective.token_weights * per_token).sum(), leaves)
    actual = torch.autograd.grad(result.loss, leaves)
    for value, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    assert not actual[1][forbidden_ids].any()
    assert not actual[2][forbidden_ids].any()


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient_and_the_other_the_same(frozen: int, device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, "clip")
    expected = loss_and_gradients(inputs, objective)[2 - frozen]
    inputs[frozen].requires_grad_(False)
    linear_grpo_loss(*inputs, objective).loss.backward()
    assert inputs[frozen].grad is None
    assert torch.equal(inputs[1 - frozen].grad, expected)


def test_without_grad_the_values_are_the_same_and_nothing_is_kept(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    objective = make_objective(inputs, "clip")
    expected = linear_grpo_loss(*inputs, objective)
    with torch.no_grad():
        result = linear_grpo_loss(*inputs, objective)
    assert not result.loss.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(result, expected, strict=True))


def test_only_the_loss_has_a_gradient_and_backward_may_run_twice(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    result = linear_grpo_loss(*inputs, make_objective(inputs, "clip"))
    assert not any(value.requires_grad for value in result[1:])
    first = torch.autograd.grad(result.loss * 3, inputs[:2], retain_graph=True)
    second = torch.autograd.grad(result.loss * 3, inputs[:2])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("options", [{"surrogate": "clip"}, *OPTIONS], ids=str)
def test_gradcheck_in_float64(options: dict) -> None:
    inputs = make_inputs("flat", 17, torch.device("cpu"), torch.float64, num_tokens=3)
    near, ones = torch.full((3,), -3.0), torch.ones(3)
    objective = replace(make_objective(inputs, **options), token_weights=ones, old_logprobs=near, ref_logprobs=near)
    assert torch.autograd.gradcheck(lambda h, w: linear_grpo_loss(h, w, inputs[2], objective).loss, inputs[:2])


def test_no_tokens_give_a_zero_loss_and_gradient(device: torch.device) -> None:
    hidden, weight = torch.randn(0, 4, device=device, requires_grad=True), torch.randn(9, 4, device=device)
    nothing = torch.zeros(0, device=device)
    weight.requires_grad_()
    linear_grpo_loss(hidden, weight, nothing.long(), PolicyObjective(nothing, nothing)).loss.backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_objectives_that_do_not_fit_are_rejected(device: torch.device) -> None:
    ones = torch.ones(NUM_TOKENS, device=device)
    with pytest.raises(ValueError, match=r"token_weights must be \(19,\) float, got \(18,\)"):
        PolicyObjective(ones, ones[:-1])
    with pytest.raises(ValueError, match="surrogate must be one of clip, cispo, reinforce, sapo, got 'gspo'"):
        PolicyObjective(ones, ones, surrogate="gspo")
    with pytest.raises(ValueError, match="clip_low must be >= 0, got -0.1"):
        PolicyObjective(ones, ones, clip_low=-0.1)
    with pytest.raises(ValueError, match="tau_negative must be > 0, got 0"):
        PolicyObjective(ones, ones, surrogate="sapo", tau_negative=0.0)
    with pytest.raises(ValueError, match="kl_estimator must be one of k1, k2, k3, got 'exact'"):
        PolicyObjective(ones, ones, kl_estimator="exact")
    with pytest.raises(ValueError, match="delta is for surrogate='clip', got 'cispo'"):
        PolicyObjective(ones, ones, surrogate="cispo", delta=4.0)
    with pytest.raises(ValueError, match=r"delta must be > 1 \+ clip_high = 1.2, got 1.2"):
        PolicyObjective(ones, ones, delta=1.2)
    with pytest.raises(ValueError, match="beta is above 0, so ref_logprobs are needed"):
        PolicyObjective(ones, ones, beta=0.1)
    with pytest.raises(ValueError, match=r"advantages must be \(19,\) float, got \(5,\)"):
        linear_grpo_loss(*make_inputs("flat", 515, device), PolicyObjective(ones[:5], ones[:5]))


LENGTHS = [1, 3, 0, 4]


@pytest.mark.parametrize(
    ("average", "max_length", "expected"),
    [
        ("completion", None, [1 / 4] + [1 / 12] * 3 + [1 / 16] * 4),
        ("token", None, [1 / 8] * 8),
        ("constant", 10, [1 / 40] * 8),
    ],
)
def test_token_weights_average_as_the_papers_do(average: str, max_length: int | None, expected: list[float]) -> None:
    torch.testing.assert_close(token_weights(torch.tensor(LENGTHS), average, max_length), torch.tensor(expected))


def test_token_weights_reject_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match="average must be completion, token or constant, got 'mean'"):
        token_weights(torch.tensor(LENGTHS), "mean")
    with pytest.raises(ValueError, match="max_length is for average='constant', and needed there"):
        token_weights(torch.tensor(LENGTHS), "constant")
    with pytest.raises(ValueError, match="max_length is for average='constant', and needed there"):
        token_weights(torch.tensor(LENGTHS), "token", 10)


def test_no_completions_have_no_weights() -> None:
    nothing: Tensor = torch.zeros(0, dtype=torch.int64)
    assert all(token_weights(nothing, average).shape == (0,) for average in ("token", "completion"))
