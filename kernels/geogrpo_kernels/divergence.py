"""KL divergence of the policy from the reference, estimated from sampled tokens or exact over the vocabulary.

linear_divergence.py has the exact one from hidden states, without the logits of all tokens.

Shapes: T tokens, V vocabulary.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels import reference
from geogrpo_kernels.checks import check_logits, check_same_logits, check_temperature
from geogrpo_kernels.launch import GRAPH_BREAK, use_triton
from geogrpo_kernels.logprobs import token_logprobs_from_logits
from geogrpo_kernels.objective import KL_ESTIMATORS
from geogrpo_kernels.reference.divergence import kl_estimate
from geogrpo_kernels.rows import (
    GROUPS,
    LANES_OF_BYTES,
    LN_2,
    LOG2_E,
    LOWEST_LOGIT,
    NUM_WARPS,
    load_logits,
    row_statistics,
    store_rounded,
)


@triton.jit
def probs_and_log_ratio(x_ptr, y_ptr, cols, num_cols, inv_temperature, x_largest, x_log_total, y_largest, y_log_total):
    """p and log(p / q) of some columns, 0 where p is 0."""
    x = load_logits(x_ptr, cols, num_cols)
    y = load_logits(y_ptr, cols, num_cols)
    logprob = (x - x_largest) * inv_temperature - x_log_total
    ref_logprob = (y - y_largest) * inv_temperature - y_log_total
    ref_logprob = tl.where(y <= LOWEST_LOGIT, float("-inf"), ref_logprob)
    p = tl.exp2(logprob * LOG2_E)
    return p, tl.where(p == 0.0, 0.0, logprob - ref_logprob)


@triton.jit
def _exact_kl_kernel(
    x_ptr,
    x_stride,
    y_ptr,
    y_stride,
    statistics_ptr,
    statistics_stride,
    num_cols,
    inv_temperature,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
):
    # int64: 16384 rows of 152064 logits are more than 2**31
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    x_largest, x_total, _ = row_statistics(x_ptr, num_cols, inv_temperature, GROUPS, LANES)
    y_largest, y_total, _ = row_statistics(y_ptr, num_cols, inv_temperature, GROUPS, LANES)
    x_log_total = tl.log2(x_total) * LN_2
    y_log_total = tl.log2(y_total) * LN_2
    kl = tl.zeros([LANES], tl.float32)
    offsets = tl.arange(0, GROUPS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    for start in range(0, num_cols, GROUPS * LANES):
        cols = start + offsets
        p, log_ratio = probs_and_log_ratio(
            x_ptr, y_ptr, cols, num_cols, inv_temperature, x_largest, x_log_total, y_largest, y_log_total
        )
        kl += tl.sum(tl.where(cols < num_cols, p * log_ratio, 0.0), 0)
    statistics_ptr += row
    tl.store(statistics_ptr, tl.sum(kl, 0))
    tl.store(statistics_ptr + statistics_stride, x_largest)
    tl.store(statistics_ptr + 2 * statistics_stride, x_log_total)
    tl.store(statistics_ptr + 3 * statistics_stride, y_largest)
    tl.store(statistics_ptr + 4 * statistics_stride, y_log_total)


@triton.jit
def _exact_kl_gradient_kernel(
    x_ptr,
    x_stride,
    y_ptr,
    y_stride,
    grad_ptr,
    grad_stride,
    statistics_ptr,
    grad_kl_ptr,
    statistics_stride,
    num_cols,
    inv_temperature,
    IN_PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    y_ptr += row * y_stride
    grad_ptr += row * grad_stride
    statistics_ptr += row
    kl = tl.load(statistics_ptr)
    x_largest = tl.load(statistics_ptr + statistics_stride)
    x_log_total = tl.load(statistics_ptr + 2 * statistics_stride)
    y_largest = tl.load(statistics_ptr + 3 * statistics_stride)
    y_log_total = tl.load(statistics_ptr + 4 * statistics_stride)
    grad_kl = tl.load(grad_kl_ptr + row) * inv_temperature
    for start in range(0, num_cols, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        p, log_ratio = probs_and_log_ratio(
            x_ptr, y_ptr, cols, num_cols, inv_temperature, x_largest, x_log_total, y_largest, y_log_total
        )
        # Exactly 0 without an upstream gradient, whatever the logits are
        grad = tl.where(grad_kl == 0.0, 0.0, p * (log_ratio - kl) * grad_kl)
        # As in store_logit_gradient
        if IN_PLACE:
            tl.debug_barrier()
        store_rounded(grad_ptr + cols, grad, cols < num_cols)


def exact_kl_rows(logits: Tensor, ref_logits: Tensor, statistics: Tensor, inv_temperature: float) -> None:
    """Fill (5, R) `statistics` of two (R, V) matrices: KL, then of each the largest logit and the log of the sum."""
    num_rows, num_cols = logits.shape
    with torch.cuda.device_of(logits):
        _exact_kl_kernel[(num_rows,)](
            logits,
            logits.stride(0),
            ref_logits,
            ref_logits.stride(0),
            statistics,
            statistics.stride(0),
            num_cols,
            inv_temperature,
            GROUPS=GROUPS,
            LANES=LANES_OF_BYTES[logits.element_size()],
            num_warps=NUM_WARPS,
        )


def exact_kl_gradient_rows(
    logits: Tensor, ref_logits: Tensor, statistics: Tensor, grad_kl: Tensor, grad: Tensor, inv_temperature: float
) -> None:
    """Fill (R, V) `grad`, which may share memory with the logits as gradient_view has it, from an (R,) upstream one."""
    num_rows, num_cols = logits.shape
    with torch.cuda.device_of(logits):
        _exact_kl_gradient_kernel[(num_rows,)](
            logits,
            logits.stride(0),
            ref_logits,
            ref_logits.stride(0),
            grad,
            grad.stride(0),
            statistics,
            grad_kl,
            statistics.stride(0),
            num_cols,
            inv_temperature,
            IN_PLACE=grad.data_ptr() == logits.data_ptr(),
            BLOCK=GROUPS * LANES_OF_BYTES[logits.element_size()],
            num_warps=NUM_WARPS,
        )


class ExactKL(torch.autograd.Function):
    """Keeps both matrices of the caller (copies, if their rows are not next to each other) and five numbers per row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ref_logits: Tensor, inv_temperature: float) -> Tensor:
        logits, ref_logits = logits.contiguous(), ref_logits.contiguous()
        statistics = torch.empty(5, len(logits), dtype=torch.float32, device=logits.device)
        exact_kl_rows(logits, ref_logits, statistics, inv_temperature)
        ctx.save_for_backward(logits, ref_logits, statistics)
        ctx.inv_temperature = inv_temperature
        return statistics[0].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        logits, ref_logits, statistics = ctx.saved_tensors
        grad = torch.empty_like(logits)
        exact_kl_gradient_rows(logits, ref_logits, statistics, grad_kl.contiguous(), grad, ctx.inv_temperature)
        return grad, None, None


