"""Exact KL from hidden states and heads against its definition in float64.

Shapes: T tokens, H hidden, K hidden of the reference, V vocabulary.
"""

import math

import pytest
import torch
from geogrpo_kernels import exact_kl_from_logits, head, linear_exact_kl
from geogrpo_kernels.reference import logprobs as reference_logprobs
from kernel_oracles import (
    EPS,
    NUM_TOKENS,
    SHAPES_OF_LOGITS,
    VOCAB_SIZES,
    linear_exact_kl_is_accurate,
    make_inputs,
    make_reference,
    plain_logits,
)
from torch import Tensor

CASES = [(kind, 515) for kind in SHAPES_OF_LOGITS] + [("flat", size) for size in VOCAB_SIZES if size != 515]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "vocab_size"), CASES)
def test_values_and_gradients_are_as_accurate_as_autograd(
    kind: str, vocab_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    assert linear_exact_kl_is_accurate(linear_exact_kl, kind, vocab_size, dtype, device)


def test_it_has_the_value_of_its_formula(device: torch.device) -> None:
    """p = (1/2, 1/2), q = (3/4, 1/4), and a third token that neither may choose: ln(4/3) / 2."""
    one = torch.ones(1, 1, device=device)
    weight = torch.tensor([[2.0], [2.0], [9.0]], device=device)
    ref_weight = torch.tensor([[math.log(3.0)], [0.0], [-9.0]], device=device)
    kl = linear_exact_kl(one, weight, one, ref_weight, forbidden_ids=torch.tensor([2], device=device))
    assert float(kl) == pytest.approx(math.log(4 / 3) / 2, rel=16 * EPS)


def test_it_is_the_kl_of_the_logits(device: torch.device) -> None:
    inputs, ref = make_inputs("flat", 515, device), make_reference(515, device)
    kl = linear_exact_kl(*inputs[:2], *ref, temperature=0.7)
    logits, ref_logits = plain_logits(inputs), plain_logits((*ref, inputs[2]))
    torch.testing.assert_close(kl, exact_kl_from_logits(logits, ref_logits, temperature=0.7), rtol=1e-5, atol=20 * EPS)


def test_a_policy_that_is_its_own_reference_has_no_kl_and_no_gradient(device: torch.device) -> None:
    hidden, weight, _ = make_inputs("flat", 515, device)
    kl = linear_exact_kl(hidden, weight, hidden, weight)
    kl.sum().backward()
    assert not kl.any()
    assert not hidden.grad.any()
    assert not weight.grad.any()


def test_masked_tokens_give_exactly_no_gradient(device: torch.device) -> None:
    hidden, weight, _ = make_inputs("flat", 515, device)
    upstream = torch.ones(NUM_TOKENS, device=device)
    upstream[::3] = 0.0
    kl = linear_exact_kl(hidden, weight, *make_reference(515, device))
    (grad,) = torch.autograd.grad(kl, hidden, upstream)
    assert torch.equal(~grad.any(-1), upstream == 0)


def test_chunks_change_no_value(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, _ = make_inputs("flat", 515, device, num_tokens=150)
    ref, upstream = make_reference(515, device, num_tokens=150), torch.randn(150, device=device)

    def value_and_gradients() -> tuple[Tensor, ...]:
        kl = linear_exact_kl(hidden, weight, *ref)
        return kl.detach(), *torch.autograd.grad(kl, (hidden, weight), upstream)

    whole = value_and_gradients()
    # 128 rows, the fewest that a chunk of the kernel has
    monkeypatch.setattr(head, "CHUNK_BYTES", 1)
    monkeypatch.setattr(reference_logprobs, "TILE_ELEMENTS", 1)
    monkeypatch.setattr(reference_logprobs, "MIN_CHUNK_ROWS", 128)
    for actual, expected in zip(value_and_gradients(), whole, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient_and_the_other_the_same(frozen: int, device: torch.device) -> None:
    inputs, ref = make_inputs("flat", 515, device)[:2], make_reference(515, device)
    expected = torch.autograd.grad(linear_exact_kl(*inputs, *ref).sum(), inputs)[1 - frozen]
    inputs[frozen].requires_grad_(False)
    kl = linear_exact_kl(*inputs, *ref)
    # As the backward pass returns them: autograd would drop one that was formed for nothing.
    grads = kl.grad_fn.apply(torch.ones_like(kl))
    assert torch.equal(grads[1 - frozen], expected)
    assert [grad is None for i, grad in enumerate(grads) if i != 1 - frozen] == [True] * 5


def test_the_reference_gets_no_gradient(device: torch.device) -> None:
    hidden, weight, _ = make_inputs("flat", 515, device)
    ref_hidden, ref_weight = (x.requires_grad_() for x in make_reference(515, device))
    linear_exact_kl(hidden, weight, ref_hidden, ref_weight).sum().backward()
    assert ref_hidden.grad is None
    assert ref_weight.grad is None


def test_no_tokens_give_nothing_and_a_zero_gradient(device: torch.device) -> None:
    hidden, weight = torch.zeros(0, 4, device=device), torch.randn(9, 4, device=device, requires_grad=True)
    kl = linear_exact_kl(hidden, weight, hidden, weight)
    kl.sum().backward()
    assert kl.shape == (0,)
    assert torch.equal(weight.grad, torch.zeros_like(weight))


def test_gradcheck_in_float64() -> None:
    hidden, weight, _ = make_inputs("flat", 17, torch.device("cpu"), torch.float64, num_tokens=3)
    ref = make_reference(17, torch.device("cpu"), torch.float64, num_tokens=3)
    options = {"temperature": 0.7, "forbidden_ids": torch.tensor([2, 16])}
    assert linear_exact_kl(hidden, weight, *ref, **options).dtype == torch.float64
    assert torch.autograd.gradcheck(lambda h, w: linear_exact_kl(h, w, *ref, **options), (hidden, weight))


def test_bad_input_is_rejected(device: torch.device) -> None:
    hidden, weight, _ = make_inputs("flat", 515, device)
    ref_hidden, ref_weight = make_reference(515, device)
    with pytest.raises(ValueError, match=r"hidden must be \(T, H\) and weight \(V, H\), got \(19, 16\), \(515, 15\)"):
        linear_exact_kl(hidden, weight[:, 1:], ref_hidden, ref_weight)
    with pytest.raises(ValueError, match=r"ref_hidden must be \(T, H\) and ref_weight \(V, H\), got .*16\)"):
        linear_exact_kl(hidden, weight, ref_hidden, weight)
    with pytest.raises(ValueError, match="ref_hidden and ref_weight must have one float dtype, got .*bfloat16"):
        linear_exact_kl(hidden, weight, ref_hidden.bfloat16(), ref_weight)
    with pytest.raises(ValueError, match="ref_hidden must be float64 where hidden is, got torch.float64"):
        linear_exact_kl(hidden, weight, ref_hidden.double(), ref_weight.double())
    with pytest.raises(ValueError, match="ref_hidden must have the 19 tokens of hidden, got 18"):
        linear_exact_kl(hidden, weight, ref_hidden[1:], ref_weight)
    with pytest.raises(ValueError, match="ref_weight must have the 515 rows of weight, got 514"):
        linear_exact_kl(hidden, weight, ref_hidden, ref_weight[1:])
    with pytest.raises(ValueError, match=r"forbidden_ids must be \(1,\) int64, got \(1,\) torch.float32"):
        linear_exact_kl(hidden, weight, ref_hidden, ref_weight, forbidden_ids=torch.ones(1, device=device))
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        linear_exact_kl(hidden, weight, ref_hidden, ref_weight, temperature=0.0)


def test_forbidden_ids_outside_the_vocabulary_are_rejected_on_a_cpu() -> None:
    hidden, weight, _ = make_inputs("flat", 515, torch.device("cpu"))
    ref = make_reference(515, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"forbidden_ids must be in \[0, 515\), got 515"):
        linear_exact_kl(hidden, weight, *ref, forbidden_ids=torch.tensor([515]))
