"""What one answer is worth, by hand. Shapes: N images."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geogrpo.metrics import (
    FARTHEST_KM,
    THRESHOLDS_KM,
    accuracy_within,
    charged_km,
    error_km,
    geoscore,
    geoscore_geoagent,
    is_within,
    usable_points,
)

NOWHERE = np.array([np.nan])
DISTANCES = st.lists(st.floats(0, 20015), min_size=1, max_size=20).map(np.array)
EPSILON = float(np.finfo(np.float64).eps)


@pytest.mark.parametrize(
    ("distance_km", "points"),
    [(0.0, 5000.0), (1492.7, 5000 / math.e), (2 * 1492.7, 5000 / math.e**2), (math.inf, 0.0), (math.nan, 0.0)],
)
def test_geoscore_is_that_computed_by_hand(distance_km: float, points: float) -> None:
    assert geoscore(np.array([distance_km])) == pytest.approx(points, rel=4 * EPSILON, abs=0)


@pytest.mark.parametrize(("distance_km", "points"), [(0.0, 5000.0), (1805.0, 5000 / math.e), (math.nan, 0.0)])
def test_geoagents_geoscore_is_that_computed_by_hand(distance_km: float, points: float) -> None:
    assert geoscore_geoagent(np.array([distance_km])) == pytest.approx(points, rel=4 * EPSILON, abs=0)


def test_the_two_geoscores_are_not_comparable() -> None:
    # The values at 1,000 km that the survey of protocols gives
    at_1000_km = np.array([1000.0])
    assert round(float(geoscore(at_1000_km)[0])) == 2559
    assert round(float(geoscore_geoagent(at_1000_km)[0])) == 2873


@given(distances=DISTANCES)
def test_geoscore_falls_with_distance_and_stays_in_range(distances: np.ndarray) -> None:
    for score in (geoscore, geoscore_geoagent):
        points = score(np.sort(distances))
        assert (np.diff(points) <= 0).all()
        assert (points > 0).all()
        assert (points <= 5000).all()


@pytest.mark.parametrize("threshold_km", THRESHOLDS_KM)
def test_a_threshold_is_inclusive_unless_asked_otherwise(threshold_km: float) -> None:
    distances = np.array([0.0, threshold_km, np.nextafter(threshold_km, np.inf), 20015.0])
    assert accuracy_within(distances, threshold_km).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert accuracy_within(distances, threshold_km, comparator="<").tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("comparator", ["<=", "<"])
@pytest.mark.parametrize("threshold_km", [*THRESHOLDS_KM, 20000, 20016, math.inf])
def test_an_answer_without_coordinates_is_a_miss_at_every_threshold(threshold_km: float, comparator: str) -> None:
    assert accuracy_within(NOWHERE, threshold_km, comparator=comparator).tolist() == [0.0]


def test_an_answer_without_coordinates_is_charged_half_the_circumference() -> None:
    distances = np.array([3.5, np.nan, 20000.0])
    assert charged_km(distances).tolist() == [3.5, FARTHEST_KM, 20000.0]
    assert pytest.approx(math.pi * 6371.0088) == FARTHEST_KM
    assert np.isnan(distances[1])


def test_an_unknown_comparator_is_rejected() -> None:
    with pytest.raises(ValueError, match="comparator must be one of <=, <, got '>'"):
        is_within(np.zeros(1), 1, comparator=">")


def test_distances_are_those_computed_by_hand() -> None:
    quarter = math.pi / 2 * 6371.0088
    cases = [
        ((0, 0), (0, 90), quarter),
        ((0, 0), (90, 37), quarter),
        # Over the date line, and over the pole
        ((0, 179), (0, -179), quarter / 45),
        ((89, 0), (89, 180), quarter / 45),
        ((90, 10), (90, -120), 0.0),
        ((90, 0), (-90, 0), 2 * quarter),
        ((math.nan, math.nan), (0, 0), math.nan),
        ((math.nan, 0), (0, 0), math.nan),
        ((91, 0), (0, 0), math.nan),
        ((0, math.inf), (0, 0), math.nan),
    ]
    predicted, truth, expected = (np.array(column, dtype=np.float64) for column in zip(*cases, strict=True))
    np.testing.assert_allclose(error_km(predicted, truth), expected, rtol=1e-12, atol=1e-9)


def test_the_earths_radius_can_be_chosen() -> None:
    zero, pole = np.zeros((1, 2)), np.array([[90.0, 0.0]])
    assert error_km(zero, pole, earth_radius_km=6371.0) == pytest.approx(math.pi / 2 * 6371.0, rel=1e-12)


def test_points_that_are_no_place_are_nowhere_whole() -> None:
    points = np.array([[np.nan, 3.0], [90.0, 540.0], [-90.5, 0.0]])
    np.testing.assert_array_equal(usable_points(points), [[np.nan, np.nan], [90.0, 540.0], [np.nan, np.nan]])
    # The caller's own are left alone
    assert points[2].tolist() == [-90.5, 0.0]


@pytest.mark.parametrize(
    ("predicted", "truth"), [((0, 2), (0, 2)), ((3, 2), (4, 2)), ((3, 3), (3, 3)), ((2,), (2,)), ((3, 1, 2), (3, 1, 2))]
)
def test_wrong_shapes_are_rejected(predicted: tuple[int, ...], truth: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must both be \(N, 2\) with N > 0, got") as error:
        error_km(np.zeros(predicted), np.zeros(truth))
    assert f"got {predicted} and {truth}" in str(error.value)


@pytest.mark.parametrize("truth", [(math.nan, 0.0), (90.5, 0.0), (0.0, math.inf)])
def test_a_truth_that_is_no_place_is_rejected_by_its_row(truth: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"true_latlon_deg\[1\] is not a place"):
        error_km(np.zeros((2, 2)), np.array([(0.0, 0.0), truth]))