@torch.compiler.disable(reason=GRAPH_BREAK)
def exact_kl_from_logits(logits: Tensor, ref_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """KL(policy || reference) over the whole vocabulary, at each token.

    Args:
        logits: (T, V) float of the policy; -inf where a token cannot be.
        ref_logits: (T, V) of the reference, in the same type; taken as constants.
        temperature: > 0, of both.
    Returns:
        (T,) float32 (float64 for float64 logits), nats, differentiable in logits. Infinite where the reference rules
        out a token that the policy does not.
    Raises:
        ValueError: on shapes, types or devices that differ, or a temperature that is not positive.
    """
    if not use_triton(logits):
        return reference.exact_kl_from_logits(logits, ref_logits, temperature=temperature)
    check_logits(logits)
    check_same_logits(logits, ref_logits)
    check_temperature(temperature)
    return ExactKL.apply(logits, ref_logits.detach(), 1.0 / temperature)


def sampled_kl_from_logits(
    logits: Tensor, ref_logits: Tensor, target_ids: Tensor, *, estimator: str = "k3", temperature: float = 1.0
) -> Tensor:
    """kl_estimate at each token, from logits: each matrix is read once, and its gradient written once.

    Args:
        logits: (T, V) float of the policy.
        ref_logits: (T, V) of the reference; taken as constants.
        target_ids: (T,) int64, the tokens that were sampled.
        estimator: "k1", "k2" or "k3".
        temperature: > 0, of both.
    Returns:
        (T,) float32 (float64 for float64 logits), nats, differentiable in logits.
    Raises:
        ValueError: as token_logprobs_from_logits and kl_estimate.
    """
    ref_logprobs, _ = token_logprobs_from_logits(ref_logits.detach(), target_ids, temperature=temperature)
    policy_logprobs, _ = token_logprobs_from_logits(logits, target_ids, temperature=temperature)
    return kl_estimate(policy_logprobs, ref_logprobs, estimator)


__all__ = ["KL_ESTIMATORS", "exact_kl_from_logits", "kl_estimate", "sampled_kl_from_logits"]
