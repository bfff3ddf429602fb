"""torch.compile for the blocks of the language model."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from geogrpo.policy.attention import Layout
from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.model import Policy


def compile_blocks(policy: Policy, backend: Any = "inductor") -> None:
    """Compile what each block of the language model computes around its attention, which says who sees whom and stays
    as it is. Rows of any length share the code, and so do equal blocks; names of parameters do not change. Decoding is
    not compiled; nobody has measured what it would gain.

    Before shard_policy, so that a block's parameters are gathered, and its activations thrown away, around what is
    compiled.

    Args:
        backend: of torch.compile. Compiling itself begins with the first forward pass.
    """
    kinds: dict[type[nn.Module], type[nn.Module]] = {}
    for block in policy.language_model.layers:
        kind = type(block)
        if kind not in kinds:
            kinds[kind] = _compiled(kind, backend)
        block.__class__ = kinds[kind]


def _compiled(kind: type[nn.Module], backend: Any) -> type[nn.Module]:
    """`kind` with its forward compiled. A class, as FSDP2 and activation checkpointing, too, wrap the class's forward:
    one set on a block would hide theirs.
    """
    # Not the wrapper that throws activations away: that is not the outermost one here.
    compiled = torch.compile(inspect.unwrap(kind.forward), backend=backend, dynamic=True)

    def forward(self: nn.Module, *arguments: Any, layout: Layout, **options: Any) -> Tensor:
        chosen = kind.forward if isinstance(layout, DecodeLayout) else compiled
        return chosen(self, *arguments, layout=layout, **options)

    return type(f"Compiled{kind.__name__}", (kind,), {"forward": forward})
