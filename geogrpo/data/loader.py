"""Examples in a fixed random order, encoded one step ahead of the training loop.

Which examples a step sees is a function of (seed, step) alone: resuming needs no stored position, and any number of
ranks sees the same examples.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from geogrpo.distributed import shard_slice
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import EncodedPrompt, Example


@dataclass(frozen=True)
class Batch:
    """This rank's part of one step."""

    prompts: list[EncodedPrompt]
    """Examples whose image could be read, encoded."""
    positions: list[int]
    """Where each prompt stands in the step, over all ranks: 0 to examples_per_step - 1."""
    skipped: list[str]
    """One message per example whose image could not be read."""


def step_indices(num_examples: int, per_step: int, seed: int, step: int) -> list[int]:
    """The examples of one step: consecutive positions in an endless run of fresh shuffles."""
    indices: list[int] = []
    while len(indices) < per_step:
        epoch, offset = divmod(step * per_step + len(indices), num_examples)
        order = np.random.default_rng(stream_seed(seed, Stream.DATA_ORDER, epoch)).permutation(num_examples)
        indices.extend(order[offset : offset + per_step - len(indices)].tolist())
    return indices


def encode_all(
    examples: Sequence[Example], indices: Sequence[int], encode: Callable[[Example], EncodedPrompt], positions: range
) -> Batch:
    """Encode examples; one whose image cannot be read is left out and named, never replaced."""
    prompts, kept, skipped = [], [], []
    for position, index in zip(positions, indices, strict=True):
        try:
            prompts.append(encode(examples[index]))
            kept.append(position)
        except ValueError as error:
            skipped.append(str(error))
    return Batch(prompts, kept, skipped)


def load_batches(
    examples: Sequence[Example],
    encode: Callable[[Example], EncodedPrompt],
    *,
    per_step: int,
    seed: int,
    steps: range,
) -> Iterator[Batch]:
    """This rank's batch of every step, prepared in a thread while the previous one trains."""
    if len(examples) == 0:
        raise ValueError("there are no examples to train on.")

    def prepare(step: int) -> Batch:
        mine = shard_slice(per_step)
        indices = step_indices(len(examples), per_step, seed, step)[mine]
        return encode_all(examples, indices, encode, range(per_step)[mine])

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as pool:
        pending: Future[Batch] | None = None
        for step in steps:
            current = pending or pool.submit(prepare, step)
            pending = pool.submit(prepare, step + 1) if step + 1 < steps.stop else None
            yield current.result()
