"""Averages of countries and continents by hand, and the interval of a macro average against a bootstrap."""

import math

import numpy as np
import pytest
from metrics.conftest import BERLIN, LYON, NAQARA, NOWHERE, PARIS, WINDHOEK

from geogrpo.metrics import (
    Column,
    Estimate,
    Grouping,
    country_and_continent,
    group_metrics,
    macro_estimates,
)
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import Places


def test_images_are_grouped_by_the_country_and_continent_of_the_truth(index: RegionIndex) -> None:
    country, continent = country_and_continent(np.array([PARIS, LYON, BERLIN, WINDHOEK, NAQARA, NOWHERE]), index)
    assert country == Grouping(("DE", "FJ", "FR", "NA"), pytest.approx([2, 2, 0, 3, 1, -1]))
    assert continent == Grouping(("Africa", "Europe", "Oceania"), pytest.approx([1, 1, 1, 0, 2, -1]))


def test_a_code_of_no_continent_is_a_country_of_none() -> None:
    point = np.array([[0.0, 0.0]])
    places = Places(point, np.zeros(1, np.int64), ["ZZ"], ["Nowhere"], [None], [None], ["Null"])
    country, continent = country_and_continent(point, RegionIndex.build(places=places))
    assert country.labels == ("ZZ",)
    assert continent.labels == ()
    assert continent.group.tolist() == [-1]
    assert macro_estimates({"x": Column(np.ones(1))}, continent) == {}


def test_groups_and_macro_averages_are_those_computed_by_hand() -> None:
    grouping = Grouping(("a", "b", "c"), np.array([0, 1, 0, 0, -1, 2]))
    values = np.array([1.0, 0.0, 0.0, 0.5, 9.0, 1.0])
    counts = np.array([True, True, True, True, True, False])
    columns = {"x": Column(values), "y": Column(values, counts)}
    found = group_metrics(columns, np.array([10.0, 20.0, 30.0, 50.0, 60.0, 70.0]), grouping)
    assert [group.num_images for group in found.values()] == [3, 1, 1]
    assert found["a"].values == {"x": 0.5, "y": 0.5, "median_km": 30.0}
    assert found["b"].values == {"x": 0.0, "y": 0.0, "median_km": 20.0}
    assert found["c"].values == {"x": 1.0, "median_km": 70.0}
    macro = macro_estimates(columns, grouping)
    assert macro["x"].value == 0.5
    assert macro["y"].value == 0.25
    # Only a has a spread, of variance 0.25, which b and c are given; the mean of three means has a ninth of their sum.
    half = 1.959963984540054 * math.sqrt(0.25 / 3 + 0.25 + 0.25) / 3
    assert (macro["x"].low, macro["x"].high) == pytest.approx((0.5 - half, 0.5 + half))


def test_a_macro_average_counts_each_group_the_same() -> None:
    grouping = Grouping(("large", "small"), np.array([0] * 999 + [1]))
    values = np.array([1.0] * 999 + [0.0])
    assert macro_estimates({"x": Column(values)}, grouping)["x"].value == 0.5


def test_equal_values_have_no_spread() -> None:
    grouping = Grouping(("a", "b"), np.array([0, 1, 1]))
    assert macro_estimates({"x": Column(np.full(3, 0.5))}, grouping)["x"] == Estimate(0.5, 0.5, 0.5)


def test_the_interval_of_a_macro_average_is_that_of_a_bootstrap_within_groups() -> None:
    rng = np.random.default_rng(0)
    sizes = (60, 120, 400)
    parts = [rng.exponential(scale, size) for scale, size in zip((1, 3, 2), sizes, strict=True)]
    draws = np.mean([[rng.choice(part, len(part)).mean() for _ in range(4000)] for part in parts], axis=0)
    grouping = Grouping(("a", "b", "c"), np.repeat([0, 1, 2], sizes))
    found = macro_estimates({"x": Column(np.concatenate(parts))}, grouping)["x"]
    low, high = np.percentile(draws, [2.5, 97.5])
    deviation = (high - low) / (2 * 1.96)
    # 0.042 deviations by chance, four times that, and 0.06 for the skew
    assert found.low == pytest.approx(low, abs=0.23 * deviation)
    assert found.high == pytest.approx(high, abs=0.23 * deviation)
