"""Rows that hold every pair of values of any two factors at least once."""

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]


def covering_rows(
    factors: Mapping[str, Sequence[Any]], is_allowed: Callable[[Row], bool], *, seed: int = 0, tries: int = 40
) -> list[Row]:
    """Rows over all factors, each allowed, that together hold every pair that some allowed row can hold.

    Greedy: of some random completions of a pair that is missing, the one that holds the most missing pairs.
    """
    draw = random.Random(seed)
    missing = {
        ((a, x), (b, y))
        for (a, xs), (b, ys) in itertools.combinations(factors.items(), 2)
        for x, y in itertools.product(range(len(xs)), range(len(ys)))
    }
    rows: list[Row] = []
    while missing:
        first, second = pair = min(missing)
        candidates = []
        for _ in range(tries):
            chosen = {name: draw.randrange(len(values)) for name, values in factors.items()} | dict((first, second))
            if is_allowed(_row(factors, chosen)):
                candidates.append(chosen)
        if not candidates:
            # Nothing allowed was found that holds it.
            missing.discard(pair)
            continue
        best = max(candidates, key=lambda chosen: len(_pairs(chosen) & missing))
        missing -= _pairs(best)
        rows.append(_row(factors, best))
    return rows


def _row(factors: Mapping[str, Sequence[Any]], chosen: dict[str, int]) -> Row:
    return {name: factors[name][index] for name, index in chosen.items()}


def _pairs(chosen: dict[str, int]) -> set:
    return set(itertools.combinations(chosen.items(), 2))
