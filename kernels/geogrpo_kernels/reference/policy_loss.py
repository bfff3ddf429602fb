"""Plain PyTorch policy loss over the head: the CPU path, and what the Triton kernel is tested against.

One pass: the gradient of a token-level loss with respect to a token's logits depends on that row alone, so it is
formed while the row's logits are at hand, and nothing is computed again in the backward pass.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids, R rows of a chunk.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels.checks import check_head, check_per_token, check_range_of_gradients, check_temperature
from geogrpo_kernels.objective import PolicyLoss, PolicyObjective, token_terms
from geogrpo_kernels.reference.logprobs import (
    HeadBlock,
    LogitGradient,
    add_tile,
    compute_dtype,
    head_chunks,
)
from geogrpo_kernels.reference.products import linear
from geogrpo_kernels.shards import (
    VocabShard,
    empty_statistics,
    logprobs_and_entropy,
    reduce_statistics,
    vocab_shard,
)


def linear_grpo_loss(
    hidden: Tensor,
    weight: Tensor,
    target_ids: Tensor,
    objective: PolicyObjective,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    forbidden_ids: Tensor | None = None,
    process_group: dist.ProcessGroup | None = None,
) -> PolicyLoss:
    """Definition of geogrpo_kernels.linear_grpo_loss, which documents it."""
    check_head(hidden, weight, target_ids, bias, forbidden_ids)
    check_range_of_gradients(hidden)
    check_temperature(temperature)
    check_per_token(len(hidden), hidden.device, advantages=objective.advantages)
    shard = vocab_shard(weight, process_group)
    shard.check_ids(target_ids, "target_ids")
    shard.check_ids(forbidden_ids, "forbidden_ids")
    return PolicyLoss(
        *LinearGRPOLoss.apply(
            hidden,
            weight,
            bias,
            shard.local_ids(target_ids),
            None if forbidden_ids is None else shard.local_ids(forbidden_ids),
            objective,
            1.0 / temperature,
            shard,
            torch.is_grad_enabled(),
        )
    )


class LinearGRPOLoss(torch.autograd.Function):
    """The forward pass computes the gradients, too; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_rows: Tensor,
        forbidden_rows: Tensor | None,
        objective: PolicyObjective,
        inv_temperature: float,
        shard: VocabShard,
        wants_grad: bool,
    ) -> tuple[Tensor, ...]:
        work = hidden.to(compute_dtype(hidden))
        block = HeadBlock(weight, bias, slice(0, len(weight)), forbidden_rows, work.dtype)
        needs_hidden, needs_weight, needs_bias = (wants_grad and needed for needed in ctx.needs_input_grad[:3])
        grad_hidden = torch.empty_like(work) if needs_hidden else None
        grad_weight = torch.zeros_like(block.weight) if needs_weight else None
        grad_bias = work.new_zeros(len(weight)) if needs_bias else None
        outputs = work.new_empty(5, len(work))
        for rows in head_chunks(len(work), shard.max_rows):
            logits, targets = block.logits(work[rows]), target_rows[rows]
            local = empty_statistics(len(logits), like=work)
            add_tile(local, logits, targets, inv_temperature)
            statistics = reduce_statistics(local, inv_temperature, shard)
            logprobs, entropy = logprobs_and_entropy(statistics, inv_temperature)
            terms = token_terms(logprobs, entropy, objective, rows)
            outputs[:, rows] = torch.stack([terms.loss, logprobs, entropy, terms.kl, terms.is_clipped.to(work.dtype)])
            if not (needs_hidden or needs_weight or needs_bias):
                continue
            if not shard.is_whole:
                logits += ((local[0] - statistics[0]) * inv_temperature)[:, None]
            grad_entropy = terms.grad_entropy if objective.entropy_coef else None
            rule = LogitGradient(
                statistics[0], statistics[1].log(), entropy, terms.grad_logprobs, grad_entropy, inv_temperature
            )
            grad = block.clear_forbidden_(rule.of_scaled(logits, slice(None), targets))
            if grad_hidden is not None:
                grad_hidden[rows] = linear(grad, block.weight.T)
            if grad_weight is not None:
                grad_weight += linear(grad.T, work[rows].T)
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        if grad_hidden is not None:
            shard.sum_(grad_hidden)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype
        loss, logprobs, entropy, kl, is_clipped = outputs.unbind()
        results = (loss.sum(), logprobs, entropy, kl, is_clipped.bool())
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            None if grad is None else torch.mul(grad, grad_loss, out=torch.empty_like(grad, dtype=dtype))
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*gradients, None, None, None, None, None, None)
