"""The policy loss over the head in one pass: loss, log-probs, KL, entropy and all gradients from logits computed once.

For each chunk of tokens: cuBLAS computes float32 logits; one Triton kernel reads each row twice, finds its softmax,
its loss and the derivative of the loss, and writes the gradient of the logits over them; cuBLAS multiplies that with
the head and with the hidden states. Against recomputation in the backward pass this saves a quarter of the matrix
products. It works for losses in which a token's gradient needs nothing of other tokens, see PolicyObjective; the
others go through token_logprobs.

Shapes: T tokens, H hidden, V vocabulary, F forbidden ids, R rows of a chunk.
"""

from typing import Any

import torch
import torch.distributed as dist
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels import objective as objective_terms
from geogrpo_kernels import reference
from geogrpo_kernels.checks import check_head, check_per_token, check_range_of_gradients, check_temperature
from geogrpo_kernels.head import Head, HeadGradients, gradient_view
from geogrpo_kernels.launch import GRAPH_BREAK, use_triton
from geogrpo_kernels.objective import KL_ESTIMATORS, SURROGATES, PolicyLoss, PolicyObjective, token_terms
from geogrpo_kernels.rows import (
    GROUPS,
    LANES_OF_BYTES,
    LN_2,
    LOWEST_LOGIT,
    NUM_WARPS,
    LogitGradient,
    row_statistics,
    row_statistics_of,
    store_logit_gradient,
    target_logit,
)
from geogrpo_kernels.shards import VocabShard, logprobs_and_entropy, reduce_statistics, vocab_shard

CLIP = tl.constexpr(SURROGATES.index("clip"))
CISPO = tl.constexpr(SURROGATES.index("cispo"))
SAPO = tl.constexpr(SURROGATES.index("sapo"))
K1 = tl.constexpr(KL_ESTIMATORS.index("k1"))
K2 = tl.constexpr(KL_ESTIMATORS.index("k2"))
MAX_LOG_RATIO = tl.constexpr(objective_terms.MAX_LOG_RATIO)


@triton.jit
def k3_kl(log_ratio):
    """exp(r) - 1 - r. Near 0, where that rounds away, its series; the next term is below 1e-8 of the value."""
    series = 1.0 + log_ratio / 5.0 * (1.0 + log_ratio / 6.0 * (1.0 + log_ratio / 7.0))
    series = log_ratio * log_ratio * 0.5 * (1.0 + log_ratio / 3.0 * (1.0 + log_ratio / 4.0 * series))
    return tl.where(tl.abs(log_ratio) < 0.125, series, tl.exp(log_ratio) - 1.0 - log_ratio)


@triton.jit
def kl_terms(log_ratio, KL_ESTIMATOR: tl.constexpr):
    """Estimate of the KL from ref - policy, and its derivative by the policy's log-prob."""
    if KL_ESTIMATOR == K1:
        kl = -log_ratio
        grad = 1.0
    elif KL_ESTIMATOR == K2:
        kl = log_ratio * log_ratio * 0.5
        grad = -log_ratio
    else:
        kl = k3_kl(log_ratio)
        grad = -(kl + log_ratio)
    return kl, grad


@triton.jit
def surrogate_terms(
    logprob, ratio, advantage, ratio_low, ratio_high, largest_ratio, tau_positive, tau_negative, SURROGATE: tl.constexpr
):
    """Loss of a token, its derivative by the log-prob, and whether a bound counted instead of the ratio."""
    clipped = tl.minimum(tl.maximum(ratio, ratio_low), ratio_high)
    if SURROGATE == CLIP:
        is_held = (advantage < 0.0) & (ratio > largest_ratio)
        bounded = tl.where(is_held, largest_ratio, ratio)
        is_outside = clipped * advantage < bounded * advantage
        loss = -tl.where(is_outside, clipped, bounded) * advantage
        is_clipped = is_outside | is_held
        grad = tl.where(is_clipped, 0.0, loss)
    elif SURROGATE == SAPO:
        tau = tl.where(advantage > 0.0, tau_positive, tau_negative)
        gate = tl.sigmoid(tau * (ratio - 1.0))
        # 1 - gate would round to 0 far from the sampling policy
        rest = tl.sigmoid(tau * (1.0 - ratio))
        loss = -advantage * (4.0 / tau) * gate
        grad = -advantage * 4.0 * gate * rest * ratio
        is_clipped = ratio != ratio
    elif SURROGATE == CISPO:
        is_clipped = clipped != ratio
        grad = -clipped * advantage
        loss = grad * logprob
    else:
        is_clipped = ratio != ratio
        grad = -advantage
        loss = grad * logprob
    return loss, grad, is_clipped


