"""Sampling engines. To add one: a file here with a class that has `sample`, a line in ENGINES, a parity test."""

from collections.abc import Callable, Sequence
from typing import Protocol

from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rollout.native import NativeEngine
from geogrpo.types import EncodedPrompt, Rollouts


class Engine(Protocol):
    """What a sampler offers; see NativeEngine.sample for the arguments."""

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        *,
        group_size: int,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[tuple[int, ...]],
        on_finished: Callable[[int, str], None] | None = None,
    ) -> Rollouts:
        """G completions of every prompt."""


ENGINES: dict[str, Callable[[Processor], Engine]] = {"native": NativeEngine}


def make_engine(name: str, processor: Processor) -> Engine:
    """The engine called `name`, or a ValueError that lists the known ones."""
    if name not in ENGINES:
        raise ValueError(f"sampling.engine {name!r} is unknown. Known: {', '.join(ENGINES)}.")
    return ENGINES[name](processor)


__all__ = ["ENGINES", "Engine", "make_engine"]
