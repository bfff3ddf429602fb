"""Floors of a test set: bounded work, and the values of the whole where it is small."""

import numpy as np
import pytest

from geogrpo.evaluation import floors
from geogrpo.evaluation.floors import measure_floors, population_points
from geogrpo.metrics import Protocol, constant_floors, evaluate_predictions, random_floors
from geogrpo.regions.index import default_index
from geogrpo.regions.sources.geonames import Places, load_geonames


def truths(count: int) -> np.ndarray:
    places = load_geonames(10_000).latlon_deg
    return places[np.random.default_rng(0).integers(0, len(places), count)]


def test_floors_of_few_images_are_those_of_all_their_places() -> None:
    truth, protocol = truths(60), Protocol(earth_radius_km=6378.137)
    found = measure_floors(truth, default_index(), protocol=protocol)
    assert (found.num_images, found.num_candidates) == (60, 60)
    assert found.constant == constant_floors(truth, truth, index=default_index(), protocol=protocol)
    assert found.random == random_floors(population_points(1000), truth, index=default_index(), protocol=protocol)
    # The point is the answer that it is said to be.
    best = found.constant["geoscore"]
    same = np.tile(best.latlon_deg, (60, 1))
    scored = evaluate_predictions(same, truth, index=default_index(), protocol=protocol, num_samples=1)
    assert scored.estimates["geoscore"].value == pytest.approx(best.value)


def test_of_many_images_and_places_a_draw_fixed_by_the_seed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = truths(400)
    whole = measure_floors(truth, default_index())
    monkeypatch.setattr(floors, "MAX_IMAGES", 300)
    monkeypatch.setattr(floors, "MAX_CANDIDATES", 100)
    drawn, again, other = (measure_floors(truth, default_index(), seed=seed) for seed in (0, 0, 1))
    assert (drawn.num_images, drawn.num_candidates) == (300, 100)
    assert drawn == again != other
    assert {point.latlon_deg for point in drawn.constant.values()} <= {tuple(point) for point in truth.tolist()}
    # A share of 300 images out of 400 is within 0.05 of the whole's.
    assert drawn.constant["within_2500_km"].value == pytest.approx(whole.constant["within_2500_km"].value, abs=0.05)


def test_rows_have_values_and_no_intervals() -> None:
    found = measure_floors(truths(5), default_index())
    rows = found.estimates()
    assert rows["constant"]["geoscore"].value == found.constant["geoscore"].value
    assert rows["random"]["geoscore"].value == found.random["geoscore"]
    assert "median_km" not in rows["random"]
    assert all(np.isnan(estimate.low) for row in rows.values() for estimate in row.values())


def test_points_are_as_likely_as_places_have_people(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    names = ["b", "a", "b"]
    places = Places(points, np.array([6, 2, 0]), names, names, [None] * 3, [None] * 3, ["x", "y", "z"])
    monkeypatch.setattr(floors, "load_geonames", lambda: places)
    assert population_points(4).tolist() == [[2, 2], [1, 1], [1, 1], [1, 1]]


def test_each_country_has_its_share_of_the_points() -> None:
    places = load_geonames()
    points = population_points(1000)
    country = default_index().codes(default_index().lookup(points).country)
    people = dict.fromkeys(places.country_code, 0)
    for code, population in zip(places.country_code, places.population.tolist(), strict=True):
        people[code] += population
    for code in ("CN", "IN", "US", "NA"):
        share = people[code] / sum(people.values())
        assert (country == code).mean() == pytest.approx(share, abs=0.0021), code
