"""Rows of logits in Triton: their softmax statistics, and the gradient of the logits.

The functions over one row are shared by the kernels of every op that reads logits.

A row is read in blocks of (GROUPS, LANES). Each lane keeps its own running maximum and sums, rescaled once per block:
that is 1 + 1 / GROUPS exponentials per logit, and no barrier until the end of the row.

Numbers follow shards.py: the largest logit, the sum of exp(y) and the sum of exp(y) * y with
y = (logit - largest) / temperature. The largest is subtracted before anything is scaled, so that an offset common to
all logits costs no digits. Logits are converted to float32 right after each load: Triton's interpreter computes
bfloat16 wrongly, and the hardware should not.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from geogrpo_kernels.launch import is_interpreted

LOWEST_LOGIT = tl.constexpr(-1e20)
LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
IS_INTERPRETED = tl.constexpr(is_interpreted)

# 8 warps, 16 bytes per thread and load: 4 float32 or 8 half-precision logits
NUM_WARPS = 8
GROUPS = 4
LANES_OF_BYTES = {2: 2048, 4: 1024}


@triton.jit
def load_logits(x_ptr, cols, num_cols):
    """Logits of a row as float32; beyond the end, and where they are -inf, LOWEST_LOGIT. NaN stays."""
    x = tl.load(x_ptr + cols, mask=cols < num_cols, other=LOWEST_LOGIT).to(tl.float32)
    return tl.where(x < LOWEST_LOGIT, LOWEST_LOGIT, x)


@triton.jit
def row_statistics(x_ptr, num_cols, inv_temperature, GROUPS: tl.constexpr, LANES: tl.constexpr):
    """Largest logit, sum of exp(y), sum of exp(y) * y of one row."""
    scale = inv_temperature * LOG2_E
    largest = tl.full([LANES], LOWEST_LOGIT, tl.float32)
    total = tl.zeros([LANES], tl.float32)
    weighted = tl.zeros([LANES], tl.float32)
    offsets = tl.arange(0, GROUPS)[:, None] * LANES + tl.arange(0, LANES)[None, :]
    for start in range(0, num_cols, GROUPS * LANES):
        x = load_logits(x_ptr, start + offsets, num_cols)
        new_largest = tl.maximum(largest, tl.max(x, 0))
        shift = (largest - new_largest) * scale
        y = (x - new_largest[None, :]) * scale
        e = tl.exp2(y)
        factor = tl.exp2(shift)
        weighted = factor * (weighted + total * shift) + tl.sum(e * y, 0)
        total = factor * total + tl.sum(e, 0)
        largest = new_largest
    row_largest = tl.max(largest, 0)
    shift = (largest - row_largest) * scale
    factor = tl.exp2(shift)
    row_weighted = tl.sum(factor * (weighted + total * shift), 0) * LN_2
    return row_largest, tl.sum(factor * total, 0), row_weighted


@triton.jit
def store_rounded(ptr, x, mask):
    """Store float32 in the pointer's type, rounded to nearest: on its own the interpreter cuts bfloat16 off."""
    if IS_INTERPRETED and ptr.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        # The bits below are cleared: beside an exponent of 0 the interpreter would take them for a number.
        x = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).to(tl.float32, bitcast=True)
    tl.store(ptr, x.to(ptr.dtype.element_ty), mask=mask)


@triton.jit
def target_logit(x_ptr, target, num_cols):
    """The logit in column `target`, 0 where the row does not have it."""
    is_inside = (target >= 0) & (target < num_cols)
    x = tl.load(x_ptr + target, mask=is_inside, other=0.0).to(tl.float32)
    return tl.where(x < LOWEST_LOGIT, LOWEST_LOGIT, x)


