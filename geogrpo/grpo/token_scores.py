"""What a policy or a reference says of given completions, without gradient.

Shapes: S scored tokens of a row, W hidden; a completion has `length` tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from geogrpo.distributed import reshard
from geogrpo.optimization import Passes
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group
from geogrpo.types import PackedBatch


@dataclass(frozen=True)
class TokenScores:
    """Of each completion, groups counted through."""

    logprobs: list[Tensor]
    """(length,) float32, nats."""
    entropy: list[Tensor]
    """(length,) float32, nats."""


def score_tokens(policy: Policy, groups: Sequence[Group], passes: Passes, phase: str) -> TokenScores:
    """Log-prob and entropy of every token. Every rank must call this, with any number of groups.

    Args:
        phase: of the clock.
    """
    scored = _each_row(policy, groups, passes, phase, lambda batch, _: policy(batch, passes.temperature))
    return TokenScores([logprobs for logprobs, _ in scored], [entropy for _, entropy in scored])


def hidden_of_tokens(policy: Policy, groups: Sequence[Group], passes: Passes, phase: str) -> list[Tensor]:
    """Of each completion, the (length, W) hidden states that predict its tokens."""
    scored = _each_row(policy, groups, passes, phase, lambda batch, _: (policy.hidden_states(batch),))
    return [hidden for (hidden,) in scored]


def exact_kl_of_tokens(
    policy: Policy,
    groups: Sequence[Group],
    passes: Passes,
    phase: str,
    *,
    ref_hidden: Sequence[Tensor],
    ref_weight: Tensor | None,
) -> list[Tensor]:
    """Of each completion, the (length,) KL to the reference over the vocabulary at its tokens.

    Args:
        ref_hidden, ref_weight: the reference's, as hidden_of_tokens gives them; None for a head that is the policy's.
    """

    def compute(batch: PackedBatch, completions: list[int]) -> tuple[Tensor]:
        hidden = [ref_hidden[k] for k in completions]
        # The dummy has one token, and any state will do.
        states = torch.cat(hidden) if hidden else policy.hidden_states(batch)
        weight = ref_weight if hidden else None
        return (policy.exact_kl(batch, states, weight, passes.temperature),)

    return [kl for (kl,) in _each_row(policy, groups, passes, phase, compute)]


def _each_row(
    policy: Policy,
    groups: Sequence[Group],
    passes: Passes,
    phase: str,
    compute: Callable[[PackedBatch, list[int]], tuple[Tensor, ...]],
) -> list[tuple[Tensor, ...]]:
    """What `compute` says of a row and its completions, taken apart by completion."""
    found: dict[int, tuple[Tensor, ...]] = {}
    was_training = policy.training
    policy.eval()
    try:
        for row, batch, _ in passes.rows(groups):
            with passes.clock.phase(phase, len(batch.input_ids)), torch.no_grad():
                tensors = compute(batch, [] if row is None else row.completions)
            if row is not None:
                lengths = (batch.completion_lengths + 1).tolist()
                apart = zip(*(tensor.split(lengths) for tensor in tensors), strict=True)
                found |= dict(zip(row.completions, apart, strict=True))
    finally:
        policy.train(was_training)
        # FSDP2 would leave the root's parameters whole until the next backward pass.
        reshard(policy)
    return [found[k] for k in range(len(found))]
