"""What ignoring the picture earns, by hand and by trying."""

import math

import numpy as np
import pytest
from metrics.conftest import BERLIN, LYON, PARIS, VERSAILLES, WINDHOEK

from geogrpo.metrics import Protocol, constant_floors, error_km, evaluate_predictions, floors, random_floors
from geogrpo.regions.index import RegionIndex

TRUTH = np.array([(0.0, 0.0), (0.0, 1.0), (0.0, 10.0)])
DEGREE_KM = math.pi * 6371.0088 / 180


def test_the_best_constants_are_those_found_by_hand() -> None:
    found = constant_floors(np.array([(0.0, 10.0), (0.0, 1.0), (0.0, 0.5)]), TRUTH)
    assert found["mean_km"].latlon_deg == (0.0, 1.0)
    assert found["mean_km"].value == pytest.approx(10 / 3 * DEGREE_KM)
    assert found["median_km"].latlon_deg == (0.0, 0.5)
    assert found["median_km"].value == pytest.approx(0.5 * DEGREE_KM)
    assert (found["within_200_km"].value, found["within_200_km"].latlon_deg) == (2 / 3, (0.0, 1.0))
    # Of equal candidates the first
    assert (found["within_1_km"].value, found["within_1_km"].latlon_deg) == (1 / 3, (0.0, 10.0))


def test_a_random_draw_is_that_computed_by_hand() -> None:
    found = random_floors(np.array([(0.0, 0.0), (0.0, 1.0)]), TRUTH)
    assert found["mean_km"] == pytest.approx((0 + 1 + 10 + 1 + 0 + 9) / 6 * DEGREE_KM)
    assert found["within_1_km"] == pytest.approx(2 / 6)
    assert found["within_200_km"] == pytest.approx(4 / 6)
    points = [5000 * math.exp(-d * DEGREE_KM / 1492.7) for d in (0, 1, 10, 1, 0, 9)]
    assert found["geoscore"] == pytest.approx(sum(points) / 6)
    assert "median_km" not in found


def test_regions_of_a_constant_are_those_found_by_hand(index: RegionIndex) -> None:
    truth = np.array([PARIS, VERSAILLES, LYON, BERLIN])
    best = constant_floors(np.array([WINDHOEK, LYON, PARIS]), truth, index=index)
    assert (best["country_accuracy"].value, best["country_accuracy"].latlon_deg) == (0.75, LYON)
    assert (best["state_accuracy"].value, best["state_accuracy"].latlon_deg) == (0.5, PARIS)
    # Paris and Versailles alone have counties; Lyon's has no name and is no county.
    assert (best["county_accuracy"].value, best["county_accuracy"].latlon_deg) == (0.5, PARIS)
    draw = random_floors(np.array([WINDHOEK, LYON, PARIS]), truth, index=index)
    assert draw["country_accuracy"] == pytest.approx((0 + 3 + 3) / 12)
    assert draw["county_accuracy"] == pytest.approx((0 + 0 + 1) / 6)


@pytest.mark.parametrize("block_pairs", [1, 130, 1 << 20])
def test_floors_are_what_evaluating_each_constant_gives(
    index: RegionIndex, monkeypatch: pytest.MonkeyPatch, block_pairs: int
) -> None:
    monkeypatch.setattr(floors, "BLOCK_PAIRS", block_pairs)
    rng = np.random.default_rng(0)
    truth = rng.uniform((-80, -180), (80, 180), (60, 2))
    candidates = rng.uniform((-80, -180), (80, 180), (7, 2))
    protocol = Protocol(comparator="<", earth_radius_km=6371.0)
    each = [
        evaluate_predictions(
            np.broadcast_to(point, truth.shape), truth, index=index, protocol=protocol, num_samples=1
        ).estimates
        for point in candidates
    ]
    best = constant_floors(candidates, truth, index=index, protocol=protocol)
    draw = random_floors(candidates, truth, index=index, protocol=protocol)
    for name, floor in best.items():
        values = [estimates[name].value for estimates in each]
        expected = min(values) if name.endswith("_km") and not name.startswith("within") else max(values)
        assert floor.value == pytest.approx(expected, rel=1e-12), name
        if name in draw:
            assert draw[name] == pytest.approx(np.mean(values), rel=1e-12), name


def test_no_other_candidate_is_better() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal((40, 10), 20, (50, 2)).clip(-89, 89)
    best = constant_floors(points, points)["mean_km"]
    assert best.value == min(error_km(np.broadcast_to(point, points.shape), points).mean() for point in points)


def test_empty_and_impossible_priors_are_rejected() -> None:
    for function in (constant_floors, random_floors):
        with pytest.raises(ValueError, match=r"must both be \(N, 2\) with N > 0, got \(0, 2\)"):
            function(np.zeros((0, 2)), TRUTH)
        with pytest.raises(ValueError, match=r"must both be \(N, 2\) with N > 0, got \(3,\)"):
            function(TRUTH, np.zeros(3))
        with pytest.raises(ValueError, match=r"\[0\] is not a place"):
            function(np.array([(math.nan, math.nan)]), TRUTH)
