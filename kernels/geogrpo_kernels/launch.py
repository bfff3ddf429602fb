"""What every launcher needs: the choice between kernel and reference, and float32 matrix products."""

import logging
import os

import torch
import triton
from torch import Tensor

logger = logging.getLogger(__name__)

GRAPH_BREAK = "geogrpo_kernels launches its own kernels: leave out fullgraph=True, the break costs next to nothing"
"""Why torch.compile does not look into an op. A caller that is compiled works, in two graphs."""

BACKENDS = ("auto", "reference", "triton")

is_interpreted = triton.knobs.runtime.interpret
"""Whether Triton kernels run in its interpreter, on CPU tensors: decided by TRITON_INTERPRET=1 at the first import."""

_logged: set[str] = set()


def use_triton(tensor: Tensor) -> bool:
    """Whether ops on `tensor` run as Triton kernels instead of as their reference.

    On a GPU they do, on a CPU they do not, unless the environment variable GEOGRPO_KERNELS forces "reference" or
    "triton" (on a CPU only for tests, in Triton's interpreter). The choice is logged once. float64 is for the
    reference alone.

    Raises:
        ValueError: when GEOGRPO_KERNELS is none of these, or asks for kernels that cannot run on this tensor.
    """
    forced = os.environ.get("GEOGRPO_KERNELS", "auto")
    if forced not in BACKENDS:
        raise ValueError(f"GEOGRPO_KERNELS must be one of {', '.join(BACKENDS)}, got {forced!r}.")
    if forced == "triton" and not (tensor.is_cuda or is_interpreted):
        raise ValueError(f"GEOGRPO_KERNELS=triton, but a tensor is on {tensor.device}; kernels need a GPU.")
    chosen = forced == "triton" or (forced == "auto" and tensor.is_cuda)
    chosen = chosen and tensor.dtype != torch.float64
    message = f"{tensor.device.type} {tensor.dtype}: {'Triton kernels' if chosen else 'PyTorch reference'}"
    if message not in _logged:
        _logged.add(message)
        logger.info("geogrpo_kernels on %s", message)
    return chosen


def matmul_f32(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a @ b into a float32 `out`. Half-precision operands are multiplied as they are and summed in float32."""
    if a.dtype == torch.float32:
        return torch.mm(a, b, out=out)
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32, out=out)
    return torch.mm(a.float(), b.float(), out=out)


def matmul_rounded(a: Tensor, b: Tensor, out: Tensor) -> Tensor:
    """a @ b into `out` of their type, summed in float32.

    On a CPU in float32 throughout: with AMX, oneDNN's half-precision product reads on beyond a row whose length is no
    multiple of 32, and takes NaN from there (torch 2.13), where the rows of `a` are parts of longer ones.
    """
    if a.dtype == torch.float32 or a.is_cuda:
        return torch.mm(a, b, out=out)
    return out.copy_(a.float() @ b.float())


def add_matmul_f32(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add a @ b to the float32 `total`, in place, without rounding the product first."""
    if a.dtype == torch.float32:
        return total.addmm_(a, b)
    if a.is_cuda:
        return torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    return total.addmm_(a.float(), b.float())
