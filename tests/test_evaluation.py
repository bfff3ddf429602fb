"""The constant guess by hand."""

import numpy as np
import pytest
from PIL import Image

from geogrpo.evaluation import best_constant_guess
from geogrpo.types import Example


def at(*points: tuple[float, float]) -> list[Example]:
    return [Example(str(i), Image.new("RGB", (1, 1)), point) for i, point in enumerate(points)]


def test_the_best_constant_guess_is_the_middle_of_the_crowd() -> None:
    assert best_constant_guess(at((0, 0), (0, 1), (0, 2), (0, 100))).tolist() == [0, 1]
    # Longitudes meet at the antimeridian, where their mean would be at 60.
    assert best_constant_guess(at((5, 179), (5, -179), (5, 180))).tolist() == [5, 180]
    assert best_constant_guess(at((-90, 7))).tolist() == [-90, 7]


def test_two_near_points_beat_one_in_the_middle() -> None:
    """60 degrees are 4.5 scales of the score, where 1 % of the points is left. Of the two, 60 is nearer the others."""
    assert best_constant_guess(at((0, 0), (0, 60), (0, 60.5), (0, -60))).tolist() == [0, 60]


@pytest.mark.parametrize("max_points", [1, 3])
def test_the_guess_is_chosen_from_a_draw_fixed_by_the_seed(max_points: int) -> None:
    rng = np.random.default_rng(0)
    examples = at(*[(float(lat), float(lon)) for lat, lon in rng.uniform(-80, 80, (50, 2))])
    first, again, other = (best_constant_guess(examples, max_points=max_points, seed=seed) for seed in (1, 1, 2))
    assert first.tolist() == again.tolist() != other.tolist()
    assert tuple(first.tolist()) in [example.latlon_deg for example in examples]
