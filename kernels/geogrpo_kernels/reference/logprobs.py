"""Plain PyTorch log-probabilities: the CPU path, and what the Triton kernels are tested against.

The logits are computed tile by tile, some rows times some of the vocabulary, while they are in the cache; no matrix
of the size (T, V) exists. float64 inputs are computed in float64, everything else in float32.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels.checks import check_head, check_ids, check_logits, check_temperature
from geogrpo_kernels.reference.products import linear, row_dot
from geogrpo_kernels.shards import (
    LOWEST_LOGIT,
    VocabShard,
    empty_statistics,
    logprobs_and_entropy,
    reduce_statistics,
    vocab_shard,
)

# Logits per tile: 4 MiB of float32 stay in a CPU's cache through the passes over them.
TILE_ELEMENTS = 1 << 20
# Elements of the head per block, converted once for all rows: 4 MiB, too. With eight times as many, half as fast.
BLOCK_ELEMENTS = 1 << 20
# Of products with the whole head. Fewer would read it more often than a product can hide: 64 take a quarter longer.
MIN_CHUNK_ROWS = 256


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    target_ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    forbidden_ids: Tensor | None = None,
    process_group: dist.ProcessGroup | None = None,
) -> tuple[Tensor, Tensor]:
    """Definition of geogrpo_kernels.token_logprobs, which documents it."""
    check_head(hidden, weight, target_ids, bias, forbidden_ids)
    check_temperature(temperature)
    shard = vocab_shard(weight, process_group)
    shard.check_ids(target_ids, "target_ids")
    shard.check_ids(forbidden_ids, "forbidden_ids")
    forbidden_rows = None if forbidden_ids is None else shard.local_ids(forbidden_ids)
    logprobs, entropy = TokenLogprobs.apply(
        hidden, weight, bias, shard.local_ids(target_ids), forbidden_rows, 1.0 / temperature, shard
    )
    return logprobs, entropy


class TokenLogprobs(torch.autograd.Function):
    """Statistics tile by tile; the backward pass computes each tile again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_rows: Tensor,
        forbidden_rows: Tensor | None,
        inv_temperature: float,
        shard: VocabShard,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        work = hidden.to(compute_dtype(hidden))
        statistics = empty_statistics(len(hidden), like=work)
        for cols in vocab_blocks(weight):
            block = HeadBlock(weight, bias, cols, forbidden_rows, work.dtype)
            for rows in row_chunks(len(hidden), len(block.weight)):
                targets = target_rows[rows] - cols.start
                add_tile(statistics[:, rows], block.logits(work[rows]), targets, inv_temperature)
        statistics = reduce_statistics(statistics, inv_temperature, shard)
        logprobs, entropy = logprobs_and_entropy(statistics, inv_temperature)
        ctx.save_for_backward(hidden, weight, bias, target_rows, forbidden_rows, statistics[:2], entropy)
        ctx.inv_temperature, ctx.shard = inv_temperature, shard
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_logprobs is None and grad_entropy is None:
            return (None,) * 7
        hidden, weight, bias, target_rows, forbidden_rows, (largest, total), entropy = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        work = hidden.to(compute_dtype(hidden))
        grad_hidden = torch.zeros_like(work) if needs_hidden else None
        grad_weight = torch.empty_like(weight) if needs_weight else None
        grad_bias = torch.empty_like(bias) if needs_bias else None
        rule = LogitGradient(largest, total.log(), entropy, grad_logprobs, grad_entropy, ctx.inv_temperature)
        for cols in vocab_blocks(weight):
            block = HeadBlock(weight, bias, cols, forbidden_rows, work.dtype)
            weight_sum = torch.zeros_like(block.weight) if needs_weight else None
            bias_sum = block.weight.new_zeros(len(block.weight))
            for rows in row_chunks(len(hidden), len(block.weight)):
                grad = rule.of_logits(block.logits(work[rows]), rows, target_rows[rows] - cols.start)
                block.clear_forbidden_(grad)
                if grad_hidden is not None:
                    grad_hidden[rows] += linear(grad, block.weight.T)
                if weight_sum is not None:
                    weight_sum += linear(grad.T, work[rows].T)
                if needs_bias:
                    bias_sum += grad.sum(0)
            if grad_weight is not None and weight_sum is not None:
                grad_weight[cols] = weight_sum
            if grad_bias is not None:
                grad_bias[cols] = bias_sum
        if grad_hidden is not None:
            grad_hidden = ctx.shard.sum_(grad_hidden).to(hidden.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def token_logprobs_from_logits(
    logits: Tensor, target_ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Definition of geogrpo_kernels.token_logprobs_from_logits, which documents it."""
    check_logits(logits, target_ids=target_ids)
    check_ids("target_ids", target_ids, logits.shape[:1])
    check_temperature(temperature)
    VocabShard(0, logits.shape[1], logits.shape[1], None).check_ids(target_ids, "target_ids")
    logprobs, entropy = TokenLogprobsFromLogits.apply(logits, target_ids, 1.0 / temperature)
    return logprobs, entropy


class TokenLogprobsFromLogits(torch.autograd.Function):
    """Row by row; keeps the logits of the caller and three numbers per row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target_ids: Tensor, inv_temperature: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        statistics = empty_statistics(len(logits), like=logits.new_empty(0, dtype=compute_dtype(logits)))
        for rows in row_chunks(*logits.shape):
            add_tile(statistics[:, rows], logits_tile(logits[rows]), target_ids[rows], inv_temperature)
        logprobs, entropy = logprobs_and_entropy(statistics, inv_temperature)
        ctx.save_for_backward(logits, target_ids, statistics[:2], entropy)
        ctx.inv_temperature = inv_temperature
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_logprobs is None and grad_entropy is None:
            return None, None, None
        logits, target_ids, (largest, total), entropy = ctx.saved_tensors
        rule = LogitGradient(largest, total.log(), entropy, grad_logprobs, grad_entropy, ctx.inv_temperature)
        grad = torch.empty_like(logits)
        for rows in row_chunks(*logits.shape):
            grad[rows] = rule.of_logits(logits_tile(logits[rows]), rows, target_ids[rows])
        return grad, None, None


@dataclass(frozen=True)
class LogitGradient:
    """What the logits get from upstream gradients of log-prob and entropy. Every tensor is (T,)."""

    largest: Tensor
    log_total: Tensor
    entropy: Tensor
    grad_logprobs: Tensor | None
    grad_entropy: Tensor | None
    inv_temperature: float

    def of_logits(self, logits: Tensor, rows: slice, targets: Tensor) -> Tensor:
        """(R, C) logits, overwritten, and (R,) columns of the targets -> (R, C) gradient."""
        return self.of_scaled(scale_(logits.sub_(self.largest[rows, None]), self.inv_temperature), rows, targets)

    def of_scaled(self, scaled: Tensor, rows: slice, targets: Tensor) -> Tensor:
        """(R, C) of (logit - largest) / temperature, overwritten, and (R,) columns of the targets -> (R, C) gradient.

        d logprob / d logits = (onehot - p) / temperature; d entropy / d logits = -p (log p + entropy) / temperature
        """
        logprobs = scaled.sub_(self.log_total[rows, None])
        grad = logprobs.exp()
        if self.grad_entropy is not None:
            factor = logprobs.add_(self.entropy[rows, None]).mul_(self.grad_entropy[rows, None])
            if self.grad_logprobs is not None:
                factor += self.grad_logprobs[rows, None]
            grad.mul_(factor.neg_())
        elif self.grad_logprobs is not None:
            grad.mul_(-self.grad_logprobs[rows, None])
        if self.grad_logprobs is not None:
            is_inside = (targets >= 0) & (targets < grad.shape[1])
            at_target = self.grad_logprobs[rows].to(grad.dtype) * is_inside
            grad.scatter_add_(1, targets.clamp(0, grad.shape[1] - 1)[:, None], at_target[:, None])
        # Exactly 0 without an upstream gradient, whatever the logits are
        given = [g[rows] == 0 for g in (self.grad_logprobs, self.grad_entropy) if g is not None]
        is_unneeded = torch.stack(given).all(0)
        if is_unneeded.any():
            grad[is_unneeded] = 0.0
        return scale_(grad, self.inv_temperature)


class HeadBlock:
    """Some rows of the head in the dtype of the computation, and the logits they give."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, cols: slice, forbidden_rows: Tensor | None, dtype: torch.dtype
    ) -> None:
        self.weight = weight[cols].to(dtype)
        self.bias = None if bias is None else bias[cols].to(dtype)
        self.forbidden: Tensor | None = None
        if forbidden_rows is not None:
            is_inside = (forbidden_rows >= cols.start) & (forbidden_rows < cols.stop)
            self.forbidden = forbidden_rows[is_inside] - cols.start

    def logits(self, hidden: Tensor) -> Tensor:
        """(R, H) -> (R, C) before the temperature, forbidden ones at LOWEST_LOGIT."""
        logits = linear(hidden, self.weight)
        if self.bias is not None:
            logits += self.bias
        return logits if self.forbidden is None else logits.index_fill_(1, self.forbidden, LOWEST_LOGIT)

    def clear_forbidden_(self, grad: Tensor) -> Tensor:
        """A forbidden logit is a constant: no gradient, also where it is the target."""
        return grad if self.forbidden is None else grad.index_fill_(1, self.forbidden, 0.0)


def add_tile(statistics: Tensor, logits: Tensor, targets: Tensor, inv_temperature: float) -> None:
    """Merge a tile into the rows' statistics, in place.

    Args:
        statistics: (4, R), see shards.
        logits: (R, C), overwritten with (logit - largest so far) / temperature.
        targets: (R,) columns; outside of [0, C) for a target in another tile.
    """
    largest, total, weighted, target = statistics.unbind()
    is_inside = (targets >= 0) & (targets < logits.shape[1])
    at_target = logits.gather(1, targets.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
    target.copy_(torch.where(is_inside, at_target, target))
    new_largest = torch.maximum(largest, logits.amax(1))
    shift = (largest - new_largest).mul_(inv_temperature)
    factor = shift.exp()
    scaled = scale_(logits.sub_(new_largest[:, None]), inv_temperature)
    weights = scaled.exp()
    weighted.add_(total * shift).mul_(factor).add_(row_dot(weights, scaled))
    total.mul_(factor).add_(weights.sum(1))
    largest.copy_(new_largest)


def scale_(values: Tensor, factor: float) -> Tensor:
    """Multiply in place; a temperature of 1 costs no pass."""
    return values if factor == 1.0 else values.mul_(factor)


def logits_tile(logits: Tensor) -> Tensor:
    """A copy of the caller's logits in the dtype of the computation, -inf made finite."""
    return logits.to(compute_dtype(logits), copy=True).clamp_min_(LOWEST_LOGIT)


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """float64 stays, everything else is computed in float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def vocab_blocks(weight: Tensor) -> list[slice]:
    """Rows of the head, some at a time."""
    step = max(1, BLOCK_ELEMENTS // max(1, weight.shape[1]))
    return slices(len(weight), step)


def row_chunks(num_rows: int, num_cols: int) -> list[slice]:
    """Rows of a matrix of logits, a tile at a time."""
    return slices(num_rows, max(1, TILE_ELEMENTS // num_cols))


def head_chunks(num_rows: int, vocab_size: int) -> list[slice]:
    """Rows of hidden states whose product with the whole head is formed at once."""
    return slices(num_rows, max(MIN_CHUNK_ROWS, TILE_ELEMENTS // vocab_size))


def slices(length: int, step: int) -> list[slice]:
    """[0, length) in parts of `step`."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]
