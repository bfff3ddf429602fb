"""Which training examples a step takes: data.draw. To add a way: a subclass of Draw here, a line in DRAWS.

What a step takes is a function of (seed, step) alone: nothing is stored, and any number of ranks sees the same.

Shapes: N examples.
"""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example


def step_indices(num_examples: int, per_step: int, seed: int, step: int) -> list[int]:
    """The examples of one step: consecutive positions in an endless run of fresh shuffles."""
    indices: list[int] = []
    while len(indices) < per_step:
        epoch, offset = divmod(step * per_step + len(indices), num_examples)
        order = np.random.default_rng(stream_seed(seed, Stream.DATA_ORDER, epoch)).permutation(num_examples)
        indices.extend(order[offset : offset + per_step - len(indices)].tolist())
    return indices


class Draw(ABC):
    """Examples of every step. Within a step none comes twice before all that can come have come."""

    @abstractmethod
    def once(self, rng: np.random.Generator) -> Iterator[int]:
        """Every example that can come, once, in an order drawn as one asks for the next."""

    def indices(self, per_step: int, seed: int, step: int) -> list[int]:
        """The examples of a 0-based step."""
        rng = np.random.default_rng(stream_seed(seed, Stream.DATA_ORDER, step))
        return list(itertools.islice(self._again_and_again(rng), per_step))

    def extra_indices(self, count: int, seed: int, step: int, number: int, *, per_step: int) -> list[int]:
        """Further examples for a step, drawn the same way from a stream of their own; the step's own come only when
        there are no others.

        Args:
            number: of the round of fresh prompts within the step.
            per_step: as the step itself was drawn.
        """
        own = set(self.indices(per_step, seed, step))
        rng = np.random.default_rng(stream_seed(seed, Stream.RESAMPLING, step, number))
        others = (index for index in self.once(rng) if index not in own)
        return list(itertools.islice(itertools.chain(others, self._again_and_again(rng)), count))

    def _again_and_again(self, rng: np.random.Generator) -> Iterator[int]:
        while True:
            yield from self.once(rng)


class Shuffled(Draw):
    """Each example once per epoch."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._num_examples = len(examples)

    def once(self, rng: np.random.Generator) -> Iterator[int]:
        """As in Draw."""
        deck = _Deck(self._num_examples)
        return (deck.take(rng) for _ in range(self._num_examples))

    def indices(self, per_step: int, seed: int, step: int) -> list[int]:
        """As in Draw; epochs go on from step to step."""
        return step_indices(self._num_examples, per_step, seed, step)


class ByCountry(Draw):
    """A country at random, then one of its examples: rare countries come as often as common ones.

    Examples without a country are one country of their own. A country all of whose examples a step has taken is left
    out of what follows in that step.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        code_of: dict[str | None, int] = {}
        codes = np.fromiter((code_of.setdefault(example.country, len(code_of)) for example in examples), np.int32)
        # Stable: an example's place does not depend on how NumPy sorts.
        order = np.argsort(codes, kind="stable")
        self._members = np.split(order, np.cumsum(np.bincount(codes))[:-1])

    def once(self, rng: np.random.Generator) -> Iterator[int]:
        """As in Draw."""
        decks: dict[int, _Deck] = {}
        countries = list(range(len(self._members)))
        while countries:
            at = int(rng.integers(len(countries)))
            members = self._members[countries[at]]
            deck = decks.setdefault(countries[at], _Deck(len(members)))
            yield int(members[deck.take(rng)])
            if not len(deck):
                countries[at] = countries[-1]
                countries.pop()


class ByDifficulty(Draw):
    """At random in proportion to the column `difficulty`; those of difficulty 0 never come.

    Raises:
        ValueError: naming an example whose difficulty is missing or not a number of 0 or more, or when all are 0.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        weights = np.fromiter((_difficulty(example) for example in examples), np.float64)
        if not weights.any():
            raise ValueError(
                f"data.draw by_difficulty: the column `difficulty` is 0 in all {len(weights):,} training examples,"
                " so that none would ever come."
            )
        # Scaled: their sum is finite whatever their unit.
        self._tree = _SumTree(weights / weights.max())

    def once(self, rng: np.random.Generator) -> Iterator[int]:
        """As in Draw."""
        return self._tree.drain(rng)


def _difficulty(example: Example) -> float:
    value = example.columns.get("difficulty")
    where = f"data.draw by_difficulty: example {example.id!r}"
    if value is None:
        raise ValueError(f"{where} has no column `difficulty`. Add it to the data, or use data.draw: shuffled.")
    try:
        # Tables give text.
        difficulty = float(value)
    except (TypeError, ValueError):
        difficulty = math.nan
    if not 0 <= difficulty < math.inf:
        raise ValueError(f"{where}: the column `difficulty` must be a number of 0 or more, got {value!r}.")
    return difficulty


class _Deck:
    """The numbers 0 to size - 1, drawn without replacement in constant time each: a Fisher-Yates shuffle that stores
    only what it has moved.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._moved: dict[int, int] = {}

    def __len__(self) -> int:
        return self._size

    def take(self, rng: np.random.Generator) -> int:
        """One of the numbers left."""
        at, self._size = int(rng.integers(self._size)), self._size - 1
        last = self._moved.pop(self._size, self._size)
        if at == self._size:
            return last
        taken = self._moved.get(at, at)
        self._moved[at] = last
        return taken


class _SumTree:
    """Draws in proportion to weights, without replacement, in O(log N) each: node k is the sum of nodes 2k and 2k + 1,
    the leaves are the weights.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self._num_leaves = 1 << max(0, len(weights) - 1).bit_length()
        self._sums = np.zeros(2 * self._num_leaves)
        level = self._sums[self._num_leaves :]
        level[: len(weights)] = weights
        while len(level) > 1:
            first = len(level) // 2
            self._sums[first : 2 * first] = level[0::2] + level[1::2]
            level = self._sums[first : 2 * first]

    def drain(self, rng: np.random.Generator) -> Iterator[int]:
        """Every leaf of a weight above 0, once, in random order."""
        # What differs from the whole tree: it is shared by all steps.
        changed: dict[int, float] = {}

        def total(node: int) -> float:
            return changed[node] if node in changed else float(self._sums[node])

        while total(1) > 0:
            node, rest = 1, rng.random() * total(1)
            while node < self._num_leaves:
                node *= 2
                # The second: rounding must not lead to where nothing is left.
                if rest >= total(node) and total(node + 1) > 0:
                    rest -= total(node)
                    node += 1
            yield node - self._num_leaves
            changed[node] = 0.0
            while node > 1:
                node //= 2
                # Summed anew and not subtracted, so that what is empty is exactly 0.
                changed[node] = total(2 * node) + total(2 * node + 1)


DRAWS: dict[str, Callable[[Sequence[Example]], Draw]] = {
    "shuffled": Shuffled,
    "by_country": ByCountry,
    "by_difficulty": ByDifficulty,
}
"""What data.draw can name."""


def make_draw(name: str, examples: Sequence[Example]) -> Draw:
    """The draw that data.draw names, after at most one pass over the examples.

    Raises:
        ValueError: when there are no examples, or as the draw's own class says.
    """
    if len(examples) == 0:
        raise ValueError("there are no examples to train on.")
    if name not in DRAWS:
        raise ValueError(f"data.draw {name!r} is unknown. Known: {', '.join(DRAWS)}.")
    return DRAWS[name](examples)
