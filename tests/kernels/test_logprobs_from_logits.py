"""token_logprobs_from_logits against log_softmax in float64.

Shapes: T tokens, V vocabulary.
"""

import pytest
import torch
from geogrpo_kernels import token_logprobs_from_logits
from kernel_oracles import (
    EPS,
    SHAPES_OF_LOGITS,
    VOCAB_SIZES,
    from_logits_is_accurate,
    make_logits,
    plain_from_logits,
)

# Of Qwen2.5-VL-3B and 7B: multiples of 128, not of a block
REAL_VOCAB_SIZES = (151936, 152064)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_values_and_gradients_are_as_accurate_as_log_softmax(
    vocab_size: int, kind: str, dtype: torch.dtype, device: torch.device
) -> None:
    assert from_logits_is_accurate(token_logprobs_from_logits, *make_logits(kind, vocab_size, device, dtype))


@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("vocab_size", REAL_VOCAB_SIZES)
def test_so_they_are_for_the_vocabularies_of_real_models(vocab_size: int, kind: str, device: torch.device) -> None:
    logits, target_ids = make_logits(kind, vocab_size, device, torch.float32, num_tokens=2)
    assert from_logits_is_accurate(token_logprobs_from_logits, logits, target_ids)


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_temperature_divides_the_logits(temperature: float, device: torch.device) -> None:
    logits, target_ids = make_logits("flat", 515, device, torch.float32)
    actual = token_logprobs_from_logits(logits, target_ids, temperature=temperature)
    exact = plain_from_logits(logits.double() / temperature, target_ids)
    scale = 20 / temperature
    assert all((a - e).abs().max() <= 4 * EPS * scale for a, e in zip(actual, exact, strict=True))


@pytest.mark.parametrize("temperature", [0.3, 2.5])
def test_temperature_divides_the_gradient(temperature: float, device: torch.device) -> None:
    logits, target_ids = make_logits("flat", 515, device, torch.float32)
    leaf = logits[1:].clone().requires_grad_()
    exact_leaf = leaf.detach().double().requires_grad_()
    (actual,) = torch.autograd.grad(
        token_logprobs_from_logits(leaf, target_ids[1:], temperature=temperature)[0].sum(), leaf
    )
    (exact,) = torch.autograd.grad(plain_from_logits(exact_leaf / temperature, target_ids[1:])[0].sum(), exact_leaf)
    assert (actual - exact).abs().max() <= 4 * EPS * 20 / temperature


def test_ids_may_be_every_second_of_a_tensor_or_one_for_all(device: torch.device) -> None:
    logits = torch.randn(3, 515, device=device)
    for target_ids in (torch.arange(6, device=device)[::2], torch.tensor([7], device=device).expand(3)):
        logprobs, _ = token_logprobs_from_logits(logits, target_ids)
        exact, _ = plain_from_logits(logits.double(), target_ids)
        assert (logprobs - exact).abs().max() <= 4 * EPS * 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_gradient_of_almost_1_keeps_its_digits(dtype: torch.dtype, device: torch.device) -> None:
    """p - 1 at p = 0.999: formed in bfloat16 it is 0 or 0.0039, four times too large."""
    logits = torch.zeros(1, 1000, device=device, dtype=dtype)
    logits[0, 7] = 13.8125
    p = logits.double().softmax(-1)[0, 7]
    leaf = logits.requires_grad_()
    logprobs, _ = token_logprobs_from_logits(leaf, torch.tensor([7], device=device))
    (gradient,) = torch.autograd.grad(logprobs.sum(), leaf)
    # One rounding to the type of the gradient, and those of log p in float32
    assert abs(float(gradient[0, 7] - (1 - p))) <= torch.finfo(dtype).eps * float(1 - p) + 4 * EPS * 13.8125


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_no_number_is_not_hidden(value: float, device: torch.device) -> None:
    logits = torch.randn(3, 515, device=device)
    logits[1, 500] = value
    logprobs, entropy = token_logprobs_from_logits(logits, torch.tensor([1, 2, 3], device=device))
    assert logprobs.isnan().tolist() == [False, True, False]
    assert entropy.isnan().tolist() == [False, True, False]


def test_an_impossible_target_has_logprob_minus_infinity(device: torch.device) -> None:
    logits = torch.randn(2, 515, device=device)
    logits[0, 4] = -torch.inf
    logprobs, entropy = token_logprobs_from_logits(logits, torch.tensor([4, 4], device=device))
    assert logprobs.isneginf().tolist() == [True, False]
    assert entropy.isfinite().all()


def test_a_token_without_upstream_gradient_gets_exactly_0_whatever_its_logits(device: torch.device) -> None:
    logits = torch.randn(3, 515, device=device)
    logits[1, 20] = torch.nan
    leaf = logits.requires_grad_()
    logprobs, entropy = token_logprobs_from_logits(leaf, torch.zeros(3, dtype=torch.int64, device=device))
    weights = torch.tensor([1.0, 0.0, 2.0], device=device)
    (gradient,) = torch.autograd.grad((logprobs, entropy), leaf, (weights, weights))
    assert not gradient[1].any()
    assert gradient[[0, 2]].any(-1).all()


def test_the_logits_of_the_caller_stay_as_they_are(device: torch.device) -> None:
    logits, target_ids = make_logits("flat", 515, device, torch.float32)
    before = logits.clone()
    leaf = logits.requires_grad_()
    token_logprobs_from_logits(leaf, target_ids)[1].sum().backward()
    assert torch.equal(leaf.detach(), before)


def test_columns_need_not_be_next_to_each_other(device: torch.device) -> None:
    logits, target_ids = torch.randn(515, 5, device=device).T, torch.arange(5, device=device)
    for value, expected in zip(
        token_logprobs_from_logits(logits, target_ids), plain_from_logits(logits.double(), target_ids), strict=True
    ):
        assert (value - expected).abs().max() < 1e-5


def test_float64_is_computed_in_float64(device: torch.device) -> None:
    logits, target_ids = make_logits("flat", 515, device, torch.float64)
    leaf = logits[1:].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: token_logprobs_from_logits(x, target_ids[1:]), leaf, fast_mode=True)


@pytest.mark.parametrize("shape", [(3,), (3, 0), (2, 3, 4)])
def test_logits_of_another_shape_are_rejected(shape: tuple, device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"logits must be \(T, V\) float with V > 0, got") as error:
        token_logprobs_from_logits(torch.zeros(shape, device=device), torch.zeros(3, dtype=torch.int64, device=device))
    assert f"{shape}" in str(error.value)


@pytest.mark.parametrize("target_id", [-1, 515])
def test_ids_outside_of_the_vocabulary_are_rejected_or_nan(target_id: int, device: torch.device) -> None:
    logits, target_ids = torch.randn(1, 515, device=device), torch.tensor([target_id], device=device)
    if device.type == "cuda":
        assert token_logprobs_from_logits(logits, target_ids)[0].isnan().all()
    else:
        with pytest.raises(ValueError, match=rf"target_ids must be in \[0, 515\), got {target_id}."):
            token_logprobs_from_logits(logits, target_ids)
