"""The laws of the bootstrap, and that the fast ways to it give the same. Shapes: N images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.metrics import (
    MAX_BOOTSTRAP_IMAGES,
    Column,
    Estimate,
    bootstrap,
    intervals,
    mean_estimates,
    median_estimate,
    paired_difference,
)

DISTANCES = st.lists(st.floats(0, 20015), min_size=1, max_size=20).map(np.array)


@pytest.fixture
def normal_values() -> np.ndarray:
    """400 numbers of mean 0 and deviation 1."""
    values = np.random.default_rng(0).normal(size=400)
    return (values - values.mean()) / values.std()


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


@pytest.mark.parametrize("num_images", [1, 2, 3, 10, 301])
def test_many_metrics_at_once_have_the_intervals_of_the_plain_bootstrap(num_images: int) -> None:
    rng = np.random.default_rng(1)
    hits, km = rng.random(num_images) < 0.3, rng.exponential(100, num_images).round()
    together = mean_estimates({"hits": Column(hits), "km": Column(km)}, num_samples=300, seed=5)
    for name, values in (("hits", hits.astype(np.float64)), ("km", km)):
        plain = bootstrap(values, num_samples=300, seed=5)
        # Sums in another order: N roundings of at most eps each
        slack = num_images * np.finfo(np.float64).eps * max(values.max(), 1)
        assert (together[name].value, together[name].low, together[name].high) == pytest.approx(
            (plain.value, plain.low, plain.high), rel=0, abs=slack
        )
    assert median_estimate(km, num_samples=300, seed=5) == bootstrap(km, num_samples=300, seed=5, statistic="median")


def test_blocks_of_resamples_do_not_change_them(monkeypatch: pytest.MonkeyPatch, normal_values: np.ndarray) -> None:
    whole = mean_estimates({"x": Column(normal_values)}, num_samples=50), median_estimate(normal_values, num_samples=50)
    monkeypatch.setattr(intervals, "BLOCK_COUNTS", 7 * 400)
    parts = mean_estimates({"x": Column(normal_values)}, num_samples=50), median_estimate(normal_values, num_samples=50)
    assert parts[1] == whole[1]
    assert (parts[0]["x"].low, parts[0]["x"].high) == pytest.approx((whole[0]["x"].low, whole[0]["x"].high), rel=1e-12)


@pytest.mark.parametrize("num_images", [2_000, 2_001])
def test_above_the_bound_the_intervals_are_those_of_the_bootstrap(
    num_images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    km, hits = rng.exponential(500, num_images), rng.random(num_images) < 0.2
    few = np.where(rng.random(num_images) < 0.5, True, False)
    columns = {"km": Column(km), "hits": Column(hits), "few": Column(hits, few)}
    plain = mean_estimates(columns, num_samples=4000)
    plain["median"] = median_estimate(km, num_samples=4000)
    monkeypatch.setattr(intervals, "MAX_BOOTSTRAP_IMAGES", 100)
    limit = mean_estimates(columns, num_samples=4000)
    limit["median"] = median_estimate(km, num_samples=4000)
    for name, expected in plain.items():
        deviation = (expected.high - expected.low) / (2 * 1.96)
        # A quantile of 4000 draws is off by sqrt(.025 * .975 / 4000) / .0584 = 0.042 deviations, and the bootstrap of
        # the skewed km by 0.05 more; four times the first and the second are allowed.
        assert limit[name].value == pytest.approx(expected.value, rel=1e-12)
        assert limit[name].low == pytest.approx(expected.low, abs=0.22 * deviation)
        assert limit[name].high == pytest.approx(expected.high, abs=0.22 * deviation)


def test_the_bound_is_where_the_bootstrap_ends() -> None:
    values = np.random.default_rng(0).exponential(1, MAX_BOOTSTRAP_IMAGES + 1)
    estimate = mean_estimates({"x": Column(values)}, num_samples=1)["x"]
    half = 1.959963984540054 * values.std() / math.sqrt(len(values))
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half))
    # One resample has no spread
    at_the_bound = mean_estimates({"x": Column(values[:-1])}, num_samples=1)["x"]
    assert at_the_bound.low == at_the_bound.high
    median = median_estimate(np.random.default_rng(1).permutation(30_001).astype(np.float64), num_samples=1)
    assert median == Estimate(15000.0, math.floor(15000.5 - 169.74), math.ceil(15000.5 + 169.74))


def test_only_the_images_that_count_do() -> None:
    values, counts = np.array([1.0, np.nan, 3.0, 100.0]), np.array([True, False, True, False])
    estimate = mean_estimates({"x": Column(values, counts)}, num_samples=200)["x"]
    assert (estimate.value, estimate.low, estimate.high) == (2.0, 1.0, 3.0)


def test_a_metric_in_which_no_image_counts_is_absent() -> None:
    columns = {"all": Column(np.ones(3)), "none": Column(np.ones(3), np.zeros(3, dtype=bool))}
    assert mean_estimates(columns, num_samples=10) == {"all": Estimate(1.0, 1.0, 1.0)}
    assert mean_estimates({"none": columns["none"]}, num_samples=10) == {}


def test_columns_of_other_images_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"columns must be of the same images, got \[3, 4\]"):
        mean_estimates({"x": Column(np.ones(3)), "y": Column(np.ones(4))}, num_samples=10)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        mean_estimates({"x": Column(np.ones(3))}, num_samples=0)
    with pytest.raises(ValueError, match=r"values must be \(N,\) with N > 0, got \(0,\)"):
        median_estimate(np.ones(0), num_samples=10)
