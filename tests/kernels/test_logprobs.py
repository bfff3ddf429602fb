"""token_logprobs against float64 definitions that share no code with it.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids.
"""

import math

import pytest
import torch
from geogrpo_kernels import head, token_logprobs
from geogrpo_kernels.reference import logprobs as reference_logprobs
from kernel_oracles import (
    EPS,
    HIDDEN_SIZE,
    NUM_TOKENS,
    SHAPES_OF_LOGITS,
    VOCAB_SIZES,
    Inputs,
    forward_is_accurate,
    gradient_scales,
    gradients,
    gradients_are_accurate,
    largest_logit,
    make_inputs,
    upstream_like,
)
from torch import Tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_logprobs_and_entropy_are_as_accurate_as_log_softmax(
    vocab_size: int, kind: str, dtype: torch.dtype, device: torch.device
) -> None:
    assert forward_is_accurate(token_logprobs, make_inputs(kind, vocab_size, device, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", SHAPES_OF_LOGITS)
@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_gradients_are_as_accurate_as_autograd(
    vocab_size: int, kind: str, dtype: torch.dtype, device: torch.device
) -> None:
    assert gradients_are_accurate(token_logprobs, make_inputs(kind, vocab_size, device, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab_size", [151936, 152064])
def test_so_they_are_for_the_vocabularies_of_real_models(
    vocab_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    inputs = make_inputs("peaked", vocab_size, device, dtype, num_tokens=2)
    assert forward_is_accurate(token_logprobs, inputs)
    assert gradients_are_accurate(token_logprobs, inputs)


@pytest.mark.parametrize("temperature", [0.3, 0.7, 2.5])
def test_temperature_divides_the_logits(temperature: float, device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    assert forward_is_accurate(token_logprobs, inputs, temperature=temperature)
    assert gradients_are_accurate(token_logprobs, inputs, temperature=temperature)


def test_one_token_vocabulary_is_certain(device: torch.device) -> None:
    inputs = make_inputs("flat", 1, device)
    logprobs, entropy = token_logprobs(*inputs)
    grad_hidden, grad_weight = gradients((logprobs, entropy), upstream_like(inputs), inputs)
    for value in (logprobs, entropy, grad_hidden, grad_weight):
        assert not value.any()


@pytest.mark.parametrize("num_rows", [1, 8, 18])
@pytest.mark.parametrize("num_cols", [1, 100, 514])
def test_tiles_are_as_accurate_as_one_pass(num_rows: int, num_cols: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(reference_logprobs, "BLOCK_ELEMENTS", HIDDEN_SIZE * num_cols)
    monkeypatch.setattr(reference_logprobs, "TILE_ELEMENTS", num_cols * num_rows)
    inputs = make_inputs("flat", 515, cpu)
    assert forward_is_accurate(token_logprobs, inputs, temperature=0.7)
    assert gradients_are_accurate(token_logprobs, inputs, temperature=0.7)


def test_chunks_change_no_bit_of_a_token(kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make_inputs("flat", 515, kernel_device, num_tokens=150)
    upstream = upstream_like(inputs)
    whole = token_logprobs(*inputs)
    grad_hidden, grad_weight = gradients(whole, upstream, inputs)
    # 128 rows, the fewest that a chunk has
    monkeypatch.setattr(head, "CHUNK_BYTES", 1)
    in_chunks = token_logprobs(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(whole, in_chunks, strict=True))
    chunked_hidden, chunked_weight = gradients(in_chunks, upstream, inputs)
    assert torch.equal(chunked_hidden, grad_hidden)
    scale = gradient_scales(inputs, upstream)[1]
    assert (chunked_weight - grad_weight).abs().max() <= 4 * EPS * scale


def test_chunks_of_bfloat16_are_summed_in_float32(kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows twelve times over: a sum that is rounded after each chunk drifts away from twelve times one."""
    once = make_inputs("flat", 33, kernel_device, torch.bfloat16, num_tokens=128)
    upstream = torch.randn(128, device=kernel_device)
    monkeypatch.setattr(head, "CHUNK_BYTES", 1)

    def weight_gradient(repeats: int) -> torch.Tensor:
        hidden, weight, target_ids = once[0].detach().repeat(repeats, 1), once[1], once[2].repeat(repeats)
        logprobs, _ = token_logprobs(hidden, weight, target_ids)
        return torch.autograd.grad((logprobs * upstream.repeat(repeats)).sum(), weight)[0].double()

    # One rounding of the sum, and one of what is compared with
    expected = 12 * weight_gradient(1)
    allowed = 2 * torch.finfo(torch.bfloat16).eps * expected.abs()
    assert ((weight_gradient(12) - expected).abs() <= allowed).all()


def forbidden_inputs(device: torch.device) -> tuple[Inputs, Tensor]:
    """Ids that no target uses are forbidden, the most probable id of every row among them."""
    hidden, weight, target_ids = make_inputs("peaked", 515, device)
    forbidden_ids = torch.tensor([0, 3, 200, 514], device=device)
    target_ids = target_ids.clone()
    target_ids[torch.isin(target_ids, forbidden_ids)] = 7
    return (hidden, weight, target_ids), forbidden_ids


def test_forbidden_ids_leave_the_distribution_over_the_others(device: torch.device) -> None:
    inputs, forbidden_ids = forbidden_inputs(device)
    assert forward_is_accurate(token_logprobs, inputs, forbidden_ids=forbidden_ids)
    assert gradients_are_accurate(token_logprobs, inputs, forbidden_ids=forbidden_ids)


def test_forbidden_ids_have_probability_exactly_0(device: torch.device) -> None:
    (hidden, weight, _), forbidden_ids = forbidden_inputs(device)
    one_row_per_id = hidden[:1].expand(515, -1)
    probs = token_logprobs(one_row_per_id, weight, torch.arange(515, device=device), forbidden_ids=forbidden_ids)[
        0
    ].exp()
    assert torch.equal((probs == 0).nonzero().squeeze(-1), forbidden_ids)
    # 511 terms whose sum is 1, each off by a relative 4 eps at most
    assert abs(float(probs.detach().double().sum()) - 1) <= 4 * EPS * largest_logit((hidden, weight, forbidden_ids))


def test_forbidden_ids_get_a_gradient_of_exactly_0(device: torch.device) -> None:
    inputs, forbidden_ids = forbidden_inputs(device)
    outputs = token_logprobs(*inputs, forbidden_ids=forbidden_ids)
    _, grad_weight = gradients(outputs, upstream_like(inputs), inputs)
    is_zero = ~grad_weight.any(-1)
    assert torch.equal(is_zero.nonzero().squeeze(-1), forbidden_ids)


def test_a_forbidden_target_is_impossible_and_gives_forbidden_ids_no_gradient(device: torch.device) -> None:
    (hidden, weight, target_ids), forbidden_ids = forbidden_inputs(device)
    target_ids[5] = 200
    inputs = (hidden, weight, target_ids)
    outputs = token_logprobs(*inputs, forbidden_ids=forbidden_ids)
    assert outputs[0].isneginf().nonzero().tolist() == [[5]]
    assert forward_is_accurate(token_logprobs, inputs, forbidden_ids=forbidden_ids)
    assert gradients_are_accurate(token_logprobs, inputs, forbidden_ids=forbidden_ids)
    _, grad_weight = gradients(
        outputs, (torch.ones(NUM_TOKENS, device=device), torch.ones(NUM_TOKENS, device=device)), inputs
    )
    assert not grad_weight[forbidden_ids].any()


def test_each_output_alone_has_its_own_gradient(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    zero, upstream = torch.zeros(NUM_TOKENS, device=device), torch.randn(NUM_TOKENS, device=device)
    for output, pair in ((0, (upstream, zero)), (1, (zero, upstream))):
        alone = torch.autograd.grad((token_logprobs(*inputs)[output] * upstream).sum(), inputs[:2])
        with_zero = gradients(token_logprobs(*inputs), pair, inputs)
        assert all(torch.equal(a, b) and a.any() for a, b in zip(alone, with_zero, strict=True))


def test_backward_leaves_inputs_and_saved_tensors_alone(device: torch.device) -> None:
    inputs, forbidden_ids = forbidden_inputs(device)
    before = [x.detach().clone() for x in inputs]
    outputs = token_logprobs(*inputs, forbidden_ids=forbidden_ids)
    values = [out.detach().clone() for out in outputs]
    total = (
        outputs[0] * torch.randn(NUM_TOKENS, device=device) + outputs[1] * torch.randn(NUM_TOKENS, device=device)
    ).sum()
    first = torch.autograd.grad(total, inputs[:2], retain_graph=True)
    second = torch.autograd.grad(total, inputs[:2])
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, inputs, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(values, outputs, strict=True))


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_input_gets_no_gradient_and_the_other_the_same(frozen: int, device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    upstream = upstream_like(inputs)
    expected = gradients(token_logprobs(*inputs), upstream, inputs)[1 - frozen]
    inputs[frozen].requires_grad_(False)
    logprobs, entropy = token_logprobs(*inputs)
    (logprobs * upstream[0] + entropy * upstream[1]).sum().backward()
    assert inputs[frozen].grad is None
    assert torch.equal(inputs[1 - frozen].grad, expected)


def test_no_product_is_formed_for_a_frozen_head(kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, weight, target_ids = make_inputs("flat", 515, kernel_device)
    monkeypatch.setattr(head, "add_matmul_f32", lambda *_: pytest.fail("a gradient of a frozen head was formed"))
    token_logprobs(hidden, weight.detach(), target_ids)[0].sum().backward()


def test_gradcheck_in_float64(device: torch.device) -> None:
    hidden, weight, target_ids = make_inputs("flat", 17, device, torch.float64, num_tokens=3)
    bias = torch.randn(17, device=device, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda h, w, b: token_logprobs(h, w, target_ids, bias=b, temperature=0.7), (hidden, weight, bias)
    )


def test_a_second_derivative_is_refused(device: torch.device) -> None:
    hidden, weight, target_ids = make_inputs("flat", 515, device)
    logprobs, _ = token_logprobs(hidden, weight, target_ids)
    (gradient,) = torch.autograd.grad(logprobs.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_autocast_does_not_round_the_logits(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)
    with torch.autocast(device.type, torch.bfloat16):
        assert forward_is_accurate(token_logprobs, inputs)


def test_where_everything_is_forbidden_there_is_no_distribution(device: torch.device) -> None:
    hidden, weight, target_ids = make_inputs("flat", 5, device)
    logprobs, entropy = token_logprobs(hidden, weight, target_ids, forbidden_ids=torch.arange(5, device=device))
    assert logprobs.isnan().all()
    assert entropy.isnan().all()


@pytest.mark.parametrize("forbidden_id", [-1, 515])
def test_a_forbidden_id_outside_of_the_vocabulary_is_rejected(forbidden_id: int) -> None:
    inputs = make_inputs("flat", 515, torch.device("cpu"))
    with pytest.raises(ValueError, match=rf"forbidden_ids must be in \[0, 515\), got {forbidden_id}."):
        token_logprobs(*inputs, forbidden_ids=torch.tensor([3, forbidden_id]))


def zero_ids(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64, device=device)


def test_no_tokens_give_a_zero_gradient(device: torch.device) -> None:
    hidden = torch.randn(0, 4, device=device, requires_grad=True)
    weight = torch.randn(9, 4, device=device, requires_grad=True)
    logprobs, entropy = token_logprobs(hidden, weight, torch.zeros(0, dtype=torch.int64, device=device))
    (logprobs.sum() + entropy.sum()).backward()
    assert torch.equal(weight.grad, torch.zeros_like(weight))


@pytest.mark.parametrize(
    ("hidden_shape", "weight_shape"), [((5,), (7, 4)), ((2, 5, 4), (7, 4)), ((5, 4), (4,)), ((5, 4), (7, 3))]
)
def test_hidden_and_weight_that_do_not_fit_are_rejected(
    hidden_shape: tuple, weight_shape: tuple, device: torch.device
) -> None:
    with pytest.raises(ValueError, match=r"hidden must be \(T, H\) and weight \(V, H\), got") as error:
        token_logprobs(*(torch.zeros(x, device=device) for x in (hidden_shape, weight_shape)), zero_ids((5,), device))
    assert f"{hidden_shape}, {weight_shape}" in str(error.value)


@pytest.mark.parametrize("shape", [(4,), (5, 1), ()])
def test_target_ids_of_another_shape_are_rejected(shape: tuple, device: torch.device) -> None:
    with pytest.raises(ValueError, match=r"target_ids must be \(5,\) int64, got") as error:
        token_logprobs(torch.zeros(5, 4, device=device), torch.zeros(7, 4, device=device), zero_ids(shape, device))
    assert str(error.value).endswith(f"{shape} torch.int64.")


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_rejected(temperature: float, device: torch.device) -> None:
    inputs = torch.zeros(5, 4, device=device), torch.zeros(7, 4, device=device), zero_ids((5,), device)
    with pytest.raises(ValueError, match=rf"temperature must be > 0, got {temperature}.*Greedy decoding needs no"):
        token_logprobs(*inputs, temperature=temperature)
