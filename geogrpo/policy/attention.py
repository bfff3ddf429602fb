"""Attention as transformers calls it, for packed rows and for images.

Registered with transformers' AttentionInterface; nothing is patched. Who sees whom in a packed row comes as the keyword
`layout` (layouts.py, decoding.py) that model forwards pass down to every attention layer.

Shapes: T packed tokens, H heads, K key-value heads, D head dim, N sequences.
"""

import inspect
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

ATTENTION_NAME = "geogrpo_shared_prefix"
# transformers hands cumulative lengths, and so all images in one call, only to implementations with "flash" in their
# name; any other is called once per image and layer.
IMAGE_ATTENTION_NAME = "geogrpo_flash_images"

HALF_TYPES = (torch.bfloat16, torch.float16)
# At most this many keys, matrix products with a softmax between beat the fused CPU kernel, forward and backward. On one
# core in bfloat16: 64 keys 2 ms against 7, 318 keys 19 against 24, 1,024 keys 144 against 97.
_MATMUL_MAX_KEYS = {torch.bfloat16: 512}
_MATMUL_MAX_KEYS_OTHERWISE = 256


class Layout(Protocol):
    """How the tokens of a row may see each other."""

    scored_rows: Tensor | None
    """(R,) int64 the tokens whose last hidden state is wanted, in order; None for all."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query (H, T, D), or (H, R, D) of the scored rows alone; key and value (K, T, D) -> (T or R, H, D)."""


@torch.compiler.disable
def shared_prefix_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    layout: Layout,
    **_: object,
) -> tuple[Tensor, None]:
    """The signature transformers calls: query (1, H, T, D), key and value (1, K, T, D) -> (1, T, H, D)."""
    assert attention_mask is None, "the layout says who sees whom; a mask would be ignored"
    return layout.attend(module.layer_idx, query[0], key[0], value[0], scaling)[None], None


def image_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    cu_seq_lens_q: Tensor,
    max_length_q: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Patches see the patches of their own image (or window): query, key, value (1, H, T, D) -> (1, T, H, D).

    cu_seq_lens_q (N + 1,) holds where each of the N sequences begins, and the end; max_length_q the longest's length.
    """
    if can_use_varlen(query.device, query.dtype, query.shape[-1]):
        # Without a copy to the host, which would wait for the device in every block.
        longest = int(cu_seq_lens_q.diff().max()) if max_length_q is None else int(max_length_q)
        sequences = (cu_seq_lens_q.int(), longest)
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        return attend_varlen(q, k, v, sequences, sequences, scaling)[None], None
    start = cu_seq_lens_q[:-1].cpu().long()
    index, valid = rectangle(start, cu_seq_lens_q[1:].cpu() - start)
    device = query.device
    q, k, v = (gather(x[0], index.to(device)) for x in (query, key, value))
    mask = None if bool(valid.all()) else valid[:, None, None, :].to(device)
    output = attend(q, k, v, mask, scaling).transpose(1, 2).flatten(0, 1)
    return output[valid.flatten().nonzero().squeeze(-1).to(device)][None], None


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
AttentionInterface.register(IMAGE_ATTENTION_NAME, image_attention)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """query (N, H, Q, D), key and value (N, K, S, D), mask broadcastable to (N, H, Q, S), True where seen.

    Every row of the mask must see at least one key.
    """
    groups = query.shape[1] // key.shape[1]
    max_keys = _MATMUL_MAX_KEYS.get(query.dtype, _MATMUL_MAX_KEYS_OTHERWISE)
    if query.device.type != "cpu" or key.shape[2] > max_keys:
        if query.device.type != "cpu" and mask is not None and groups > 1:
            # On CUDA no kernel that spares memory takes both a mask and grouped queries.
            key, value, groups = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1), 1
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1)
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query * scaling) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return softmax(scores) @ value


def softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, in float32 at least, in the dtype of the scores."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


# Older releases of it know neither grouped queries nor a window.
_VARLEN: Callable[..., Any] | None = (
    varlen_attn if {"enable_gqa", "window_size"} <= inspect.signature(varlen_attn).parameters.keys() else None
)


def can_use_varlen(device: torch.device, dtype: torch.dtype, head_dim: int = 128) -> bool:
    """Whether PyTorch has variable-length attention for these: FlashAttention's GPUs, dtypes and heads."""
    if _VARLEN is None or device.type != "cuda" or dtype not in HALF_TYPES:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0) and head_dim % 8 == 0 and head_dim <= 256


def attend_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    queries: tuple[Tensor, int],
    keys: tuple[Tensor, int],
    scaling: float,
    *,
    is_causal: bool = False,
) -> Tensor:
    """N sequences one after another: query (T, H, D), key and value (S, K, D) -> (T, H, D).

    Args:
        queries, keys: (N + 1,) int32 where each sequence begins, and the end; the length of the longest.
        is_causal: a sequence's last query sees all of its keys, the one before it all but the last, and so on.
    """
    assert _VARLEN is not None, "can_use_varlen says so"
    window = (-1, 0) if is_causal else (-1, -1)
    return _VARLEN(
        query,
        key,
        value,
        queries[0],
        keys[0],
        queries[1],
        keys[1],
        scale=scaling,
        window_size=window,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def rectangle(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Row positions (N, longest) of N runs of tokens, padding pointing at position 0, and where it is no padding."""
    offset = torch.arange(int(length.max()) if len(length) else 0)
    valid = offset[None, :] < length[:, None]
    return torch.where(valid, start[:, None] + offset, 0), valid


def gather(x: Tensor, index: Tensor) -> Tensor:
    """(H, T, D) at (N, L) positions -> (N, H, L, D)."""
    return x.index_select(1, index.flatten()).unflatten(1, index.shape).transpose(0, 1)
