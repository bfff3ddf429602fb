"""Rewards from regions against answers worked out by hand.

Paris, Lyon and Marseille are in three states of France; Brussels is in Belgium.
"""

import pytest

from geogrpo.rewards.region import consistency, coordinates_region, named_region
from geogrpo.types import Prediction

PARIS, VERSAILLES, LYON, BRUSSELS = (48.8566, 2.3522), (48.8044, 2.1232), (45.7640, 4.8357), (50.8503, 4.3517)


def predictions(*answers: tuple) -> list[Prediction]:
    """From (country, state, city, coordinates)."""
    return [Prediction("", country, state, city, latlon_deg) for country, state, city, latlon_deg in answers]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(PARIS, 1.0), (VERSAILLES, 0.5), (LYON, 0.2), (BRUSSELS, 0.0), (None, 0.0)],
)
def test_coordinates_earn_the_regions_they_share_with_the_truth(answer: tuple | None, expected: float) -> None:
    (earned,) = coordinates_region([], [], prediction=predictions((None, None, None, answer)), latlon_deg=[PARIS])
    assert earned == pytest.approx(expected)


@pytest.mark.parametrize(
    ("country", "state", "city", "expected"),
    [
        ("France", "Île-de-France", "Paris", 1.0),
        ("Frankreich", "ile de france", "パリ", 1.0),
        ("France", "Île-de-France", "Lyon", 0.5),
        ("France", None, "Paris", 0.2),
        ("Belgium", "Île-de-France", "Paris", 0.0),
        (None, "Île-de-France", "Paris", 0.0),
    ],
)
def test_names_count_only_below_a_right_parent(
    country: str | None, state: str | None, city: str | None, expected: float
) -> None:
    (earned,) = named_region(
        [],
        [],
        prediction=predictions((country, state, city, None)),
        country=["France"],
        state=["Île-de-France"],
        city=["Paris"],
    )
    assert earned == pytest.approx(expected)


def test_levels_that_the_truth_lacks_are_left_out() -> None:
    truth = {"country": ["France", None], "state": [None, None], "city": ["Paris", "Paris"]}
    answers = predictions(("France", "Nowhere", "Paris", None), ("France", None, "Paris", None))
    assert named_region([], [], prediction=answers, **truth) == [pytest.approx(1.0), None]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (("France", "Île-de-France", "Paris", PARIS), 1.0),
        (("France", "Île-de-France", "Paris", LYON), 1 / 3),
        (("France", None, None, LYON), 1.0),
        # Consistent, and wrong
        (("Belgium", None, "Brussels", BRUSSELS), 0.0),
        (("France", None, "Paris", None), 0.0),
        ((None, None, None, PARIS), 0.0),
    ],
)
def test_a_chain_that_its_coordinates_contradict_earns_less(answer: tuple, expected: float) -> None:
    (earned,) = consistency([], [], prediction=predictions(answer), latlon_deg=[PARIS])
    assert earned == pytest.approx(expected)


def test_no_completions_earn_nothing() -> None:
    assert coordinates_region([], [], prediction=[], latlon_deg=[]) == []
    assert consistency([], [], prediction=[], latlon_deg=[]) == []
    assert named_region([], [], prediction=[], country=[], state=[], city=[]) == []
