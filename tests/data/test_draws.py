"""Which examples a step takes: how often each comes, and that nothing depends on what was taken before."""

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from geogrpo.data.draws import DRAWS, Draw, make_draw, step_indices
from geogrpo.data.loader import load_batches
from geogrpo.types import EncodedPrompt, Example

SMALLEST_P = 1e-4
"""Of a frequency test: seeds are fixed, so a test that passes once passes always."""


def examples_of(countries: Sequence[str | None], difficulties: Sequence[Any] | None = None) -> list[Example]:
    values = [1.0] * len(countries) if difficulties is None else difficulties
    return [
        Example(f"example-{i}", "none.jpg", (0.0, 0.0), country, columns={"difficulty": difficulty})
        for i, (country, difficulty) in enumerate(zip(countries, values, strict=True))
    ]


def p_value(drawn: Sequence[int], shares: Sequence[float]) -> float:
    """Of drawn numbers 0, 1, ... having these shares."""
    counts = np.bincount(drawn, minlength=len(shares))
    return float(chisquare(counts, np.array(shares) / sum(shares) * len(drawn)).pvalue)


MANY = examples_of([*["France"] * 60, *["Chad"] * 5, *[None] * 15, "Fiji"], [i % 7 for i in range(81)])


def test_by_country_draws_countries_alike_and_their_examples_alike() -> None:
    draw = make_draw("by_country", MANY)
    # One per step: within a step, what was taken is out.
    drawn = [index for step in range(8000) for index in draw.indices(1, 3, step)]
    names = ["France", "Chad", None, "Fiji"]
    assert p_value([names.index(MANY[index].country) for index in drawn], [1, 1, 1, 1]) > SMALLEST_P
    for name in names[:3]:
        own = [index for index in drawn if MANY[index].country == name]
        members = [i for i, example in enumerate(MANY) if example.country == name]
        assert p_value([members.index(index) for index in own], [1] * len(members)) > SMALLEST_P


def test_by_difficulty_draws_in_proportion() -> None:
    draw = make_draw("by_difficulty", examples_of([None] * 6, ["0.5", 3, 0, 1.5, 2, 0]))
    drawn = [index for step in range(8000) for index in draw.indices(1, 3, step)]
    assert set(drawn) == {0, 1, 3, 4}
    shares = [0.5, 3, 1.5, 2]
    assert p_value([[0, 1, 3, 4].index(index) for index in drawn], shares) > SMALLEST_P


def test_by_difficulty_draws_the_second_in_proportion_to_what_is_left() -> None:
    weights = [1.0, 2.0, 5.0]
    draw = make_draw("by_difficulty", examples_of([None] * 3, weights))
    pairs = [tuple(draw.indices(2, 0, step)) for step in range(8000)]
    every = [(a, b) for a in range(3) for b in range(3) if a != b]
    shares = [weights[a] / 8 * weights[b] / (8 - weights[a]) for a, b in every]
    assert p_value([every.index(pair) for pair in pairs], shares) > SMALLEST_P


def test_weights_of_any_size_are_drawn_from() -> None:
    draw = make_draw("by_difficulty", examples_of([None] * 4, [1e308, 1e308, 1e20, 1e308]))
    assert sorted(draw.indices(4, 0, 0)) == [0, 1, 2, 3]
    assert draw.indices(4, 0, 0)[3] == 2


def test_extra_examples_are_as_frequent_as_the_draws_own() -> None:
    draw = make_draw("by_difficulty", examples_of([None] * 4, [1, 2, 4, 1]))
    drawn = [index for step in range(8000) for index in draw.extra_indices(1, 0, step, 1, per_step=0)]
    assert p_value(drawn, [1, 2, 4, 1]) > SMALLEST_P
    shuffled = make_draw("shuffled", MANY[:5])
    drawn = [index for step in range(8000) for index in shuffled.extra_indices(1, 0, step, 1, per_step=0)]
    assert p_value(drawn, [1] * 5) > SMALLEST_P


@pytest.mark.parametrize("name", DRAWS)
@settings(deadline=None, max_examples=40)
@given(num_examples=st.integers(1, 25), per_step=st.integers(1, 60), seed=st.integers(0, 3), step=st.integers(0, 40))
def test_no_example_comes_twice_before_all_have_come(
    name: str, num_examples: int, per_step: int, seed: int, step: int
) -> None:
    examples = examples_of([f"country-{i**2 % 7}" for i in range(num_examples)], [1 + i for i in range(num_examples)])
    draw = make_draw(name, examples)
    indices = draw.indices(per_step, seed, step)
    assert len(indices) == per_step
    counts = collections.Counter(indices)
    assert set(counts) <= set(range(num_examples))
    # A shuffled step may begin in the middle of an epoch.
    most = math.ceil(per_step / num_examples) + (name == "shuffled")
    assert max(counts.values()) <= most
    if name != "shuffled":
        assert min(counts[i] for i in range(num_examples)) >= per_step // num_examples


