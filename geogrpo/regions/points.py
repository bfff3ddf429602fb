"""Points as callers have them -> arrays that native code takes."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

_FLOATS = (np.dtype(np.float64), np.dtype(np.float32))


def check_points(latlon_deg: Any) -> Any:
    """A tensor as it is; anything else as a NumPy array of its own dtype.

    Raises:
        ValueError: unless these are (..., 2) real numbers.
    """
    points = latlon_deg if isinstance(latlon_deg, Tensor) else _numpy_points(latlon_deg)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"latlon_deg must be (..., 2), got {tuple(points.shape)}.")
    if isinstance(points, Tensor) and (points.is_complex() or points.dtype == torch.bool):
        raise ValueError(f"latlon_deg must be real numbers, got {points.dtype}.")
    return points


def _numpy_points(latlon_deg: Any) -> np.ndarray:
    if isinstance(latlon_deg, np.ma.MaskedArray):
        # What is behind a mask would be looked up as if it were meant.
        raise ValueError("latlon_deg must not be a masked array; a point that is none is NaN: points.filled(np.nan).")
    try:
        points = np.asarray(latlon_deg)
    except ValueError as error:
        raise ValueError(f"latlon_deg must be (..., 2) numbers: {error}") from error
    if points.dtype.kind not in "fiu":
        raise ValueError(f"latlon_deg must be real numbers, got {points.dtype}.")
    return points


def contiguous_points(points: np.ndarray) -> np.ndarray:
    """The points in a row, float32 and float64 as they are, anything else as float64."""
    return np.ascontiguousarray(points, points.dtype if points.dtype in _FLOATS else np.float64)


def float_tensor(points: Tensor) -> Tensor:
    """The same for tensors: bfloat16 and float16 are float64 without loss."""
    points = points.detach()
    return (points if points.dtype in (torch.float32, torch.float64) else points.double()).contiguous()
