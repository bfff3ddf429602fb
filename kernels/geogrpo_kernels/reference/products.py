"""Products of the reference, in the inputs' type also under autocast, which would round them to half precision."""

import torch
from torch import Tensor

# oneDNN's float32 product by its own name: PyTorch's goes to MKL, which reaches half of its speed on AMD (150 to 240
# against 60 to 108 GFLOP/s per core there) and is no more accurate.
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """(R, K) @ (C, K).T -> (R, C), in the inputs' type."""
    is_float32_on_cpu = x.device.type == "cpu" and x.dtype == torch.float32
    with torch.autocast(x.device.type, enabled=False):
        if HAS_ONEDNN and is_float32_on_cpu and x.numel() and weight.numel():
            return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return x @ weight.T


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum of a * b along each row: two (R, C) -> (R,)."""
    with torch.autocast(a.device.type, enabled=False):
        return torch.linalg.vecdot(a, b)
