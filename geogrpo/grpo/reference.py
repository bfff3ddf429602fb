"""What the KL is measured from: a second model, or the policy with its adapter as stage 2 found it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from geogrpo.checkpoint import load_checkpoint, load_moved_reference
from geogrpo.config import GRPOConfig, ReferenceConfig
from geogrpo.policy.adapters import AdapterSnapshot, has_adapter
from geogrpo.policy.model import Policy


class Reference(Protocol):
    """A policy that does not train."""

    def applied(self) -> AbstractContextManager[Policy]:
        """The policy to ask, inside the context alone."""

    def head_weight(self) -> Tensor | None:
        """(V, W) its head, whole; None where that is the head of the policy that trains. Every rank must call this."""

    def follow(self, policy: Policy, step: int) -> None:
        """Move towards the policy where the configuration says so; called after each of the stage's steps, from 1."""

    @property
    def moving(self) -> Policy | None:
        """The second model, where it moves and a checkpoint must hold it."""


class CopyReference:
    """A second model.

    Args:
        policy: frozen; sharded like the policy that trains.
        config: whether and how it follows.
    """

    def __init__(self, policy: Policy, config: ReferenceConfig | None = None) -> None:
        self.policy, self._config = policy, config or ReferenceConfig()

    @contextmanager
    def applied(self) -> Iterator[Policy]:
        """See Reference."""
        yield self.policy

    def head_weight(self) -> Tensor | None:
        """See Reference."""
        weight = self.policy.model.lm_head.weight.detach()
        return (weight.full_tensor() if isinstance(weight, DTensor) else weight).to(
            self.policy.device, self.policy.dtype
        )

    @torch.no_grad()
    def follow(self, policy: Policy, step: int) -> None:
        """See Reference."""
        if self._config.sync_every == 0 or step % self._config.sync_every:
            return
        for own, trained in zip(self.policy.parameters(), policy.parameters(), strict=True):
            own.lerp_(trained.detach().to(own.dtype), self._config.sync_mix)

    @property
    def moving(self) -> Policy | None:
        """See Reference."""
        return self.policy if self._config.sync_every else None


class AdapterReference:
    """The policy that trains, its adapter put back for as long as it is asked.

    Args:
        snapshot: of the adapter.
    """

    def __init__(self, snapshot: AdapterSnapshot) -> None:
        self._snapshot = snapshot

    def applied(self) -> AbstractContextManager[Policy]:
        """See Reference."""
        return self._snapshot.applied()

    def head_weight(self) -> Tensor | None:
        """See Reference."""
        return None

    def follow(self, policy: Policy, step: int) -> None:
        """See Reference; it never moves."""

    @property
    def moving(self) -> Policy | None:
        """See Reference."""
        return None


def load_reference(
    policy: Policy,
    load_model: Callable[[torch.dtype | None], Policy],
    config: GRPOConfig,
    *,
    start: Path,
    resume_from: Path | None,
) -> Reference | None:
    """The reference of a run's stage 2; None where beta is 0. Every rank must call this.

    Args:
        policy: that trains.
        load_model: makes the second model, its parameters in the given dtype, or float32.
        start: checkpoint of the policy as stage 2 began.
        resume_from: checkpoint that stage 2 goes on from, or None.
    """
    if config.loss.beta == 0:
        return None
    if config.reference.kind == "adapter_off" or (config.reference.kind == "auto" and has_adapter(policy)):
        if config.reference.sync_every:
            raise ValueError("grpo.reference.sync_every: an adapter that is put back cannot move. Take kind: copy.")
        return AdapterReference(AdapterSnapshot.from_checkpoint(policy, start))
    # What computes in 16 bits is kept in them, but for a moving average, whose steps they would round away.
    is_average = config.reference.sync_every > 0 and config.reference.sync_mix < 1
    copy = load_model(None if is_average else policy.dtype)
    load_checkpoint(start, copy)
    if config.reference.sync_every and resume_from is not None:
        load_moved_reference(resume_from, copy)
    if policy.vision_cache is not None:
        # The same frozen tower, in memory once, and what it says of an image computed once.
        copy.share_vision(policy)
    return CopyReference(copy.requires_grad_(False).eval(), config.reference)
