"""Two runs on the same images: by hand, by enumeration, and that chance alone is called so."""

import itertools
import math

import numpy as np
import pytest
from metrics.conftest import BERLIN, LYON, NOWHERE, PARIS, VERSAILLES

from geogrpo.metrics import Answers, Difference, bootstrap, compare_runs, error_km, paired
from geogrpo.regions.index import RegionIndex

IDS = ["a", "b", "c", "d"]


def on_the_equator(km: np.ndarray) -> np.ndarray:
    """(N, 2) points so far east of (0, 0)."""
    return np.stack([np.zeros(len(km)), np.degrees(km / 6371.0088)], axis=1)


def runs(before_km: np.ndarray, after_km: np.ndarray) -> tuple[Answers, Answers, np.ndarray]:
    ids = [str(i) for i in range(len(before_km))]
    truth = np.zeros((len(before_km), 2))
    return Answers(ids, on_the_equator(before_km)), Answers(ids, on_the_equator(after_km)), truth


def test_differences_are_those_computed_by_hand(index: RegionIndex) -> None:
    truth = np.array([PARIS, PARIS, LYON, BERLIN])
    before = Answers(IDS, np.array([VERSAILLES, NOWHERE, PARIS, BERLIN]))
    after = Answers(IDS, np.array([PARIS, VERSAILLES, PARIS, NOWHERE]))
    found = compare_runs(before, after, truth, index=index, num_samples=200, num_flips=200)
    assert (found["within_25_km"].before, found["within_25_km"].after) == (0.5, 0.5)
    assert found["within_25_km"].value == 0.0
    assert found["within_25_km"].p_value == 1.0
    assert (found["county_accuracy"].before, found["county_accuracy"].after) == (0.0, 0.5)
    assert found["country_accuracy"].value == 0.0
    assert found["unparseable"].value == 0.0
    medians = [np.median(np.nan_to_num(error_km(run.latlon_deg, truth), nan=20015.1)) for run in (before, after)]
    assert found["median_km"].value == pytest.approx(medians[1] - medians[0], rel=1e-6)


def test_the_interval_is_that_of_the_plain_paired_bootstrap() -> None:
    rng = np.random.default_rng(0)
    before_km, after_km = rng.exponential(300, (2, 40))
    found = compare_runs(*runs(before_km, after_km), num_samples=300, num_flips=10)
    plain = bootstrap(after_km - before_km, num_samples=300)
    mean = found["mean_km"]
    assert (mean.value, mean.low, mean.high) == pytest.approx((plain.value, plain.low, plain.high), rel=1e-9)
    draws = np.random.default_rng(0)
    rows = [draws.integers(0, 40, 40) for _ in range(300)]
    medians = [np.median(after_km[row]) - np.median(before_km[row]) for row in rows]
    median = found["median_km"]
    assert (median.low, median.high) == pytest.approx(np.percentile(medians, [2.5, 97.5]), rel=1e-9)


@pytest.mark.parametrize("name", ["mean_km", "median_km", "within_200_km"])
def test_the_p_value_is_the_share_of_all_exchanges(name: str) -> None:
    before_km = np.array([10.0, 300.0, 500.0, 40.0, 800.0, 90.0, 220.0, 350.0])
    after_km = np.array([20.0, 100.0, 150.0, 30.0, 90.0, 100.0, 180.0, 10.0])
    statistic = {
        "mean_km": np.mean,
        "median_km": np.median,
        "within_200_km": lambda km: (km <= 200).mean(),
    }[name]
    observed = abs(statistic(after_km) - statistic(before_km))
    exchanges = np.array(list(itertools.product([False, True], repeat=8)))
    differences = [
        abs(statistic(np.where(e, before_km, after_km)) - statistic(np.where(e, after_km, before_km)))
        for e in exchanges
    ]
    exact = np.mean(np.array(differences) >= observed - 1e-9)
    found = compare_runs(*runs(before_km, after_km), num_samples=10, num_flips=20_000)[name].p_value
    # Four deviations of a share of 20,000
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_chance_alone_is_rejected_as_often_as_asked() -> None:
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(300):
        before_km, after_km = rng.exponential(300, (2, 30))
        p_values.append(compare_runs(*runs(before_km, after_km), num_samples=1, num_flips=199)["mean_km"].p_value)
    # Four deviations of a share of 300 at 0.1
    assert np.mean(np.array(p_values) <= 0.1) == pytest.approx(0.1, abs=0.07)


def test_a_clear_improvement_has_the_least_p_value() -> None:
    before_km = np.linspace(100, 5000, 60)
    found = compare_runs(*runs(before_km, before_km / 2), num_samples=200, num_flips=999)
    for name in ("mean_km", "median_km"):
        assert found[name].p_value == 1 / 1000
        assert found[name].high < 0


def test_a_run_compared_with_itself_is_no_different() -> None:
    km = np.linspace(1, 900, 25)
    for name, found in compare_runs(*runs(km, km), num_samples=50, num_flips=50).items():
        assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0), name


def test_above_the_bound_intervals_and_p_values_are_those_of_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    before_km = rng.exponential(300, 3000)
    after_km = before_km * rng.uniform(0.5, 1.45, 3000) + rng.exponential(5, 3000)
    drawn = compare_runs(*runs(before_km, after_km), num_samples=2000, num_flips=2000)
    for module in (paired, paired.mean_estimates.__globals__["__name__"]):
        target = module if not isinstance(module, str) else __import__(module, fromlist=["x"])
        monkeypatch.setattr(target, "MAX_BOOTSTRAP_IMAGES", 100)
    limit = compare_runs(*runs(before_km, after_km), num_samples=1, num_flips=1)
    for name in ("mean_km", "geoscore", "within_200_km", "median_km"):
        a, b = drawn[name], limit[name]
        assert (b.before, b.after, b.value) == pytest.approx((a.before, a.after, a.value), rel=1e-9)
        deviation = (a.high - a.low) / (2 * 1.96)
        # The density at the median is known to a tenth or so, hence its interval's ends to 0.2 deviations more.
        slack = 0.45 if name == "median_km" else 0.25
        assert b.low == pytest.approx(a.low, abs=slack * deviation), name
        assert b.high == pytest.approx(a.high, abs=slack * deviation), name
        assert b.p_value == pytest.approx(a.p_value, abs=0.06), name


def test_runs_on_other_images_are_rejected() -> None:
    points = np.zeros((2, 2))
    with pytest.raises(ValueError, match="got 'b' before and 'c' after at position 1"):
        compare_runs(Answers(["a", "b"], points), Answers(["a", "c"], points), points)
    with pytest.raises(ValueError, match="got 2 ids with 2 points before, 1 ids with 2 points after, and 2 truths"):
        compare_runs(Answers(["a", "b"], points), Answers(["a"], points), points)
    with pytest.raises(ValueError, match="num_flips must be at least 1, got 0"):
        compare_runs(Answers(["a", "b"], points), Answers(["a", "b"], points), points, num_flips=0)


def test_a_difference_is_of_plain_numbers() -> None:
    found = compare_runs(*runs(np.ones(3), np.zeros(3)), num_samples=5, num_flips=5)
    for difference in found.values():
        assert isinstance(difference, Difference)
        assert {type(value) for value in vars(difference).values()} == {float}
