"""Who sees whom in a packed row: a completion sees its prompt and itself, and the prompt is stored once.

Three ways to compute the same: two padded rectangles (any device and dtype), variable-length attention (CUDA, half
precision), FlexAttention (CUDA). LAYOUTS names them; `choose_layout` says which one "auto" is.

The head needs the last hidden state of completion tokens and of each prompt's last token only: in the last block the
queries are those alone (`scored_rows`), which is what LastBlock asks for.

Shapes: T packed tokens, R scored rows, P prompts, C completions, H heads, K key-value heads, D head dim, A longest
prompt, B longest completion, S keys of all sequences.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from geogrpo.policy.attention import attend, attend_varlen, can_use_varlen, gather, rectangle
from geogrpo.types import PackedBatch


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


class _Layout:
    """What the layouts share: where prompts and completions are, the scored rows, and the prompts' keys and values.

    Args:
        keep_prompt_kv: whether to keep what decoding goes on from, in `prompt_kv`.
    """

    def __init__(self, batch: PackedBatch, *, keep_prompt_kv: bool = False) -> None:
        self._device = batch.input_ids.device
        self._num_tokens = len(batch.input_ids)
        self._starts = group_starts(batch)
        self._lengths = (batch.prompt_lengths, batch.completion_lengths)
        self._rectangles = (
            *rectangle(self._starts[0], batch.prompt_lengths),
            *rectangle(self._starts[1], batch.completion_lengths),
        )
        prompt_index, prompt_valid, completion_index, completion_valid = self._rectangles
        self._last_of_prompt = self._starts[0] + batch.prompt_lengths - 1
        scored = torch.cat([self._last_of_prompt, completion_index[completion_valid]]).sort().values
        self.scored_rows: Tensor = scored.to(self._device)
        self._prompt_index = prompt_index.to(self._device)
        self.prompt_mask = prompt_valid.to(self._device)
        """(P, A) bool, False where a prompt is shorter than the longest."""
        self.prompt_kv: dict[int, tuple[Tensor, Tensor]] | None = {} if keep_prompt_kv else None
        """Layer -> keys and values (P, K, A, D)."""

    def _keep(self, layer: int, key: Tensor, value: Tensor) -> None:
        if self.prompt_kv is not None:
            self.prompt_kv[layer] = (gather(key, self._prompt_index), gather(value, self._prompt_index))


class PaddedLayout(_Layout):
    """Two rectangles: prompts (P, A), and completions (C, B) that also see a copy of their prompt's keys.

    The work grows with C * B * (A + B), not with the square of the row.
    """

    def __init__(self, batch: PackedBatch, *, keep_prompt_kv: bool = False) -> None:
        super().__init__(batch, keep_prompt_kv=keep_prompt_kv)
        prompt_index, prompt_valid, completion_index, completion_valid = self._rectangles
        self._has_completions = completion_index.numel() > 0
        self._prompt_of = batch.completion_prompt.to(self._device)
        self._completion_index = completion_index.to(self._device)
        self._all = _Queries(prompt_index, prompt_valid, completion_index, completion_valid, self._num_tokens)
        scored = self.scored_rows.cpu()
        row_of = torch.zeros(self._num_tokens, dtype=torch.int64)
        row_of[scored] = torch.arange(len(scored))
        self._scored = _Queries(
            row_of[self._last_of_prompt][:, None],
            torch.ones(len(prompt_valid), 1, dtype=torch.bool),
            row_of[completion_index],
            completion_valid,
            len(scored),
        )
        for queries in (self._all, self._scored):
            queries.to(self._device)
        # Padding stands at the end of a row, so causality alone hides it from every real token.
        self._prompt_causal = _causal(prompt_index.shape[1]).to(self._device)
        num_new = completion_index.shape[1]
        sees_prompt = prompt_valid[batch.completion_prompt][:, None, :].expand(-1, num_new, -1)
        sees_itself = _causal(num_new).expand(len(sees_prompt), -1, -1)
        self._completion_mask = torch.cat([sees_prompt, sees_itself], dim=-1)[:, None].to(self._device)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See attention.Layout."""
        is_whole = query.shape[1] == self._num_tokens
        queries = self._all if is_whole else self._scored
        prompt_mask = self._prompt_causal if is_whole else self.prompt_mask[:, None, None, :]
        k, v = gather(key, self._prompt_index), gather(value, self._prompt_index)
        if self.prompt_kv is not None:
            self.prompt_kv[layer] = (k, v)
        prompts = attend(gather(query, queries.prompt_index), k, v, prompt_mask, scaling)
        outputs = [prompts.transpose(1, 2).flatten(0, 1)]
        if self._has_completions:
            k_all = torch.cat([k[self._prompt_of], gather(key, self._completion_index)], dim=2)
            v_all = torch.cat([v[self._prompt_of], gather(value, self._completion_index)], dim=2)
            q_new = gather(query, queries.completion_index)
            completions = attend(q_new, k_all, v_all, self._completion_mask, scaling)
            outputs.append(completions.transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).index_select(0, queries.source)


class _Queries:
    """Where the two rectangles take their queries from, and where in them each query's output is.

    Args:
        prompt_index, completion_index: (P, X) and (C, B) rows of the queries.
        prompt_valid, completion_valid: of the same shapes, False for padding.
        num_rows: queries in all.
    """

    def __init__(
        self,
        prompt_index: Tensor,
        prompt_valid: Tensor,
        completion_index: Tensor,
        completion_valid: Tensor,
        num_rows: int,
    ) -> None:
        self.prompt_index, self.completion_index = prompt_index, completion_index
        self.source = torch.empty(num_rows, dtype=torch.int64)
        """(rows,) places in the outputs of prompts and completions, one after the other."""
        self.source[prompt_index[prompt_valid]] = prompt_valid.flatten().nonzero().squeeze(-1)
        in_completions = completion_valid.flatten().nonzero().squeeze(-1)
        self.source[completion_index[completion_valid]] = in_completions + prompt_valid.numel()

    def to(self, device: torch.device) -> None:
        for name, tensor in vars(self).items():
            setattr(self, name, tensor.to(device))


