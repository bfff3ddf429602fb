"""Held-out examples, chosen by place: whole 1-degree cells; and the draw of those evaluated on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from geogrpo.config import DataConfig
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example


@dataclass(frozen=True)
class Splits:
    """Examples to train on and to evaluate on."""

    train: Sequence[Example]
    """Of stage 1, and of stage 2 where it has none of its own."""
    test: Sequence[Example]
    only_grpo: Sequence[Example] | None = None
    """Stage 2's own examples; None where it has none."""

    @property
    def grpo_train(self) -> Sequence[Example]:
        """What stage 2 trains on."""
        return self.train if self.only_grpo is None else self.only_grpo


def is_held_out(latlon_deg: np.ndarray, fraction: float) -> np.ndarray:
    """Whether each point lies in a held-out 1-degree cell.

    A cell is [floor(lat), floor(lat) + 1) x [floor(lon), floor(lon) + 1), longitudes wrapped; a hash of its corner
    decides, so the answer never depends on the other examples or on a seed.

    Args:
        latlon_deg: (N, 2) degrees.
        fraction: share of cells held out, in [0, 1].
    Returns:
        (N,) bool.
    """
    corner = np.floor(np.asarray(latlon_deg, dtype=np.float64)).astype(np.int64)
    cell = (corner[:, 0] + 90) * 360 + (corner[:, 1] + 180) % 360
    # SplitMix64 (Steele, Lea, Flood 2014): neighbouring cells get unrelated values. uint64 wraps on purpose.
    bits = cell.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    # The upper 53 bits as a number in [0, 1), exactly
    return (bits >> np.uint64(11)) * 2.0**-53 < fraction


class Selectable(Protocol):
    """Examples that are not made to be looked at or selected."""

    @property
    def latlon_deg(self) -> np.ndarray:
        """(N, 2) degrees."""

    def select(self, rows: np.ndarray) -> Sequence[Example]:
        """The examples at (N,) bool."""


def split_by_cell(examples: Sequence[Example], fraction: float) -> Splits:
    """Examples in training cells and examples in held-out cells."""
    if hasattr(examples, "select"):
        many = cast(Selectable, examples)
        held_out = is_held_out(many.latlon_deg, fraction)
        return Splits(train=many.select(~held_out), test=many.select(held_out))
    held_out = is_held_out(np.array([example.latlon_deg for example in examples]).reshape(-1, 2), fraction)
    return Splits(
        train=[example for example, is_test in zip(examples, held_out, strict=True) if not is_test],
        test=[example for example, is_test in zip(examples, held_out, strict=True) if is_test],
    )


def split_files(
    config: DataConfig,
    read: Callable[[str], Sequence[Example]],
    read_test: Callable[[str], Sequence[Example]] | None = None,
) -> Splits:
    """The splits of formats that read `path`, `grpo_path` and `test_path`.

    Without a test_path, the same 1-degree cells are held out of `path` and of `grpo_path`; what grpo_path has in them
    is neither trained nor evaluated on. Without a path there is nothing to train on.

    Args:
        read_test: reads test_path; None: as the others.
    Raises:
        ValueError: when there is neither a path nor a test_path, or a grpo_path alone.
    """
    if config.path is None:
        if config.test_path is None or config.grpo_path is not None:
            raise ValueError(
                f"data.path must be set when data.name is {config.name}; to evaluate only, set data.test_path alone."
            )
        return Splits([], (read_test or read)(config.test_path))
    examples = read(config.path)
    own = None if config.grpo_path is None else read(config.grpo_path)
    if config.test_path is not None:
        return Splits(examples, (read_test or read)(config.test_path), own)
    splits = split_by_cell(examples, config.test_fraction)
    return Splits(splits.train, splits.test, None if own is None else split_by_cell(own, config.test_fraction).train)


def draw_examples(examples: Sequence[Example], num_drawn: int, seed: int) -> Sequence[Example]:
    """A random draw fixed by the seed; all examples in their order when num_drawn is 0 or no less than their number."""
    if num_drawn == 0 or num_drawn >= len(examples):
        return examples
    order = np.random.default_rng(stream_seed(seed, Stream.HELD_OUT)).permutation(len(examples))
    return [examples[i] for i in order[:num_drawn].tolist()]
