"""Checks of arguments that several ops share. Each raises ValueError with what was expected and what came."""

import torch
from torch import Tensor

FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_head(
    hidden: Tensor, weight: Tensor, target_ids: Tensor, bias: Tensor | None, forbidden_ids: Tensor | None
) -> None:
    """Check hidden states, a language-model head and target ids.

    Args:
        hidden: must be (T, H) float.
        weight: must be (V, H), in hidden's dtype.
        target_ids: must be (T,) int64.
        bias: must be (V,) or None.
        forbidden_ids: must be (F,) int64 or None.
    """
    _check_product(hidden, weight)
    check_ids("target_ids", target_ids, hidden.shape[:1])
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias must be ({len(weight)},), got {tuple(bias.shape)}.")
    if forbidden_ids is not None:
        check_ids("forbidden_ids", forbidden_ids, forbidden_ids.shape[:1])
    _check_device(hidden, weight=weight, target_ids=target_ids, bias=bias, forbidden_ids=forbidden_ids)


def check_two_heads(
    hidden: Tensor, weight: Tensor, ref_hidden: Tensor, ref_weight: Tensor, forbidden_ids: Tensor | None
) -> None:
    """Check hidden states and heads of a policy and its reference.

    Args:
        hidden, weight: must be (T, H) and (V, H) float, of one dtype.
        ref_hidden, ref_weight: must be (T, K) and (V, K) float, of one dtype; float64 where hidden is.
        forbidden_ids: must be (F,) int64 or None.
    """
    _check_product(hidden, weight)
    _check_product(ref_hidden, ref_weight, "ref_")
    if len(ref_hidden) != len(hidden):
        raise ValueError(f"ref_hidden must have the {len(hidden)} tokens of hidden, got {len(ref_hidden)}.")
    if len(ref_weight) != len(weight):
        raise ValueError(f"ref_weight must have the {len(weight)} rows of weight, got {len(ref_weight)}.")
    if (ref_hidden.dtype == torch.float64) != (hidden.dtype == torch.float64):
        raise ValueError(f"ref_hidden must be float64 where hidden is, got {ref_hidden.dtype} and {hidden.dtype}.")
    if forbidden_ids is not None:
        check_ids("forbidden_ids", forbidden_ids, forbidden_ids.shape[:1])
    _check_device(hidden, weight=weight, ref_hidden=ref_hidden, ref_weight=ref_weight, forbidden_ids=forbidden_ids)


def check_range_of_gradients(hidden: Tensor) -> None:
    """Check that gradients of a loss divided by thousands of tokens do not underflow in the type of hidden."""
    if hidden.dtype == torch.float16:
        raise ValueError("float16 gradients, formed before a gradient scaler acts, underflow: use bfloat16 or float32.")


def check_logits(logits: Tensor, **others: Tensor | None) -> None:
    """Check that logits are (T, V) float with V > 0, and that the others live on their device."""
    if logits.ndim != 2 or logits.shape[1] == 0 or logits.dtype not in FLOAT_TYPES:
        raise ValueError(f"logits must be (T, V) float with V > 0, got {tuple(logits.shape)} {logits.dtype}.")
    _check_device(logits, **others)


def check_same_logits(logits: Tensor, ref_logits: Tensor) -> None:
    """Check that two matrices of logits have one shape, type and device."""
    if logits.shape != ref_logits.shape or logits.dtype != ref_logits.dtype:
        got = f"{tuple(ref_logits.shape)} {ref_logits.dtype}"
        raise ValueError(f"ref_logits must be {tuple(logits.shape)} {logits.dtype} like logits, got {got}.")
    _check_device(logits, ref_logits=ref_logits)


def check_ids(name: str, ids: Tensor, shape: torch.Size) -> None:
    """Check that ids are int64 and of this shape."""
    if ids.shape != shape or ids.ndim != 1 or ids.dtype != torch.int64:
        raise ValueError(f"{name} must be {tuple(shape)} int64, got {tuple(ids.shape)} {ids.dtype}.")


def check_per_token(num_tokens: int, device: torch.device, **values: Tensor | None) -> None:
    """Check that every given tensor is (T,) float on the device."""
    for name, value in values.items():
        if value is None:
            continue
        if value.shape != (num_tokens,) or value.dtype not in FLOAT_TYPES:
            raise ValueError(f"{name} must be ({num_tokens},) float, got {tuple(value.shape)} {value.dtype}.")
        if value.device != device:
            raise ValueError(f"{name} must be on {device}, got {value.device}.")


def check_temperature(temperature: float) -> None:
    """Check that a temperature is positive and finite."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be > 0, got {temperature}. Greedy decoding needs no log-probabilities.")


def _check_product(hidden: Tensor, weight: Tensor, prefix: str = "") -> None:
    states, head = f"{prefix}hidden", f"{prefix}weight"
    if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(
            f"{states} must be (T, H) and {head} (V, H), got {tuple(hidden.shape)}, {tuple(weight.shape)}."
        )
    if hidden.dtype not in FLOAT_TYPES or hidden.dtype != weight.dtype:
        raise ValueError(f"{states} and {head} must have one float dtype, got {hidden.dtype} and {weight.dtype}.")


def _check_device(first: Tensor, **others: Tensor | None) -> None:
    for name, other in others.items():
        if other is not None and other.device != first.device:
            raise ValueError(f"{name} must be on {first.device}, got {other.device}.")
