"""Sampling engines. To add one: a file here with a class that has `sample`, a line in ENGINES, a parity test."""

from collections.abc import Callable, Sequence
from typing import Protocol

from geogrpo.clock import Clock
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rollout.native import MAX_ROWS, NativeEngine
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
        on_text: Callable[[int, str], None] | None = None,
        clock: Clock | None = None,
    ) -> Rollouts:
        """G completions of every prompt."""


ENGINES: dict[str, Callable[[Processor, int], Engine]] = {"native": NativeEngine}


def make_engine(name: str, processor: Processor, *, max_rows: int = MAX_ROWS) -> Engine:
    """The engine called `name`, decoding at most max_rows completions at once, or a ValueError that lists the known."""
    if name not in ENGINES:
        raise ValueError(f"sampling.engine {name!r} is unknown. Known: {', '.join(ENGINES)}.")
    return ENGINES[name](processor, max_rows)


__all__ = ["ENGINES", "Engine", "make_engine"]