@pytest.mark.parametrize("name", DRAWS)
@settings(deadline=None, max_examples=40)
@given(per_step=st.integers(1, 30), count=st.integers(0, 30), step=st.integers(0, 20), number=st.integers(1, 3))
def test_extra_examples_are_others_while_there_are_any(
    name: str, per_step: int, count: int, step: int, number: int
) -> None:
    examples = examples_of([f"country-{i % 3}" for i in range(20)])
    draw = make_draw(name, examples)
    own = set(draw.indices(per_step, 5, step))
    extra = draw.extra_indices(count, 5, step, number, per_step=per_step)
    assert len(extra) == count
    others = extra[: 20 - len(own)]
    assert own.isdisjoint(others)
    assert len(set(others)) == len(others)
    # Ranks that ask for more get the same first ones.
    assert draw.extra_indices(count + 4, 5, step, number, per_step=per_step)[:count] == extra


@pytest.mark.parametrize("name", DRAWS)
def test_a_step_depends_on_nothing_but_seed_and_step(name: str) -> None:
    def taken(draw: Draw, step: int) -> tuple[list[int], ...]:
        rounds = [draw.extra_indices(6, 1, step, number, per_step=8) for number in (1, 2)]
        return draw.indices(8, 1, step), *rounds

    draw = make_draw(name, MANY)
    forwards = [taken(draw, step) for step in range(6)]
    assert [taken(draw, step) for step in reversed(range(6))] == forwards[::-1]
    assert taken(make_draw(name, MANY), 4) == forwards[4]
    everything = [tuple(indices) for step in forwards for indices in step]
    assert len(set(everything)) == len(everything)
    assert draw.indices(8, 2, 0) != draw.indices(8, 1, 0)


def test_shuffled_is_the_order_of_epochs() -> None:
    draw = make_draw("shuffled", MANY)
    assert [draw.indices(8, 3, step) for step in range(30)] == [step_indices(81, 8, 3, step) for step in range(30)]
    # As first released: a run that resumes goes on with the same examples.
    assert step_indices(10, 4, 0, 0) + step_indices(10, 4, 0, 1) == [9, 1, 3, 8, 7, 6, 0, 4]


def encode(example: Example) -> EncodedPrompt:
    return EncodedPrompt(example, *[None] * 4, question="")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", DRAWS)
def test_batches_follow_the_draw_wherever_a_run_starts(name: str) -> None:
    draw = make_draw(name, MANY)
    for start in (0, 3):
        batches = load_batches(MANY, encode, per_step=5, seed=7, steps=range(start, 6), draw=draw)
        for step, batch in enumerate(batches, start):
            assert [prompt.example.id for prompt in batch.prompts] == [MANY[i].id for i in draw.indices(5, 7, step)]


@pytest.mark.parametrize("value", [-1, "-0.5", math.nan, "nan", math.inf, "hard", [1], ""])
def test_a_difficulty_that_is_no_weight_is_refused_by_its_example(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"data\.draw by_difficulty: example 'example-1'.* must be a number of 0 or more"
    ):
        make_draw("by_difficulty", examples_of([None] * 3, [1, value, 1]))


def test_examples_without_difficulty_are_refused_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"example 'example-1' has no column `difficulty`\..* data\.draw: shuffled"):
        make_draw("by_difficulty", examples_of([None] * 2, [1, None]))
    bare = [Example("bare", "none.jpg", (0.0, 0.0))]
    with pytest.raises(ValueError, match=r"example 'bare' has no column `difficulty`"):
        make_draw("by_difficulty", bare)
    with pytest.raises(ValueError, match=r"`difficulty` is 0 in all 2 training examples"):
        make_draw("by_difficulty", examples_of([None] * 2, [0, "0"]))


def test_unknown_draws_and_no_examples_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"data\.draw 'random' is unknown\. Known: shuffled, by_country, by_difficulty"
    ):
        make_draw("random", MANY)
    for name in DRAWS:
        with pytest.raises(ValueError, match="there are no examples to train on"):
            make_draw(name, [])
