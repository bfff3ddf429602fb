"""The whole table by hand."""

import math

import numpy as np
import pytest
from metrics.conftest import BERLIN, LYON, NAQARA, NOWHERE, PARIS, VERSAILLES, WINDHOEK

from geogrpo.metrics import (
    FARTHEST_KM,
    OSV5M_PROTOCOL,
    Protocol,
    error_km,
    evaluate_predictions,
    summarize,
)
from geogrpo.regions.index import RegionIndex

PREDICTED = np.array([PARIS, VERSAILLES, PARIS, NOWHERE, (-22.56, 17.09)])
TRUTH = np.array([PARIS, PARIS, LYON, BERLIN, WINDHOEK])
KM = [0.0, 17.03, 391.6, math.nan, 1.027]
"""By pyproj on the sphere, to four digits."""


def test_the_table_is_that_computed_by_hand(index: RegionIndex, degrees_index: RegionIndex) -> None:
    found = evaluate_predictions(PREDICTED, TRUTH, index=index, osv_index=degrees_index, num_samples=100)
    assert error_km(PREDICTED, TRUTH) == pytest.approx(KM, rel=1e-3, nan_ok=True)
    known = error_km(PREDICTED, TRUTH)[[0, 1, 2, 4]]
    expected = {
        "within_1_km": 1 / 5,
        "within_25_km": 3 / 5,
        "within_200_km": 3 / 5,
        "within_750_km": 4 / 5,
        "within_2500_km": 4 / 5,
        "mean_km": (known.sum() + FARTHEST_KM) / 5,
        "median_km": known[1],
        "geoscore": sum(5000 * math.exp(-km / 1492.7) for km in known) / 5,
        "geoscore_geoagent": sum(5000 * math.exp(-km / 1805) for km in known) / 5,
        "unparseable": 1 / 5,
        "country_accuracy": 4 / 5,
        "state_accuracy": 3 / 5,
        "county_accuracy": 1 / 2,
        "city_accuracy": 2 / 5,
        "osv_country": 4 / 5,
        "osv_region": 3 / 5,
        "osv_sub_region": 1 / 2,
        "osv_city": 2 / 5,
    }
    assert {name: estimate.value for name, estimate in found.estimates.items()} == pytest.approx(expected)
    assert found.num_images == 5
    assert found.num_scored == {name: 2 if name in ("county_accuracy", "osv_sub_region") else 5 for name in expected}
    for estimate in found.estimates.values():
        assert estimate.low <= estimate.value <= estimate.high


def test_macro_averages_are_those_computed_by_hand(index: RegionIndex) -> None:
    found = evaluate_predictions(PREDICTED, TRUTH, index=index, num_samples=10)
    # France 3 of 3, Germany 0 of 1, Namibia 1 of 1; Europe 3 of 4, Africa 1 of 1
    assert found.macro_country["country_accuracy"].value == pytest.approx(2 / 3)
    assert found.macro_continent["country_accuracy"].value == pytest.approx(7 / 8)
    assert {code: group.num_images for code, group in found.by_country.items()} == {"DE": 1, "FR": 3, "NA": 1}
    assert {name: group.num_images for name, group in found.by_continent.items()} == {"Africa": 1, "Europe": 4}
    assert found.by_country["FR"].values["within_25_km"] == pytest.approx(2 / 3)
    assert found.by_country["DE"].values["median_km"] == FARTHEST_KM


def test_without_an_osv_index_there_are_no_osv_metrics(index: RegionIndex) -> None:
    found = evaluate_predictions(PREDICTED, TRUTH, index=index, num_samples=10)
    assert not [name for name in found.estimates if name.startswith("osv")]
    with pytest.raises(ValueError, match="osv_labels need osv_index"):
        evaluate_predictions(PREDICTED, TRUTH, index=index, osv_labels={}, num_samples=10)


def test_the_protocol_of_osv5m_differs_where_it_says(index: RegionIndex, degrees_index: RegionIndex) -> None:
    quarter = 6371.0 * math.pi / 2
    truth, predicted = np.array([PARIS, LYON]), np.array([PARIS, (LYON[0], LYON[1] + 180)])
    protocol = Protocol(OSV5M_PROTOCOL.comparator, 6371.0, (0, 25), "released")
    found = evaluate_predictions(
        predicted, truth, index=index, osv_index=degrees_index, protocol=protocol, num_samples=10
    ).estimates
    # A distance of 0 is not under 0, and Lyon has no sub-region.
    assert found["within_0_km"].value == 0
    assert found["within_25_km"].value == 0.5
    assert found["osv_sub_region"].value == 0.5
    assert found["mean_km"].value == pytest.approx(quarter * (180 - 2 * LYON[0]) / 180)


def test_the_columns_that_summarize_has_too_are_the_same(index: RegionIndex) -> None:
    found = evaluate_predictions(PREDICTED, TRUTH, index=index, num_samples=200, seed=2).estimates
    right = np.array([True, True, True, False, True])
    for name, expected in summarize(error_km(PREDICTED, TRUTH), right, num_samples=200, seed=2).items():
        assert (found[name].value, found[name].low, found[name].high) == pytest.approx(
            (expected.value, expected.low, expected.high), rel=1e-12
        )


def test_points_over_the_date_line_and_at_the_pole_are_measured_right(index: RegionIndex) -> None:
    truth = np.array([(-16.8, 179.99), (90.0, 20.0)])
    predicted = np.array([(-16.8, -179.99), (90.0, -150.0)])
    found = evaluate_predictions(predicted, truth, index=index, num_samples=10).estimates
    assert found["within_25_km"].value == 1.0
    assert found["within_1_km"].value == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"comparator": ">"}, "comparator must be one of <=, <, got '>'"),
        ({"earth_radius_km": 1.0}, "earth_radius_km must be from 6300 to 6400, got 1.0"),
        ({"osv_rule": "x"}, "osv_rule must be one of intended, released, got 'x'"),
    ],
)
def test_a_wrong_protocol_is_rejected(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**arguments)


def test_no_images_are_rejected(index: RegionIndex) -> None:
    with pytest.raises(ValueError, match=r"must both be \(N, 2\) with N > 0, got \(0, 2\) and \(0, 2\)"):
        evaluate_predictions(np.zeros((0, 2)), np.zeros((0, 2)), index=index)
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        evaluate_predictions(np.array([NAQARA]), np.array([NAQARA]), index=index, num_samples=0)


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


def test_a_summary_of_unequal_lengths_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"must be of the same images, got \(3,\) and \(4,\)"):
        summarize(np.ones(3), np.ones(4, dtype=bool), num_samples=100)
