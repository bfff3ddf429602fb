"""Log-probability and entropy of given tokens: from hidden states and the head, or from logits.

From hidden states, the logits of some rows at a time are computed by cuBLAS in float32 and read by one Triton kernel;
the backward pass computes them again, turns them into their gradient in place, and multiplies. Logits of all tokens
never exist.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels import reference
from geogrpo_kernels.checks import check_head, check_ids, check_logits, check_temperature
from geogrpo_kernels.head import Head, HeadGradients, gradient_view
from geogrpo_kernels.launch import GRAPH_BREAK, use_triton
from geogrpo_kernels.rows import LogitGradient, row_statistics_of
from geogrpo_kernels.shards import VocabShard, logprobs_and_entropy, reduce_statistics, vocab_shard


def or_zeros(gradient: Tensor | None, like: Tensor) -> Tensor:
    """The gradient with its elements next to each other, or zeros when there is none."""
    return torch.zeros_like(like) if gradient is None else gradient.contiguous()


class TokenLogprobs(torch.autograd.Function):
    """Keeps three numbers per token; the backward pass computes the logits again."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        forbidden_ids: Tensor | None,
        inv_temperature: float,
        shard: VocabShard,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        targets = shard.local_ids(target_ids)
        head = Head(weight, bias, forbidden_ids, shard, len(hidden))
        statistics = torch.empty(4, len(hidden), dtype=torch.float32, device=hidden.device)
        for rows in head.chunks:
            statistics[:, rows] = row_statistics_of(head.logits(hidden[rows]), targets[rows], inv_temperature)
        statistics = reduce_statistics(statistics, inv_temperature, shard)
        logprobs, entropy = logprobs_and_entropy(statistics, inv_temperature)
        ctx.save_for_backward(hidden, weight, bias, target_ids, forbidden_ids, statistics[:2], entropy)
        ctx.inv_temperature, ctx.shard = inv_temperature, shard
        return shard.mark_unknown(logprobs, target_ids), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_logprobs is None and grad_entropy is None:
            return (None,) * 7
        hidden, weight, bias, target_ids, forbidden_ids, (largest, total), entropy = ctx.saved_tensors
        rule = LogitGradient(
            largest,
            total.log(),
            entropy,
            or_zeros(grad_logprobs, entropy),
            or_zeros(grad_entropy, entropy),
            ctx.inv_temperature,
        )
        targets = ctx.shard.local_ids(target_ids)
        head = Head(weight, bias, forbidden_ids, ctx.shard, len(hidden))
        gradients = HeadGradients(hidden, head, ctx.needs_input_grad[:3])
        for rows in head.chunks:
            logits = head.logits(hidden[rows])
            grad = gradient_view(logits, hidden.dtype)
            rule.write(logits, grad, rows, targets[rows])
            gradients.add(grad, rows)
        grad_hidden, grad_weight, grad_bias = gradients.finished()
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        if grad_bias is not None:
            grad_bias = grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


class TokenLogprobsFromLogits(torch.autograd.Function):
    """Keeps the caller's logits and three numbers per token; the gradient of the logits is new memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target_ids: Tensor, inv_temperature: float) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        target_ids = target_ids.contiguous()
        statistics = row_statistics_of(logits, target_ids, inv_temperature)
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
        rule = LogitGradient(
            largest,
            total.log(),
            entropy,
            or_zeros(grad_logprobs, entropy),
            or_zeros(grad_entropy, entropy),
            ctx.inv_temperature,
        )
        grad = torch.empty_like(logits, memory_format=torch.contiguous_format)
        rule.write(logits, grad, slice(None), target_ids)
        return grad, None, None


@torch.compiler.disable(reason=GRAPH_BREAK)
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
    """Log-probability of each target and entropy of each distribution, without storing (T, V) logits.

    The distribution is softmax((hidden @ weight.T + bias) / temperature) with the forbidden ids given probability 0.
    Logits are float32 whatever the input type. The backward pass computes them again; no gradient of a frozen weight
    is formed. Under torch.no_grad nothing is kept.

    Args:
        hidden: (T, H) float.
        weight: (V, H), the language-model head, in hidden's dtype; with a process group, this rank's rows of it.
        target_ids: (T,) int64 in [0, V).
        bias: (V,) float, or None.
        temperature: > 0.
        forbidden_ids: (F,) int64, or None. A forbidden target has log-probability -inf and no gradient of its own.
        process_group: ranks that hold consecutive rows of the head, in their order. Hidden states, ids and upstream
            gradients must be the same on all of them; the gradient of hidden is the whole one on each.
    Returns:
        logprobs (T,) and entropy (T,), float32, nats, both differentiable in hidden, weight and bias. float64 inputs
        are computed and returned in float64, by the reference.
    Raises:
        ValueError: on shapes, types or devices that do not fit, a temperature that is not positive, and on a CPU on
            ids outside of the vocabulary; on a GPU, which is not waited for, those give NaN.
    """
    if not use_triton(hidden):
        return reference.token_logprobs(
            hidden,
            weight,
            target_ids,
            bias=bias,
            temperature=temperature,
            forbidden_ids=forbidden_ids,
            process_group=process_group,
        )
    check_head(hidden, weight, target_ids, bias, forbidden_ids)
    check_temperature(temperature)
    shard = vocab_shard(weight, process_group)
    shard.check_ids(target_ids, "target_ids")
    shard.check_ids(forbidden_ids, "forbidden_ids")
    logprobs, entropy = TokenLogprobs.apply(hidden, weight, bias, target_ids, forbidden_ids, 1.0 / temperature, shard)
    return logprobs, entropy


@torch.compiler.disable(reason=GRAPH_BREAK)
def token_logprobs_from_logits(
    logits: Tensor, target_ids: Tensor, *, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution softmax(logits / temperature).

    Args:
        logits: (T, V) float; -inf where a token cannot be.
        target_ids: (T,) int64 in [0, V).
        temperature: > 0.
    Returns:
        logprobs (T,) and entropy (T,), float32 (float64 for float64 logits), nats, both differentiable in logits.
    Raises:
        ValueError: as token_logprobs.
    """
    if not use_triton(logits):
        return reference.token_logprobs_from_logits(logits, target_ids, temperature=temperature)
    check_logits(logits, target_ids=target_ids)
    check_ids("target_ids", target_ids, logits.shape[:1])
    check_temperature(temperature)
    shard = VocabShard(0, logits.shape[1], logits.shape[1], None)
    shard.check_ids(target_ids, "target_ids")
    logprobs, entropy = TokenLogprobsFromLogits.apply(logits, target_ids, 1.0 / temperature)
    return shard.mark_unknown(logprobs, target_ids), entropy
