"""Attention over packed groups: a completion sees its prompt and itself, and the prompt is stored once.

Registered with transformers' AttentionInterface under ATTENTION_NAME; nothing is patched. The layout of the row comes
as the keyword `layout` that model forwards pass down to every attention layer.

Shapes: T packed tokens, P prompts, C completions, G group, H heads, K key-value heads, D head dim,
A longest prompt, B longest completion.
"""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface

from geogrpo.types import PackedBatch

ATTENTION_NAME = "geogrpo_shared_prefix"
# transformers hands cumulative lengths, and so all images in one call, only to implementations with "flash" in their
# name; any other is called once per image and layer.
IMAGE_ATTENTION_NAME = "geogrpo_flash_images"

# At most this many keys, matrix products with a softmax between beat the fused CPU kernel forward and backward:
# 64 sequences of 64 in bfloat16 take 4.4 ms against 16.3 (2 cores); at 512 the fused kernel's memory wins.
_MATMUL_MAX_KEYS = 256


class Layout(Protocol):
    """How the tokens of a row may see each other."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """query (H, T, D), key and value (K, T, D) -> (T, H, D)."""


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
    **_: object,
) -> tuple[Tensor, None]:
    """Patches see the patches of their own image (or window): query, key, value (1, H, T, D) -> (1, T, H, D).

    cu_seq_lens_q (N + 1,) holds where each of the N sequences begins, and the end.
    """
    start = cu_seq_lens_q[:-1].cpu().long()
    index, valid = _rectangle(start, cu_seq_lens_q[1:].cpu() - start)
    device = query.device
    q, k, v = (_gather(x[0], index.to(device)) for x in (query, key, value))
    mask = None if bool(valid.all()) else valid[:, None, None, :].to(device)
    output = _attend(q, k, v, mask, scaling).transpose(1, 2).flatten(0, 1)
    return output[valid.flatten().nonzero().squeeze(-1).to(device)][None], None


AttentionInterface.register(ATTENTION_NAME, shared_prefix_attention)
AttentionInterface.register(IMAGE_ATTENTION_NAME, image_attention)


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """query (N, H, Q, D), key and value (N, K, S, D), mask broadcastable to (N, H, Q, S), True where seen.

    Every row of the mask must see at least one key.
    """
    groups = query.shape[1] // key.shape[1]
    if query.device.type != "cpu" or key.shape[2] > _MATMUL_MAX_KEYS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1)
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query * scaling) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return _softmax(scores) @ value


def _softmax(scores: Tensor) -> Tensor:
    """Over the last dimension, in float32 at least, in the dtype of the scores."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


class PackedLayout:
    """Groups in one row, computed as two rectangles: prompts (P, A), and completions (C, B) that also see a copy of
    their prompt's keys. The work grows with G * B * (A + B), not with the square of the row.
    """

    def __init__(self, batch: PackedBatch, *, keep_prompt_kv: bool = False) -> None:
        device = batch.input_ids.device
        prompt_start, completion_start = group_starts(batch)
        self._prompt_index, prompt_valid = _rectangle(prompt_start, batch.prompt_lengths)
        self._completion_index, completion_valid = _rectangle(completion_start, batch.completion_lengths)
        self._has_completions = self._completion_index.numel() > 0
        self._prompt_of = batch.completion_prompt.to(device)
        source = torch.empty(len(batch.input_ids), dtype=torch.int64)
        source[self._prompt_index[prompt_valid]] = torch.arange(prompt_valid.numel())[prompt_valid.flatten()]
        source[self._completion_index[completion_valid]] = (
            torch.arange(completion_valid.numel())[completion_valid.flatten()] + prompt_valid.numel()
        )
        self._source = source.to(device)
        num_new = self._completion_index.shape[1]
        causal = _causal(num_new)
        sees_prompt = prompt_valid[batch.completion_prompt][:, None, :].expand(-1, num_new, -1)
        self._mask = torch.cat([sees_prompt, causal.expand(len(sees_prompt), -1, -1)], dim=-1)[:, None].to(device)
        self._prompt_causal = _causal(self._prompt_index.shape[1]).to(device)
        self._prompt_index, self._completion_index = self._prompt_index.to(device), self._completion_index.to(device)
        self.prompt_mask = prompt_valid.to(device)
        self.prompt_kv: dict[int, tuple[Tensor, Tensor]] | None = {} if keep_prompt_kv else None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See Layout.attend."""
        num_heads, _, head_dim = query.shape
        # Padding stands at the end of a row, so causality alone hides it from every real token.
        q, k, v = (_gather(x, self._prompt_index) for x in (query, key, value))
        prompts = _attend(q, k, v, self._prompt_causal, scaling)
        if self.prompt_kv is not None:
            self.prompt_kv[layer] = (k, v)
        outputs = [prompts.transpose(1, 2).reshape(-1, num_heads, head_dim)]
        if self._has_completions:
            q_new, k_new, v_new = (_gather(x, self._completion_index) for x in (query, key, value))
            k_all = torch.cat([k[self._prompt_of], k_new], dim=2)
            v_all = torch.cat([v[self._prompt_of], v_new], dim=2)
            completions = _attend(q_new, k_all, v_all, self._mask, scaling)
            outputs.append(completions.transpose(1, 2).reshape(-1, num_heads, head_dim))
        return torch.cat(outputs).index_select(0, self._source)


def group_starts(batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Where each prompt (P,) and each completion (C,) begins in the packed row."""
    num_prompts = len(batch.prompt_lengths)
    per_prompt = torch.zeros(num_prompts, dtype=torch.int64)
    per_prompt.index_add_(0, batch.completion_prompt, batch.completion_lengths)
    group_length = batch.prompt_lengths + per_prompt
    prompt_start = group_length.cumsum(0) - group_length
    before_in_row = batch.completion_lengths.cumsum(0) - batch.completion_lengths
    prompts_so_far = batch.prompt_lengths.cumsum(0)[batch.completion_prompt]
    return prompt_start, before_in_row + prompts_so_far


