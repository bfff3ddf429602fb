"""Which 1-degree cells are held out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.data.holdout import draw_examples, is_held_out, split_by_cell
from geogrpo.types import Example

FRACTIONS = (0.01, 0.1, 0.5, 0.9)


def corners() -> np.ndarray:
    """(64800, 2): the south-west corner of every cell."""
    return np.stack(np.meshgrid(np.arange(-90.0, 90), np.arange(-180.0, 180), indexing="ij"), axis=-1).reshape(-1, 2)


def splitmix64(number: int) -> int:
    """The output function of SplitMix64 in Python's own integers."""
    bits = number * 0x9E3779B97F4A7C15 % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_the_share_of_cells_is_the_fraction(fraction: float) -> None:
    # Four standard deviations of 64,800 independent draws
    bound = 4 * math.sqrt(fraction * (1 - fraction) / 64800)
    assert is_held_out(corners(), fraction).mean() == pytest.approx(fraction, abs=bound)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_share_is_the_same_in_every_part_of_the_world(axis: int) -> None:
    held_out = is_held_out(corners(), 0.5).reshape(180, 360)
    shares = held_out.mean(axis=axis)
    # A hash that repeats along rows or columns would give whole lines one side. Six deviations: there are 540 lines.
    assert np.abs(shares - 0.5).max() <= 6 * math.sqrt(0.25 / held_out.shape[axis])


def test_neighbouring_cells_are_unrelated() -> None:
    held_out = is_held_out(corners(), 0.5).reshape(180, 360)
    for same in (held_out[1:] == held_out[:-1], held_out[:, 1:] == held_out[:, :-1]):
        assert same.mean() == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / same.size))


@settings(deadline=None)
@given(
    lat=st.integers(-90, 89),
    lon=st.integers(-180, 179),
    inside=st.tuples(st.floats(0, 1 - 1e-9), st.floats(0, 1 - 1e-9)),
    fraction=st.sampled_from(FRACTIONS),
)
def test_a_cell_is_entirely_in_or_out(lat: int, lon: int, inside: tuple[float, float], fraction: float) -> None:
    points = np.array([(lat, lon), (lat + inside[0], lon + inside[1])])
    corner, other = is_held_out(points, fraction)
    assert corner == other


def test_longitudes_180_and_minus_180_are_one_cell() -> None:
    lats = np.arange(-90, 91) + 0.0
    sides = [np.stack([lats, np.full(len(lats), lon)], axis=-1) for lon in (-180.0, 180.0, 180.5, 540.0)]
    west, *others = (is_held_out(side, 0.5) for side in sides)
    for other in others:
        assert np.array_equal(west, other)
    # The cell next to it is another one.
    assert not np.array_equal(west, is_held_out(sides[0] + (0, 359), 0.5))


def test_negative_coordinates_round_down() -> None:
    points = np.array([(-0.5, -0.5)]) + np.arange(-80, 80)[:, None]
    assert np.array_equal(is_held_out(points, 0.5), is_held_out(np.floor(points), 0.5))
    assert not np.array_equal(is_held_out(points, 0.5), is_held_out(np.trunc(points), 0.5))


def test_a_larger_fraction_holds_out_the_same_cells_and_more() -> None:
    few, many = is_held_out(corners(), 0.1), is_held_out(corners(), 0.2)
    assert (many >= few).all()
    assert many.sum() > few.sum()


def test_the_choice_is_splitmix64_of_the_cells_number() -> None:
    # Another hash would silently mix training and test places of runs that are compared.
    sample = corners()[::97].astype(int).tolist()
    expected = [splitmix64((lat + 90) * 360 + lon + 180) < 0.1 * 2**64 for lat, lon in sample]
    assert is_held_out(np.array(sample), 0.1).tolist() == expected


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, False), (1.0, True)])
def test_nothing_or_everything_can_be_held_out(fraction: float, expected: bool) -> None:
    assert (is_held_out(corners(), fraction) == expected).all()


def test_a_split_keeps_every_example_once_and_in_order() -> None:
    points = np.random.default_rng(0).uniform((-90, -180), (90, 180), size=(500, 2))
    examples = [Example(str(i), "x.jpg", (float(lat), float(lon))) for i, (lat, lon) in enumerate(points)]
    splits = split_by_cell(examples, 0.3)
    held_out = is_held_out(points, 0.3)
    assert splits.train == [e for e, out in zip(examples, held_out, strict=True) if not out]
    assert splits.test == [e for e, out in zip(examples, held_out, strict=True) if out]
    assert split_by_cell([], 0.3).train == split_by_cell([], 0.3).test == []


def numbered(count: int) -> list[Example]:
    return [Example(str(i), "x.jpg", (0.0, float(i))) for i in range(count)]


def test_a_draw_is_random_fixed_by_the_seed_and_holds_nothing_twice() -> None:
    examples = numbered(100)
    first, again, other = (draw_examples(examples, 30, seed) for seed in (0, 0, 1))
    assert first == again
    assert {e.id for e in first} != {e.id for e in other}
    assert len({e.id for e in first}) == 30
    assert [e.id for e in first] != sorted((e.id for e in first), key=int)


@pytest.mark.parametrize("count", [0, 5, 6])
def test_a_draw_of_no_fewer_than_there_are_is_all_of_them_in_order(count: int) -> None:
    examples = numbered(5)
    assert draw_examples(examples, count, seed=3) == examples
    assert draw_examples([], count, seed=3) == []
