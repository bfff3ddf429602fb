"""Examples in the order of a draw (draws.py), encoded by threads while earlier steps train."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from geogrpo.data.draws import Draw, make_draw
from geogrpo.distributed import shard_slice
from geogrpo.types import EncodedPrompt, Example

STEPS_AHEAD = 2
"""Steps whose images are decoded or waiting while one trains."""


@dataclass(frozen=True)
class Batch:
    """This rank's part of one step."""

    prompts: list[EncodedPrompt]
    """Examples whose image could be read, encoded."""
    positions: list[int]
    """Where each prompt stands in the step, over all ranks: 0 to examples_per_step - 1."""
    skipped: list[str]
    """One message per example whose image could not be read."""


def encode_all(
    examples: Sequence[Example], indices: Sequence[int], encode: Callable[[Example], EncodedPrompt], positions: range
) -> Batch:
    """Encode examples; one whose image cannot be read is left out and named, never replaced."""
    encoded = [_encoded(encode, examples[index]) for index in indices]
    return _batch(encoded, positions)


def _encoded(encode: Callable[[Example], EncodedPrompt], example: Example) -> EncodedPrompt | str:
    """The prompt, or why there is none."""
    try:
        return encode(example)
    except ValueError as error:
        return str(error)


def _batch(encoded: Sequence[EncodedPrompt | str], positions: range) -> Batch:
    kept = [(at, prompt) for at, prompt in zip(positions, encoded, strict=True) if isinstance(prompt, EncodedPrompt)]
    return Batch(
        prompts=[prompt for _, prompt in kept],
        positions=[at for at, _ in kept],
        skipped=[message for message in encoded if isinstance(message, str)],
    )


def load_batches(
    examples: Sequence[Example],
    encode: Callable[[Example], EncodedPrompt],
    *,
    per_step: int,
    seed: int,
    steps: range,
    num_threads: int | None = None,
    draw: Draw | None = None,
) -> Generator[Batch]:
    """This rank's batch of every step, STEPS_AHEAD prepared in threads while one trains: each image is decoded once.

    Args:
        num_threads: None for a quarter of this process's: on a CPU more would take the training step's cores.
        draw: which examples a step takes; each once per epoch, when None.
    Raises:
        ValueError: when there are no examples.

    Close it (contextlib.closing) where training may raise: it then drops what nobody will see.
    """
    draw = draw or make_draw("shuffled", examples)
    mine = shard_slice(per_step)

    def submit(pool: ThreadPoolExecutor, step: int) -> list[Future[EncodedPrompt | str]]:
        indices = draw.indices(per_step, seed, step)[mine]
        # Taken here: a sequence of examples need not be safe to read from several threads.
        return [pool.submit(_encoded, encode, examples[index]) for index in indices]

    num_threads = num_threads or max(1, torch.get_num_threads() // 4)
    pool = ThreadPoolExecutor(max_workers=num_threads, thread_name_prefix="loader")
    try:
        ahead: deque[list[Future[EncodedPrompt | str]]] = deque()
        not_begun = iter(steps)
        for _ in steps:
            for step in itertools.islice(not_begun, 1 + STEPS_AHEAD - len(ahead)):
                ahead.append(submit(pool, step))
            yield _batch([future.result() for future in ahead.popleft()], range(per_step)[mine])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
