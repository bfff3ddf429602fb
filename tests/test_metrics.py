"""Metrics by hand, and the laws of the bootstrap. Shapes: N images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.metrics import (
    FARTHEST_KM,
    THRESHOLDS_KM,
    Estimate,
    accuracy_within,
    bootstrap,
    charged_km,
    geoscore,
    paired_difference,
    summarize,
)

NOWHERE = np.array([np.nan])
DISTANCES = st.lists(st.floats(0, 20015), min_size=1, max_size=20).map(np.array)


@pytest.fixture
def normal_values() -> np.ndarray:
    """400 numbers of mean 0 and deviation 1."""
    values = np.random.default_rng(0).normal(size=400)
    return (values - values.mean()) / values.std()


@pytest.mark.parametrize(
    ("distance_km", "points"),
    [(0.0, 5000.0), (1492.7, 5000 / math.e), (2 * 1492.7, 5000 / math.e**2), (math.inf, 0.0), (math.nan, 0.0)],
)
def test_geoscore_is_that_computed_by_hand(distance_km: float, points: float) -> None:
    assert geoscore(np.array([distance_km])) == pytest.approx(points, rel=4 * np.finfo(np.float64).eps, abs=0)


@given(distances=DISTANCES)
def test_geoscore_falls_with_distance_and_stays_in_range(distances: np.ndarray) -> None:
    points = geoscore(np.sort(distances))
    assert (np.diff(points) <= 0).all()
    assert (points > 0).all()
    assert (points <= 5000).all()


@pytest.mark.parametrize("threshold_km", THRESHOLDS_KM)
def test_a_threshold_is_inclusive(threshold_km: float) -> None:
    distances = np.array([0.0, threshold_km, np.nextafter(threshold_km, np.inf), 20015.0])
    assert accuracy_within(distances, threshold_km).tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("threshold_km", [*THRESHOLDS_KM, 20000, 20016, math.inf])
def test_an_answer_without_coordinates_is_a_miss_at_every_threshold(threshold_km: float) -> None:
    assert accuracy_within(NOWHERE, threshold_km).tolist() == [0.0]


def test_an_answer_without_coordinates_is_charged_half_the_circumference() -> None:
    distances = np.array([3.5, np.nan, 20000.0])
    assert charged_km(distances).tolist() == [3.5, FARTHEST_KM, 20000.0]
    assert pytest.approx(math.pi * 6371.0088) == FARTHEST_KM
    assert np.isnan(distances[1])


def test_summary_is_that_computed_by_hand() -> None:
    distances = np.array([0.5, 25.0, 300.0, 2600.0, np.nan])
    summary = summarize(distances, np.array([True, True, True, False, False]), num_samples=100)
    values = {name: estimate.value for name, estimate in summary.items()}
    points = [5000 * math.exp(-d / 1492.7) for d in (0.5, 25.0, 300.0, 2600.0)]
    assert values == pytest.approx(
        {
            "within_1_km": 0.2,
            "within_25_km": 0.4,
            "within_200_km": 0.4,
            "within_750_km": 0.6,
            "within_2500_km": 0.6,
            "geoscore": sum(points) / 5,
            "country_accuracy": 0.6,
            "unparseable": 0.2,
            "median_km": 300.0,
        }
    )


def test_the_median_charges_answers_without_coordinates() -> None:
    summary = summarize(np.array([10.0, np.nan, np.nan]), np.zeros(3, dtype=bool), num_samples=100)
    assert summary["median_km"].value == FARTHEST_KM


@pytest.mark.parametrize("statistic", ["mean", "median"])
@settings(deadline=None)
@given(distances=DISTANCES, seed=st.integers(0, 9))
def test_the_interval_is_ordered_and_lies_within_the_values(statistic: str, distances: np.ndarray, seed: int) -> None:
    estimate = bootstrap(distances, num_samples=100, seed=seed, statistic=statistic)
    # A mean of equal numbers is off by their rounding.
    slack = 1e-12 * distances.max()
    assert distances.min() - slack <= estimate.low <= estimate.high <= distances.max() + slack


def test_the_interval_contains_the_value(normal_values: np.ndarray) -> None:
    for statistic in ("mean", "median"):
        estimate = bootstrap(normal_values, num_samples=2000, statistic=statistic)
        assert estimate.low < estimate.value < estimate.high
    assert bootstrap(normal_values + 3, num_samples=200).value == pytest.approx(3)


def test_the_interval_of_the_mean_is_that_of_the_normal_law(normal_values: np.ndarray) -> None:
    estimate = bootstrap(normal_values, num_samples=2000)
    # 1.96 deviations of the mean on each side. A quantile of 2000 draws is off by sqrt(.025 * .975 / 2000) / .0584
    # = 0.06 deviations; four times that is allowed.
    assert estimate.low * math.sqrt(400) == pytest.approx(-1.96, abs=0.24)
    assert estimate.high * math.sqrt(400) == pytest.approx(1.96, abs=0.24)


def test_four_times_the_images_halve_the_interval(normal_values: np.ndarray) -> None:
    few, many = (bootstrap(np.tile(normal_values, copies), num_samples=2000) for copies in (1, 4))
    # Each width is off by 2.2 % (see above): four times sqrt(2) of that
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(2, rel=0.125)


def test_equal_values_have_no_spread() -> None:
    assert bootstrap(np.full(7, 0.5), num_samples=100) == Estimate(0.5, 0.5, 0.5)


def test_the_interval_depends_on_the_seed_alone(normal_values: np.ndarray) -> None:
    first, again, other = (bootstrap(normal_values, num_samples=100, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)


def test_a_difference_is_after_minus_before_on_the_same_images(normal_values: np.ndarray) -> None:
    before = np.round(1000 * normal_values)
    assert paired_difference(before, before + 2, num_samples=100) == Estimate(2.0, 2.0, 2.0)
    worse = paired_difference(before, before - 2 + np.arange(400) % 2, num_samples=500)
    assert worse.value == -1.5
    assert worse.low < -1.5 < worse.high < 0


@pytest.mark.parametrize("shape", [(0,), (3, 2), ()])
def test_a_bootstrap_of_nothing_is_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"values must be \(N,\) with N > 0, got") as error:
        bootstrap(np.ones(shape), num_samples=100)
    assert f"got {shape}" in str(error.value)


def test_a_difference_between_other_images_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"before and after must be the same images, got \(3,\) and \(4,\)"):
        paired_difference(np.ones(3), np.ones(4), num_samples=100)


def test_a_bootstrap_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="statistic must be one of mean, median, got 'mode'"):
        bootstrap(np.ones(3), num_samples=100, statistic="mode")
    for num_samples in (0, -1):
        with pytest.raises(ValueError, match=f"num_samples must be at least 1, got {num_samples}"):
            bootstrap(np.ones(3), num_samples=num_samples)


def test_a_summary_of_unequal_lengths_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"must be of the same images, got \(3,\) and \(4,\)"):
        summarize(np.ones(3), np.ones(4, dtype=bool), num_samples=100)
