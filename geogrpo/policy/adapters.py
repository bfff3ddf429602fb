"""The adapter as it once was, put back for as long as somebody asks: a reference policy that takes no second model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from geogrpo.checkpoint import read_parameters
from geogrpo.distributed import reshard
from geogrpo.policy.lora import adapter_parameters
from geogrpo.policy.model import Policy


def has_adapter(policy: Policy) -> bool:
    """Whether adapters train instead of the model's own parameters."""
    return bool(adapter_parameters(policy))


class AdapterSnapshot:
    """Remembers the adapter's parameters as they are now, this rank's shards of them.

    Args:
        policy: sharded or not.
    Raises:
        ValueError: when it has no adapter.
    """

    def __init__(self, policy: Policy) -> None:
        if not has_adapter(policy):
            raise ValueError("the policy has no adapter: model.lora.rank must be above 0.")
        self._policy = policy
        self._values = _copies(policy)

    @classmethod
    def from_checkpoint(cls, policy: Policy, checkpoint: Path) -> "AdapterSnapshot":
        """The adapter of a checkpoint, the policy's own left as it is; every rank must call this.

        Raises:
            ValueError: naming the checkpoint, when it is none or holds no adapter of this shape.
        """
        snapshot = cls(policy)
        read_parameters(checkpoint, snapshot._values)
        return snapshot

    @contextmanager
    def applied(self) -> Iterator[Policy]:
        """The policy with the adapter that is remembered, in eval mode and without gradients; afterwards it has the
        adapter it had before, bit by bit, also where an error passes.

        Under FSDP2 the parameters that are gathered are gathered anew, inside and afterwards.
        """
        policy = self._policy
        trained, was_training = _copies(policy), policy.training
        policy.eval()
        try:
            with torch.no_grad():
                _put(policy, self._values)
                yield policy
        finally:
            _put(policy, trained)
            policy.train(was_training)


def _copies(policy: Policy) -> dict[str, Tensor]:
    """The adapter's parameters by name, under FSDP2 this rank's shards."""
    # While they are gathered, the modules hold other tensors than the shards.
    reshard(policy)
    return {name: parameter.detach().clone() for name, parameter in adapter_parameters(policy).items()}


@torch.no_grad()
def _put(policy: Policy, values: Mapping[str, Tensor]) -> None:
    reshard(policy)
    for name, parameter in adapter_parameters(policy).items():
        parameter.copy_(values[name])
