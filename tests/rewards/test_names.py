"""Rewards from names as published, against values worked out by hand."""

import pytest

from geogrpo.rewards.names import (
    geoagent_semantic,
    geoagent_spatial,
    geovista,
    globe_exact,
    globe_substring,
)
from geogrpo.types import Prediction

TRUTH = {"country": ["France"], "state": ["Île-de-France"], "city": ["Paris"]}


def named(country: str | None, state: str | None = None, city: str | None = None) -> list[Prediction]:
    return [Prediction("", country, state, city)]


@pytest.mark.parametrize(
    ("country", "city", "expected"),
    [
        ("France", "Paris", 1.0),
        (" FRANCE ", "paris", 1.0),
        ("France", "Lyon", 0.2),
        ("France", None, 0.2),
        ("Spain", "Paris", 0.0),
        (None, "Paris", 0.0),
        ("Frankreich", "Paris", 0.0),
    ],
)
def test_exact_accuracy_is_a_fifth_for_the_country_and_the_rest_for_the_city(
    country: str | None, city: str | None, expected: float
) -> None:
    assert globe_exact([], [], prediction=named(country, None, city), country=["France"], city=["Paris"]) == [expected]


# Both columns are what GLOBE's rule makes of the pair, right or wrong: 0.7 of the longer name, as a substring
@pytest.mark.parametrize(
    ("predicted", "truth", "is_match"),
    [
        ("niger", "nigeria", True),
        ("India", "Indiana", True),
        ("oman", "roman", True),
        ("usa", "united states", False),
        ("united states", "united states of america", False),
        ("new york", "new york city", False),
        ("são paulo", "sao paulo", False),
        ("abcdefg", "abcdefghij", True),
        ("abcdef", "abcdefghij", False),
        ("France", "france", True),
    ],
)
def test_the_substring_rule_is_globes_with_its_mistakes(predicted: str, truth: str, is_match: bool) -> None:
    for a, b in ((predicted, truth), (truth, predicted)):
        (earned,) = globe_substring([], [], prediction=named(a), country=[b], city=["Paris"])
        assert earned == (0.2 if is_match else 0.0)


def test_a_truth_without_names_earns_nothing() -> None:
    for reward in (globe_exact, globe_substring):
        assert reward([], [], prediction=named("France", None, "Paris"), country=[None], city=[None]) == [0.0]
        assert reward([], [], prediction=named("France", None, ""), country=["France"], city=[""]) == [0.2]
    nothing = {"country": [None], "state": [None], "city": [None]}
    for chained in (geovista, geoagent_semantic, geoagent_spatial):
        assert chained([], [], prediction=named("France", "Île-de-France", "Paris"), **nothing) == [0.0]


@pytest.mark.parametrize(
    ("levels", "vista", "semantic"),
    [
        (("France", "Île-de-France", "Paris"), 4.0, 1.0),
        (("Frankreich", "ile de france", "パリ"), 4.0, 1.0),
        (("France", "Île-de-France", "Lyon"), 2.0, 0.7),
        (("France", "Brittany", "Paris"), 4.0, 0.1),
        (("France", "Brittany", "Brest"), 1.0, 0.1),
        # GeoVista takes the country from the city; GeoAgent asks for each level above
        (("Belgium", "Île-de-France", "Paris"), 4.0, 0.0),
        ((None, None, None), 0.0, 0.0),
    ],
)
def test_hierarchies_of_names(levels: tuple, vista: float, semantic: float) -> None:
    assert geovista([], [], prediction=named(*levels), **TRUTH) == [vista]
    assert geoagent_semantic([], [], prediction=named(*levels), **TRUTH) == [pytest.approx(semantic)]


def test_levels_that_the_truth_lacks_are_left_out_of_geoagents_names() -> None:
    truth = {"country": ["Singapore"], "state": [None], "city": ["Singapore"]}
    assert geoagent_semantic([], [], prediction=named("Singapore", None, "Singapore"), **truth) == [1.0]
    assert geoagent_semantic([], [], prediction=named("Singapore"), **truth) == [pytest.approx(0.25)]


def test_the_distance_between_named_places_counts_whatever_the_coordinates() -> None:
    same, far = named("France", "Île-de-France", "Paris"), named("Japan", None, "Tokyo")
    assert geoagent_spatial([], [], prediction=same, **TRUTH) == [1.0]
    assert geoagent_spatial([], [], prediction=far, **TRUTH) == [0.0]
    # Brussels is 264 km from Paris: exp(-264 / 200)
    (near,) = geoagent_spatial([], [], prediction=named("Belgium", None, "Brussels"), **TRUTH)
    assert near == pytest.approx(0.267, abs=0.005)
    assert geoagent_spatial([], [], prediction=named(None), **TRUTH) == [0.0]