@triton.jit
def store_logit_gradient(
    x_ptr,
    grad_ptr,
    target,
    num_cols,
    inv_temperature,
    largest,
    log_total,
    entropy,
    grad_logprob,
    grad_entropy,
    IN_PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Gradient of one row's logits from those of its log-prob and entropy.

    (onehot - p) * grad_logprob - p * (log p + entropy) * grad_entropy, over the temperature; p - 1 is formed in
    float32, before anything is rounded to the type of the gradient. A row without upstream gradient is exactly 0,
    whatever its logits are.

    IN_PLACE: the gradient takes the place of the logits, in elements no wider than theirs. A block of it then covers
    logits of this block and of earlier ones only, and the barrier keeps a fast warp from overwriting what a slow one
    has not read yet.
    """
    is_needed = (grad_logprob != 0.0) | (grad_entropy != 0.0)
    for start in range(0, num_cols, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        x = load_logits(x_ptr, cols, num_cols)
        logprob = (x - largest) * inv_temperature - log_total
        p = tl.exp2(logprob * LOG2_E)
        grad = tl.where(cols == target, 1.0 - p, -p) * grad_logprob - p * (logprob + entropy) * grad_entropy
        grad = tl.where(is_needed, grad * inv_temperature, 0.0)
        if IN_PLACE:
            tl.debug_barrier()
        store_rounded(grad_ptr + cols, grad, cols < num_cols)


@triton.jit
def _row_statistics_kernel(
    x_ptr,
    x_stride,
    targets_ptr,
    statistics_ptr,
    num_rows,
    num_cols,
    inv_temperature,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
):
    # int64: 16384 rows of 152064 logits are more than 2**31
    row = tl.program_id(0).to(tl.int64)
    x_ptr += row * x_stride
    largest, total, weighted = row_statistics(x_ptr, num_cols, inv_temperature, GROUPS, LANES)
    statistics_ptr += row
    tl.store(statistics_ptr, largest)
    tl.store(statistics_ptr + num_rows, total)
    tl.store(statistics_ptr + 2 * num_rows, weighted)
    tl.store(statistics_ptr + 3 * num_rows, target_logit(x_ptr, tl.load(targets_ptr + row), num_cols))


@triton.jit
def _logit_gradient_kernel(
    x_ptr,
    x_stride,
    grad_ptr,
    grad_stride,
    targets_ptr,
    largest_ptr,
    log_total_ptr,
    entropy_ptr,
    grad_logprobs_ptr,
    grad_entropy_ptr,
    num_cols,
    inv_temperature,
    IN_PLACE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    store_logit_gradient(
        x_ptr + row * x_stride,
        grad_ptr + row * grad_stride,
        tl.load(targets_ptr + row),
        num_cols,
        inv_temperature,
        tl.load(largest_ptr + row),
        tl.load(log_total_ptr + row),
        tl.load(entropy_ptr + row),
        tl.load(grad_logprobs_ptr + row),
        tl.load(grad_entropy_ptr + row),
        IN_PLACE,
        BLOCK,
    )


def row_statistics_of(logits: Tensor, targets: Tensor, inv_temperature: float) -> Tensor:
    """(4, R) statistics, see shards, of (R, V) logits whose rows are contiguous; (R,) columns of the targets."""
    num_rows, num_cols = logits.shape
    statistics = torch.empty(4, num_rows, dtype=torch.float32, device=logits.device)
    with torch.cuda.device_of(logits):
        _row_statistics_kernel[(num_rows,)](
            logits,
            logits.stride(0),
            targets,
            statistics,
            num_rows,
            num_cols,
            inv_temperature,
            GROUPS=GROUPS,
            LANES=LANES_OF_BYTES[logits.element_size()],
            num_warps=NUM_WARPS,
        )
    return statistics


@dataclass(frozen=True)
class LogitGradient:
    """What the logits get from upstream gradients of log-prob and entropy. Every tensor is (T,) float32."""

    largest: Tensor
    log_total: Tensor
    entropy: Tensor
    grad_logprobs: Tensor
    grad_entropy: Tensor
    inv_temperature: float

    def write(self, logits: Tensor, grad: Tensor, rows: slice, targets: Tensor) -> None:
        """Fill the (R, V) `grad`, which may share memory with the logits as gradient_view has it."""
        num_rows, num_cols = logits.shape
        with torch.cuda.device_of(logits):
            _logit_gradient_kernel[(num_rows,)](
                logits,
                logits.stride(0),
                grad,
                grad.stride(0),
                targets,
                self.largest[rows],
                self.log_total[rows],
                self.entropy[rows],
                self.grad_logprobs[rows],
                self.grad_entropy[rows],
                num_cols,
                self.inv_temperature,
                IN_PLACE=grad.data_ptr() == logits.data_ptr(),
                BLOCK=GROUPS * LANES_OF_BYTES[logits.element_size()],
                num_warps=NUM_WARPS,
            )
