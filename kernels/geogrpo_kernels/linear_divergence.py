"""Exact KL divergence from hidden states and heads: logits of all tokens never exist.

For each chunk of tokens cuBLAS computes the float32 logits of policy and reference, and one kernel reads both; the
backward pass computes them again, turns the policy's into their gradient in place, and multiplies.

Shapes: T tokens, H hidden, K hidden of the reference, V vocabulary, F forbidden ids.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels import reference
from geogrpo_kernels.checks import check_temperature, check_two_heads
from geogrpo_kernels.divergence import exact_kl_gradient_rows, exact_kl_rows
from geogrpo_kernels.head import Head, HeadGradients, gradient_view
from geogrpo_kernels.launch import GRAPH_BREAK, use_triton
from geogrpo_kernels.shards import vocab_shard


class LinearExactKL(torch.autograd.Function):
    """Keeps five numbers per token; the backward pass computes both logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        ref_hidden: Tensor,
        ref_weight: Tensor,
        forbidden_ids: Tensor | None,
        inv_temperature: float,
    ) -> Tensor:
        head, ref_head = _heads(weight, ref_weight, forbidden_ids, len(hidden))
        statistics = torch.empty(5, len(hidden), dtype=torch.float32, device=hidden.device)
        for rows in head.chunks:
            logits, ref_logits = head.logits(hidden[rows]), ref_head.logits(ref_hidden[rows])
            exact_kl_rows(logits, ref_logits, statistics[:, rows], inv_temperature)
        ctx.save_for_backward(hidden, weight, ref_hidden, ref_weight, forbidden_ids, statistics)
        ctx.inv_temperature = inv_temperature
        return statistics[0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ref_hidden, ref_weight, forbidden_ids, statistics = ctx.saved_tensors
        head, ref_head = _heads(weight, ref_weight, forbidden_ids, len(hidden))
        gradients = HeadGradients(hidden, head, (*ctx.needs_input_grad[:2], False))
        grad_kl = grad_kl.contiguous()
        for rows in head.chunks:
            logits, ref_logits = head.logits(hidden[rows]), ref_head.logits(ref_hidden[rows])
            grad = gradient_view(logits, hidden.dtype)
            of_rows = statistics[:, rows], grad_kl[rows]
            exact_kl_gradient_rows(logits, ref_logits, *of_rows, grad, ctx.inv_temperature)
            gradients.add(grad, rows)
        grad_hidden, grad_weight, _ = gradients.finished()
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        return grad_hidden, grad_weight, None, None, None, None


def _heads(weight: Tensor, ref_weight: Tensor, forbidden_ids: Tensor | None, num_rows: int) -> tuple[Head, Head]:
    """Of policy and reference, in the same chunks, each with a buffer of its own."""
    shard = vocab_shard(weight, None)
    head, ref_head = (Head(of, None, forbidden_ids, shard, num_rows) for of in (weight, ref_weight))
    return head, ref_head


@torch.compiler.disable(reason=GRAPH_BREAK)
def linear_exact_kl(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    *,
    temperature: float = 1.0,
    forbidden_ids: Tensor | None = None,
) -> Tensor:
    """KL(policy || reference) over the whole vocabulary at each token, from hidden states and heads.

    The distributions are those of token_logprobs. Extra memory: a chunk of logits of each model and, in backward, the
    gradients of hidden and, for a weight that trains, of the weight in float32.

    Args:
        hidden: (T, H) float of the policy.
        weight: (V, H), its head, in hidden's dtype.
        ref_hidden: (T, K) float of the reference; taken as constants, as its head is.
        ref_weight: (V, K), its head, in ref_hidden's dtype; the policy's own weight may be given.
        temperature: > 0, of both.
        forbidden_ids: (F,) int64 that neither model can choose, or None.
    Returns:
        (T,) float32 (float64 for float64 inputs), nats, differentiable in hidden and weight.
    Raises:
        ValueError: on shapes, types or devices that do not fit, a temperature that is not positive or, on a CPU,
            forbidden ids outside the vocabulary.
    """
    if not use_triton(hidden):
        return reference.linear_exact_kl(
            hidden, weight, ref_hidden, ref_weight, temperature=temperature, forbidden_ids=forbidden_ids
        )
    check_two_heads(hidden, weight, ref_hidden, ref_weight, forbidden_ids)
    check_temperature(temperature)
    vocab_shard(weight, None).check_ids(forbidden_ids, "forbidden_ids")
    return LinearExactKL.apply(
        hidden, weight, ref_hidden.detach(), ref_weight.detach(), forbidden_ids, 1.0 / temperature
    )
