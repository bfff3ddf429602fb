"""Plain PyTorch exact KL from hidden states and heads: the CPU path, and what the Triton kernels are tested against.

Shapes: T tokens, H hidden, K hidden of the reference, V vocabulary, F forbidden ids, R rows of a chunk.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels.checks import check_temperature, check_two_heads
from geogrpo_kernels.reference.divergence import logit_gradient, probs_and_log_ratio
from geogrpo_kernels.reference.logprobs import HeadBlock, compute_dtype, head_chunks
from geogrpo_kernels.reference.products import linear, row_dot
from geogrpo_kernels.shards import vocab_shard


def linear_exact_kl(
    hidden: Tensor,
    weight: Tensor,
    ref_hidden: Tensor,
    ref_weight: Tensor,
    *,
    temperature: float = 1.0,
    forbidden_ids: Tensor | None = None,
) -> Tensor:
    """Definition of geogrpo_kernels.linear_exact_kl, which documents it."""
    check_two_heads(hidden, weight, ref_hidden, ref_weight, forbidden_ids)
    check_temperature(temperature)
    vocab_shard(weight, None).check_ids(forbidden_ids, "forbidden_ids")
    return LinearExactKL.apply(
        hidden, weight, ref_hidden.detach(), ref_weight.detach(), forbidden_ids, 1.0 / temperature
    )


class LinearExactKL(torch.autograd.Function):
    """Chunk by chunk; keeps one number per token, and the backward pass computes both logits again."""

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
        blocks = _blocks(weight, ref_weight, forbidden_ids)
        kl = hidden.new_empty(len(hidden), dtype=compute_dtype(hidden))
        for rows in head_chunks(len(hidden), len(weight)):
            probs, log_ratio = probs_and_log_ratio(*_logits(blocks, hidden, ref_hidden, rows), inv_temperature)
            kl[rows] = row_dot(probs, log_ratio)
        ctx.save_for_backward(hidden, weight, ref_hidden, ref_weight, forbidden_ids, kl)
        ctx.inv_temperature = inv_temperature
        return kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, ref_hidden, ref_weight, forbidden_ids, kl = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        blocks = _blocks(weight, ref_weight, forbidden_ids)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(blocks[0].weight) if needs_weight else None
        for rows in head_chunks(len(hidden), len(weight)):
            pair = probs_and_log_ratio(*_logits(blocks, hidden, ref_hidden, rows), ctx.inv_temperature)
            grad = logit_gradient(*pair, kl[rows], grad_kl[rows], ctx.inv_temperature)
            blocks[0].clear_forbidden_(grad)
            if grad_hidden is not None:
                grad_hidden[rows] = linear(grad, blocks[0].weight.T).to(hidden.dtype)
            if grad_weight is not None:
                grad_weight += linear(grad.T, hidden[rows].to(grad.dtype).T)
        return grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype), None, None, None, None


def _blocks(weight: Tensor, ref_weight: Tensor, forbidden_ids: Tensor | None) -> tuple[HeadBlock, HeadBlock]:
    """The heads of policy and reference, in the dtype of the computation."""
    dtype, all_rows = compute_dtype(weight), slice(0, len(weight))
    return (
        HeadBlock(weight, None, all_rows, forbidden_ids, dtype),
        HeadBlock(ref_weight, None, all_rows, forbidden_ids, dtype),
    )


def _logits(
    blocks: tuple[HeadBlock, HeadBlock], hidden: Tensor, ref_hidden: Tensor, rows: slice
) -> tuple[Tensor, Tensor]:
    """(R, V) of policy and reference."""
    head, ref_head = blocks
    return head.logits(hidden[rows].to(head.weight.dtype)), ref_head.logits(ref_hidden[rows].to(head.weight.dtype))