@triton.jit
def _policy_loss_kernel(
    x_ptr,
    x_stride,
    grad_ptr,
    grad_stride,
    targets_ptr,
    advantages_ptr,
    weights_ptr,
    old_logprobs_ptr,
    ref_logprobs_ptr,
    outputs_ptr,
    outputs_stride,
    num_cols,
    inv_temperature,
    ratio_low,
    ratio_high,
    largest_ratio,
    tau_positive,
    tau_negative,
    beta,
    entropy_coef,
    SURROGATE: tl.constexpr,
    KL_ESTIMATOR: tl.constexpr,
    HAS_OLD: tl.constexpr,
    HAS_REF: tl.constexpr,
    WRITE_GRAD: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
):
    # int64: 16384 rows of 152064 logits are more than 2**31
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    target = tl.load(targets_ptr + row)
    largest, total, weighted = row_statistics(x_ptr, num_cols, inv_temperature, GROUPS, LANES)
    log_total = tl.log2(total) * LN_2
    entropy = tl.where(largest <= LOWEST_LOGIT, float("nan"), log_total - weighted / total)
    x_target = target_logit(x_ptr, target, num_cols)
    logprob = (x_target - largest) * inv_temperature - log_total
    logprob = tl.where(x_target <= LOWEST_LOGIT, float("-inf"), logprob)
    is_known = (target >= 0) & (target < num_cols) & (largest > LOWEST_LOGIT)
    logprob = tl.where(is_known, logprob, float("nan"))

    ratio = 1.0
    if HAS_OLD:
        log_ratio = logprob - tl.load(old_logprobs_ptr + row)
        ratio = tl.exp(tl.minimum(tl.maximum(log_ratio, -MAX_LOG_RATIO), MAX_LOG_RATIO))
    advantage = tl.load(advantages_ptr + row)
    loss, grad_logprob, is_clipped = surrogate_terms(
        logprob, ratio, advantage, ratio_low, ratio_high, largest_ratio, tau_positive, tau_negative, SURROGATE
    )
    kl = 0.0
    if HAS_REF:
        kl, grad_kl = kl_terms(tl.load(ref_logprobs_ptr + row) - logprob, KL_ESTIMATOR)
        # It may be infinite where it is only logged.
        loss += tl.where(beta == 0.0, 0.0, beta * kl)
        grad_logprob += tl.where(beta == 0.0, 0.0, beta * grad_kl)
    weight = tl.load(weights_ptr + row)
    # A masked token may hold anything, infinity included: 0 * inf would be NaN.
    loss = tl.where(weight == 0.0, 0.0, weight * (loss - entropy_coef * entropy))
    grad_logprob = tl.where(weight == 0.0, 0.0, weight * grad_logprob)

    outputs_ptr += row
    tl.store(outputs_ptr, loss)
    tl.store(outputs_ptr + outputs_stride, logprob)
    tl.store(outputs_ptr + 2 * outputs_stride, entropy)
    tl.store(outputs_ptr + 3 * outputs_stride, kl)
    tl.store(outputs_ptr + 4 * outputs_stride, is_clipped.to(tl.float32))
    if WRITE_GRAD:
        store_logit_gradient(
            x_ptr,
            grad_ptr + row * grad_stride,
            target,
            num_cols,
            inv_temperature,
            largest,
            log_total,
            entropy,
            grad_logprob,
            -entropy_coef * weight,
            True,
            GROUPS * LANES,
        )


def _policy_loss_rows(
    logits: Tensor,
    grad: Tensor | None,
    targets: Tensor,
    objective: PolicyObjective,
    rows: slice,
    outputs: Tensor,
    inv_temperature: float,
) -> None:
    """Fill columns `rows` of the (5, T) outputs: loss, logprob, entropy, kl, is_clipped; and grad over the logits."""
    old, ref = objective.old_logprobs, objective.ref_logprobs
    chunk = outputs[:, rows]
    with torch.cuda.device_of(logits):
        _policy_loss_kernel[(len(logits),)](
            logits,
            logits.stride(0),
            grad,
            0 if grad is None else grad.stride(0),
            targets,
            objective.advantages[rows],
            objective.token_weights[rows],
            None if old is None else old[rows],
            None if ref is None else ref[rows],
            chunk,
            chunk.stride(0),
            logits.shape[1],
            inv_temperature,
            1.0 - objective.clip_low,
            1.0 + objective.clip_high,
            objective.largest_ratio,
            objective.tau_positive,
            objective.tau_negative,
            objective.beta,
            objective.entropy_coef,
            SURROGATE=SURROGATES.index(objective.surrogate),
            KL_ESTIMATOR=KL_ESTIMATORS.index(objective.kl_estimator),
            HAS_OLD=old is not None,
            HAS_REF=ref is not None,
            WRITE_GRAD=grad is not None,
            GROUPS=GROUPS,
            LANES=LANES_OF_BYTES[logits.element_size()],
            num_warps=NUM_WARPS,
        )