def _rectangle(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """Row positions (N, longest) of N runs of tokens, padding pointing at position 0, and where it is no padding."""
    offset = torch.arange(int(length.max()) if len(length) else 0)
    valid = offset[None, :] < length[:, None]
    return torch.where(valid, start[:, None] + offset, 0), valid


def _causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


def _gather(x: Tensor, index: Tensor) -> Tensor:
    """(H, T, D) at (N, L) positions -> (N, H, L, D)."""
    return x.index_select(1, index.flatten()).unflatten(1, index.shape).transpose(0, 1)


class DecodeLayout:
    """One new token for each of P * G completions, prompt-major, on a shared prompt cache.

    Prompt keys stay (P, K, A, D): each is read by its G completions and never copied.
    """

    def __init__(self, prefill: PackedLayout, group_size: int, max_new_tokens: int) -> None:
        assert prefill.prompt_kv is not None, "prefill with keep_prompt_kv=True"
        self._prompt_kv, self._prompt_mask = prefill.prompt_kv, prefill.prompt_mask
        self._group_size, self._max_new_tokens = group_size, max_new_tokens
        self._new_kv: dict[int, tuple[Tensor, Tensor]] = {}
        self.num_cached = 0
        """Completion tokens whose keys are in the cache; the caller adds one after each forward."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See Layout.attend."""
        prompt_key, prompt_value = self._prompt_kv[layer]
        num_prompts, num_kv_heads, _, head_dim = prompt_key.shape
        num_heads, num_rows = query.shape[0], query.shape[1]
        own_key, own_value = self._append(layer, key, value)
        # (P, K, G * H / K, D) against the prompt, (P * G, K, H / K, D) against the completion itself
        per_kv = num_heads // num_kv_heads
        q = query.transpose(0, 1).reshape(num_rows, num_kv_heads, per_kv, head_dim) * scaling
        q_group = q.reshape(num_prompts, self._group_size, num_kv_heads, per_kv, head_dim).transpose(1, 2).flatten(2, 3)
        prompt_scores = q_group @ prompt_key.transpose(-1, -2)
        prompt_scores.masked_fill_(~self._prompt_mask[:, None, None, :], -torch.inf)
        own_scores = self._to_groups(q @ own_key.transpose(-1, -2), num_prompts)
        probs = _softmax(torch.cat([prompt_scores, own_scores], dim=-1))
        prompt_probs, own_probs = probs.split([prompt_scores.shape[-1], own_scores.shape[-1]], dim=-1)
        mixed = prompt_probs @ prompt_value + self._to_groups(
            self._to_rows(own_probs, num_rows) @ own_value, num_prompts
        )
        return self._to_rows(mixed, num_rows).reshape(num_rows, num_heads, head_dim)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store this step's (K, P * G, D); return all so far as (P * G, K, steps, D)."""
        if layer not in self._new_kv:
            num_kv_heads, num_rows, head_dim = key.shape
            shape = (num_rows, num_kv_heads, self._max_new_tokens, head_dim)
            self._new_kv[layer] = (key.new_empty(shape), value.new_empty(shape))
        own_key, own_value = self._new_kv[layer]
        own_key[:, :, self.num_cached] = key.transpose(0, 1)
        own_value[:, :, self.num_cached] = value.transpose(0, 1)
        return own_key[:, :, : self.num_cached + 1], own_value[:, :, : self.num_cached + 1]

    def _to_groups(self, x: Tensor, num_prompts: int) -> Tensor:
        """(P * G, K, R, X) -> (P, K, G * R, X)."""
        return x.unflatten(0, (num_prompts, self._group_size)).transpose(1, 2).flatten(2, 3)

    def _to_rows(self, x: Tensor, num_rows: int) -> Tensor:
        """(P, K, G * R, X) -> (P * G, K, R, X)."""
        return x.unflatten(2, (self._group_size, -1)).transpose(1, 2).reshape(num_rows, x.shape[1], -1, x.shape[-1])
