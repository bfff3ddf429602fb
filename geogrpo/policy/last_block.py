"""The last decoder block, computed where its output is read: at the positions that the head scores.

Of a prompt the other blocks need every position, the last block only keys and values: no query, output projection or
MLP. For 1,050 prompt tokens, eight completions of 200 and 36 blocks that is about 1 % of the language model; for four
blocks, prompts of 287 tokens and eight completions of 32, 11 %.

Shapes: T packed tokens, R scored rows, W hidden, H heads, D head dim.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from geogrpo.policy.attention import Layout, shared_prefix_attention


class LastBlock(GradientCheckpointingLayer):
    """Takes the place of a Qwen decoder block and its parameters, whose names stay.

    Args:
        block: has input_layernorm, self_attn, post_attention_layernorm and mlp.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        for name, child in block.named_children():
            self.add_module(name, child)

    def forward(
        self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], layout: Layout, **_: object
    ) -> Tensor:
        """hidden_states (1, T, W) -> (1, R, W), the rows of layout.scored_rows, or (1, T, W) where that is None."""
        attention, children = cast(Any, self.self_attn), cast(Any, self)
        normed = children.input_layernorm(hidden_states)
        key, value = _heads(attention, "k", normed), _heads(attention, "v", normed)
        key = _rotated(key, *position_embeddings)
        rows = layout.scored_rows
        if rows is not None:
            hidden_states, normed = hidden_states.index_select(1, rows), normed.index_select(1, rows)
            position_embeddings = tuple(part.index_select(1, rows) for part in position_embeddings)  # type: ignore[assignment]
        query = _rotated(_heads(attention, "q", normed), *position_embeddings)
        seen, _ = shared_prefix_attention(attention, query, key, value, None, scaling=attention.scaling, layout=layout)
        hidden_states = hidden_states + attention.o_proj(seen.flatten(2))
        return hidden_states + children.mlp(children.post_attention_layernorm(hidden_states))


def _heads(attention: Any, name: str, hidden: Tensor) -> Tensor:
    """The projection called `name`, normed per head where the model does that: (1, T, W) -> (1, H, T, D)."""
    heads = getattr(attention, f"{name}_proj")(hidden).unflatten(-1, (-1, attention.head_dim))
    norm = getattr(attention, f"{name}_norm", None)
    return (heads if norm is None else norm(heads)).transpose(1, 2)


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding: heads (1, H, T, D) by the angles (1, T, D)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos[:, None] + torch.cat([-second, first], dim=-1) * sin[:, None]