def _sharded_policy_loss_rows(
    logits: Tensor,
    grad: Tensor | None,
    targets: Tensor,
    objective: PolicyObjective,
    rows: slice,
    outputs: Tensor,
    inv_temperature: float,
    shard: VocabShard,
) -> None:
    """As _policy_loss_rows, with the statistics of the rows reduced over the ranks in between."""
    statistics = reduce_statistics(row_statistics_of(logits, targets, inv_temperature), inv_temperature, shard)
    logprobs, entropy = logprobs_and_entropy(statistics, inv_temperature)
    logprobs = shard.mark_unknown(logprobs, targets + shard.start)
    terms = token_terms(logprobs, entropy, objective, rows)
    outputs[:, rows] = torch.stack([terms.loss, logprobs, entropy, terms.kl, terms.is_clipped.float()])
    if grad is not None:
        rule = LogitGradient(
            statistics[0],
            statistics[1].log(),
            entropy,
            terms.grad_logprobs.contiguous(),
            terms.grad_entropy.contiguous(),
            inv_temperature,
        )
        rule.write(logits, grad, slice(None), targets)


class LinearGRPOLoss(torch.autograd.Function):
    """The forward pass computes the gradients, too; the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        target_ids: Tensor,
        forbidden_ids: Tensor | None,
        objective: PolicyObjective,
        inv_temperature: float,
        shard: VocabShard,
        wants_grad: bool,
    ) -> tuple[Tensor, ...]:
        targets = shard.local_ids(target_ids)
        head = Head(weight, bias, forbidden_ids, shard, len(hidden))
        gradients = HeadGradients(hidden, head, ctx.needs_input_grad[:3] if wants_grad else (False, False, False))
        outputs = torch.empty(5, len(hidden), dtype=torch.float32, device=hidden.device)
        for rows in head.chunks:
            logits = head.logits(hidden[rows])
            grad = gradient_view(logits, hidden.dtype) if gradients.are_needed else None
            chunk = (logits, grad, targets[rows], objective, rows, outputs, inv_temperature)
            if shard.is_whole:
                _policy_loss_rows(*chunk)
            else:
                _sharded_policy_loss_rows(*chunk, shard)
            if grad is not None:
                gradients.add(grad, rows)
        ctx.save_for_backward(*gradients.finished())
        ctx.dtypes = hidden.dtype, weight.dtype, weight.dtype if bias is None else bias.dtype
        loss, logprobs, entropy, kl, is_clipped = outputs.unbind()
        results = (loss.sum(), logprobs, entropy, kl, is_clipped.bool())
        ctx.mark_non_differentiable(*results[1:])
        return results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (
            # Scaled and rounded in one pass; a float32 copy of a head is gigabytes.
            None if grad is None else torch.mul(grad, grad_loss, out=torch.empty_like(grad, dtype=dtype))
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*gradients, None, None, None, None, None, None)


@torch.compiler.disable(reason=GRAPH_BREAK)
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
    """Policy loss of given tokens and its gradients from hidden states and the head, in one pass over the logits.

    The distributions are those of token_logprobs. The gradients are computed in the forward pass, for the inputs that
    require one; backward scales them. Only `loss` has a gradient. Extra memory: a chunk of logits, the gradient
    of hidden and, for a weight that trains, its gradient in float32, in backward also in the weight's type.

    Args:
        hidden: (T, H) float.
        weight: (V, H), the language-model head, in hidden's dtype; with a process group, this rank's rows of it.
        target_ids: (T,) int64 in [0, V).
        objective: what is minimised.
        bias: (V,) float, or None.
        temperature: > 0.
        forbidden_ids: (F,) int64, or None.
        process_group: as in token_logprobs.
    Returns:
        PolicyLoss in float32 (float64 for float64 inputs).
    Raises:
        ValueError: as token_logprobs, and when the objective's tensors are not (T,) on the same device.
    """
    check_head(hidden, weight, target_ids, bias, forbidden_ids)
    check_range_of_gradients(hidden)
    check_temperature(temperature)
    check_per_token(len(hidden), hidden.device, advantages=objective.advantages)
    if not use_triton(hidden):
        return reference.linear_grpo_loss(
            hidden,
            weight,
            target_ids,
            objective,
            bias=bias,
            temperature=temperature,
            forbidden_ids=forbidden_ids,
            process_group=process_group,
        )
    shard = vocab_shard(weight, process_group)
    shard.check_ids(target_ids, "target_ids")
    shard.check_ids(forbidden_ids, "forbidden_ids")
    return PolicyLoss(
        *LinearGRPOLoss.apply(
            hidden,
            weight,
            bias,
            target_ids,
            forbidden_ids,
            objective.as_float32(),
            1.0 / temperature,
            shard,
            torch.is_grad_enabled(),
        )
    )
