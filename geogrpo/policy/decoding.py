"""Decoding: one new token for each of many completions, prompts' keys and values shared by a group.

Shapes: P prompts, G completions of each prompt that are still decoded, R = P * G rows, M max_new_tokens, H heads,
K key-value heads, D head dim, A longest prompt.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from geogrpo.policy.attention import softmax
from geogrpo.policy.layouts import PackedLayout

KeyValue = tuple[Tensor, Tensor]


class DecodeLayout:
    """The rows of P prompts, prompt-major. Prompt keys stay (P, K, A, D): each is read by its G completions and never
    copied. Prompts may join (`extend`) and rows may leave (`keep`) between forwards.

    Args:
        prefill: has attended to the prompts, with keep_prompt_kv=True.
        group_size: G.
        max_new_tokens: M, of any row.
    """

    scored_rows = None

    def __init__(self, prefill: PackedLayout, group_size: int, max_new_tokens: int) -> None:
        assert prefill.prompt_kv is not None, "prefill with keep_prompt_kv=True"
        self._prompt_kv, self._prompt_mask = dict(prefill.prompt_kv), prefill.prompt_mask
        self._group_size, self._max_new_tokens = group_size, max_new_tokens
        self._own_kv: dict[int, KeyValue] = {}
        self._ages = [0] * len(self._prompt_mask)
        self._rows_age: Tensor | None = None

    @property
    def ages(self) -> list[int]:
        """Of each prompt's completions: tokens whose keys are in the cache."""
        return list(self._ages)

    def advance(self) -> None:
        """Count one more token of every row; the caller does this after each forward."""
        self._ages = [age + 1 for age in self._ages]
        self._rows_age = None

    def keep(self, prompts: Tensor, rows: Tensor) -> None:
        """Go on with some rows only.

        Args:
            prompts: (P',) int64, those that stay.
            rows: (P', G') int64, which rows, among all P * G, are now theirs.
        """
        self._ages = [self._ages[p] for p in prompts.tolist()]
        self._group_size, self._rows_age = rows.shape[1], None
        if len(prompts) < len(self._prompt_mask):
            self._prompt_mask = self._prompt_mask[prompts]
            _replace(self._prompt_kv, lambda _, kv: (kv[0][prompts], kv[1][prompts]))
        flat = rows.flatten()
        _replace(self._own_kv, lambda _, kv: (kv[0][flat], kv[1][flat]))

    def extend(self, other: "DecodeLayout") -> None:
        """Take in prompts that were just prefilled, with as many rows each."""
        assert other._group_size == self._group_size
        longest = max(self._prompt_mask.shape[1], other._prompt_mask.shape[1])
        self._prompt_mask = torch.cat([_padded(mask, longest) for mask in (self._prompt_mask, other._prompt_mask)])
        _replace(self._prompt_kv, lambda layer, kv: _stacked(kv, other._prompt_kv.pop(layer), longest))
        num_new = len(other._ages) * self._group_size
        _replace(self._own_kv, lambda _, kv: (_with_empty_rows(kv[0], num_new), _with_empty_rows(kv[1], num_new)))
        self._ages += other._ages
        self._rows_age = None

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See attention.Layout; query (H, R, D), key and value (K, R, D)."""
        prompt_key, prompt_value = self._prompt_kv[layer]
        num_prompts, num_kv_heads, _, head_dim = prompt_key.shape
        num_heads, num_rows = query.shape[0], query.shape[1]
        own_key, own_value = self._append(layer, key, value)
        # (P, K, G * H / K, D) against the prompt, (R, K, H / K, D) against the completion itself
        per_kv = num_heads // num_kv_heads
        q = query.transpose(0, 1).reshape(num_rows, num_kv_heads, per_kv, head_dim) * scaling
        q_group = q.reshape(num_prompts, self._group_size, num_kv_heads, per_kv, head_dim).transpose(1, 2).flatten(2, 3)
        prompt_scores = q_group @ prompt_key.transpose(-1, -2)
        prompt_scores.masked_fill_(~self._prompt_mask[:, None, None, :], -torch.inf)
        own_scores = q @ own_key.transpose(-1, -2)
        if len(set(self._ages)) > 1:
            own_scores.masked_fill_(self._is_ahead(own_key.shape[2])[:, None, None, :], -torch.inf)
        own_scores = self._to_groups(own_scores, num_prompts)
        probs = softmax(torch.cat([prompt_scores, own_scores], dim=-1))
        prompt_probs, own_probs = probs.split([prompt_scores.shape[-1], own_scores.shape[-1]], dim=-1)
        mixed = prompt_probs @ prompt_value + self._to_groups(
            self._to_rows(own_probs, num_rows) @ own_value, num_prompts
        )
        return self._to_rows(mixed, num_rows).reshape(num_rows, num_heads, head_dim)

    def _append(self, layer: int, key: Tensor, value: Tensor) -> KeyValue:
        """Store this step's (K, R, D); return the (R, K, longest so far, D) of all."""
        num_kv_heads, num_rows, head_dim = key.shape
        if layer not in self._own_kv:
            shape = (num_rows, num_kv_heads, self._max_new_tokens, head_dim)
            # Zeros, not empty: a hidden position's probability of 0 times what it holds must be 0.
            self._own_kv[layer] = (key.new_zeros(shape), value.new_zeros(shape))
        own_key, own_value = self._own_kv[layer]
        if len(set(self._ages)) == 1:
            own_key[:, :, self._ages[0]] = key.transpose(0, 1)
            own_value[:, :, self._ages[0]] = value.transpose(0, 1)
        else:
            rows = torch.arange(num_rows, device=key.device)
            own_key[rows, :, self._age_of_rows(key.device)] = key.transpose(0, 1)
            own_value[rows, :, self._age_of_rows(key.device)] = value.transpose(0, 1)
        longest = max(self._ages) + 1
        return own_key[:, :, :longest], own_value[:, :, :longest]

    def _age_of_rows(self, device: torch.device) -> Tensor:
        """(R,) int64."""
        if self._rows_age is None:
            self._rows_age = torch.tensor(self._ages, device=device).repeat_interleave(self._group_size)
        return self._rows_age

    def _is_ahead(self, length: int) -> Tensor:
        """(R, length) bool, True where a row has no token yet."""
        age = self._age_of_rows(self._prompt_mask.device)
        return torch.arange(length, device=age.device) > age[:, None]

    def _to_groups(self, x: Tensor, num_prompts: int) -> Tensor:
        """(R, K, N, X) -> (P, K, G * N, X)."""
        return x.unflatten(0, (num_prompts, self._group_size)).transpose(1, 2).flatten(2, 3)

    def _to_rows(self, x: Tensor, num_rows: int) -> Tensor:
        """(P, K, G * N, X) -> (R, K, N, X)."""
        return x.unflatten(2, (self._group_size, -1)).transpose(1, 2).reshape(num_rows, x.shape[1], -1, x.shape[-1])


def _replace(cache: dict[int, KeyValue], new: Callable[[int, KeyValue], KeyValue]) -> None:
    """Layer by layer, so that old and new are never there twice."""
    for layer in list(cache):
        cache[layer] = new(layer, cache.pop(layer))


def _with_empty_rows(x: Tensor, num_rows: int) -> Tensor:
    return torch.cat([x, x.new_zeros(num_rows, *x.shape[1:])])


def _stacked(some: KeyValue, more: KeyValue, longest: int) -> KeyValue:
    """(P, K, A, D) and (P', K, A', D) -> (P + P', K, longest, D), padded with zeros."""
    key, value = (
        torch.cat([F.pad(x, (0, 0, 0, longest - x.shape[2])) for x in pair]) for pair in zip(some, more, strict=True)
    )
    return key, value


def _padded(mask: Tensor, length: int) -> Tensor:
    return F.pad(mask, (0, length - mask.shape[1]))