def _causal(length: int) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool).tril()


class VarlenLayout(_Layout):
    """One call of variable-length attention: the sequences are the prompts and the completions in the order of the row,
    and a completion's keys are a copy of its prompt's and its own. Nothing is padded.
    """

    def __init__(self, batch: PackedBatch, *, keep_prompt_kv: bool = False) -> None:
        super().__init__(batch, keep_prompt_kv=keep_prompt_kv)
        prompts, own = (
            [torch.arange(s, s + n) for s, n in zip(start.tolist(), length.tolist(), strict=True)]
            for start, length in zip(self._starts, self._lengths, strict=True)
        )
        # (first row, queries in the whole row, queries among the scored rows, rows of the keys)
        sequences = [(int(rows[0]), len(rows), 1, rows) for rows in prompts]
        for rows, prompt in zip(own, batch.completion_prompt.tolist(), strict=True):
            if len(rows):
                sequences.append((int(rows[0]), len(rows), len(rows), torch.cat([prompts[prompt], rows])))
        sequences.sort(key=lambda sequence: sequence[0])
        _, num_queries, num_scored, keys = zip(*sequences, strict=True)
        self._key_index = torch.cat(keys).to(self._device)
        self._queries, self._scored_queries, self._keys = (
            self._cumulative(lengths) for lengths in (num_queries, num_scored, [len(rows) for rows in keys])
        )

    def _cumulative(self, lengths: Any) -> tuple[Tensor, int]:
        ends = torch.tensor([0, *lengths]).cumsum(0)
        return ends.int().to(self._device), max(lengths)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See attention.Layout."""
        self._keep(layer, key, value)
        queries = self._queries if query.shape[1] == self._num_tokens else self._scored_queries
        keys, values = (x.transpose(0, 1).index_select(0, self._key_index) for x in (key, value))
        return attend_varlen(
            query.transpose(0, 1).contiguous(), keys, values, queries, self._keys, scaling, is_causal=True
        )


class FlexLayout(_Layout):
    """FlexAttention over the whole row, which skips the blocks of keys that nobody in a block of queries sees."""

    def __init__(self, batch: PackedBatch, *, keep_prompt_kv: bool = False) -> None:
        super().__init__(batch, keep_prompt_kv=keep_prompt_kv)
        group = torch.empty(self._num_tokens, dtype=torch.int64)
        completion = torch.zeros(self._num_tokens, dtype=torch.int64)
        for p, (start, length) in enumerate(zip(self._starts[0].tolist(), self._lengths[0].tolist(), strict=True)):
            group[start : start + length] = p
        for c, (start, length) in enumerate(zip(self._starts[1].tolist(), self._lengths[1].tolist(), strict=True)):
            group[start : start + length] = batch.completion_prompt[c]
            completion[start : start + length] = c + 1
        group, completion = group.to(self._device), completion.to(self._device)
        rows = {"all": torch.arange(self._num_tokens, device=self._device), "scored": self.scored_rows}

        def mask_of(query_rows: Tensor) -> Any:
            def is_seen(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
                row = query_rows[q]
                is_own = (completion[k] == 0) | (completion[k] == completion[row])
                return (k <= row) & (group[k] == group[row]) & is_own

            return create_block_mask(is_seen, None, None, len(query_rows), self._num_tokens, device=str(self._device))

        self._masks = {name: mask_of(query_rows) for name, query_rows in rows.items()}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """See attention.Layout."""
        self._keep(layer, key, value)
        mask = self._masks["all" if query.shape[1] == self._num_tokens else "scored"]
        output = _flex(self._device.type)(
            query[None],
            key[None],
            value[None],
            block_mask=mask,
            scale=scaling,
            enable_gqa=query.shape[0] != key.shape[0],
        )
        return output[0].transpose(0, 1)


@cache
def _flex(device_type: str) -> Any:
    # On a CPU it is for tests: slow, and without a backward pass.
    return torch.compile(flex_attention, dynamic=True) if device_type == "cuda" else flex_attention


PackedLayout = PaddedLayout | VarlenLayout | FlexLayout
LAYOUTS: dict[str, type[PackedLayout]] = {"padded": PaddedLayout, "varlen": VarlenLayout, "flex": FlexLayout}


def choose_layout(name: str, device: torch.device, dtype: torch.dtype, head_dim: int = 128) -> str:
    """The key of LAYOUTS that model.attention means on this device.

    Raises:
        ValueError: when the name is unknown, or it cannot run there.
    """
    has_varlen = can_use_varlen(device, dtype, head_dim)
    if name == "auto":
        return "varlen" if has_varlen else "padded"
    if name not in LAYOUTS:
        raise ValueError(f"model.attention must be auto or one of {', '.join(LAYOUTS)}, got {name!r}.")
    if name == "varlen" and not has_varlen:
        raise ValueError(
            "model.attention: varlen needs CUDA from Ampere on, model.dtype bfloat16, heads of a multiple of 8, and a"
            f" PyTorch whose torch.nn.attention.varlen has windows; here is {device.type}, {dtype}, heads of"
            f" {head_dim}, PyTorch {torch.__version__}."
            " Use auto or padded."
        )
    if name == "flex" and device.type != "cuda":
        raise ValueError("model.attention: flex needs CUDA, as FlexAttention has no backward on a CPU. Use padded.")
    return name
