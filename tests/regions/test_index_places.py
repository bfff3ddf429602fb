"""Nearest places: against brute force, the laws of the sphere, and places everybody knows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from regions.samples import NOWHERE, places_at, random_points

from geogrpo.regions import native
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.regions.reference import nearest_places
from geogrpo.regions.sources.geonames import Places, load_geonames

CITIES = {
    "Paris": ((48.8566, 2.3522), "FR", "France"),
    "Tokyo": ((35.6895, 139.6917), "JP", "Japan"),
    "Nairobi": ((-1.2864, 36.8172), "KE", "Kenya"),
    "Windhoek": ((-22.5594, 17.0832), "NA", "Namibia"),
    "Quito": ((-0.2295, -78.5243), "EC", "Ecuador"),
    "Suva": ((-18.1416, 178.4415), "FJ", "Fiji"),
}


def nearest_of(points: list[tuple[float, float]], *places: tuple[float, float]) -> list[str]:
    index = RegionIndex.build(places=places_at(*places))
    return index.names(index.nearest(np.array(points, dtype=np.float64))).tolist()


def first_place(index: RegionIndex) -> int:
    return len(index) - index.count("city")


@pytest.mark.parametrize("where", ["anywhere", "at places", "near places", "poles", "antimeridian"])
def test_the_nearest_place_equals_brute_force(where: str) -> None:
    index = default_index()
    rng = np.random.default_rng(1)
    places = index.place_latlon_deg(np.arange(first_place(index), len(index)))
    points = random_points(150)
    if where in ("at places", "near places"):
        points = places[rng.integers(0, len(places), 150)]
        points = points + (rng.normal(scale=0.01, size=points.shape) if where == "near places" else 0)
    elif where == "poles":
        points[:, 0] = rng.choice((-90.0, 90.0, -89.999, 89.9), size=len(points))
    elif where == "antimeridian":
        points[:, 1] = rng.choice((-180.0, -180 + 1e-9, -179.999, 179.999), size=len(points))
    vectors = native.place_vectors(places, "sphere")
    expected = nearest_places(native.place_vectors(points, "sphere"), vectors) + first_place(index)
    assert np.array_equal(index.nearest(points), expected)


@pytest.mark.parametrize("where", ["anywhere", "near places"])
def test_on_100_000_points_no_place_is_nearer_than_the_one_found(where: str) -> None:
    """SciPy's tree says how near the nearest is, in float64; which of equally near ones is the test above's."""
    spatial = pytest.importorskip("scipy.spatial", reason="scipy is not installed")
    index, rng = default_index(), np.random.default_rng(4)
    places = index.place_latlon_deg(np.arange(first_place(index), len(index)))
    points = random_points(100_000, 4)
    if where == "near places":
        points = places[rng.integers(0, len(places), 100_000)] + rng.normal(scale=0.1, size=points.shape)
        points = np.clip(points, (-90, -180), (90, 180))
    vectors, queries = native.place_vectors(places, "sphere"), native.place_vectors(points, "sphere")
    nearest, _ = spatial.cKDTree(vectors).query(queries)
    found = np.linalg.norm(vectors[index.nearest(points) - first_place(index)] - queries, axis=1)
    np.testing.assert_allclose(found, nearest, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_the_distance_is_that_to_the_nearest_place(kind: Callable[[np.ndarray], Any]) -> None:
    index = default_index()
    points = np.concatenate([random_points(300), np.array(NOWHERE), [(90, 7), (0, 180), (0, 540)]])
    ids, distance_km = index.nearest_with_distance(kind(points.reshape(2, -1, 2)))
    assert type(ids) is type(distance_km) is type(kind(points))
    ids, distance_km = np.asarray(ids).reshape(-1), np.asarray(distance_km).reshape(-1)
    assert np.array_equal(ids, index.nearest(points))
    assert np.array_equal(np.isnan(distance_km), ids < 0)
    is_place = ids >= 0
    chords = native.place_vectors(points[is_place], "sphere") - native.place_vectors(
        index.place_latlon_deg(ids[is_place]), "sphere"
    )
    expected = 2 * 6371.0088 * np.arcsin(np.linalg.norm(chords, axis=1) / 2)
    np.testing.assert_allclose(distance_km[is_place], expected, rtol=1e-12, atol=1e-9)
    assert index.nearest_with_distance(index.place_latlon_deg(ids[:1]))[1].tolist() == [0]


def test_with_degrees_the_distance_is_still_in_km() -> None:
    index = RegionIndex.build(places=places_at((60, 9), (54, 0)), metric="degrees")
    ids, distance_km = index.nearest_with_distance(np.array([(60.0, 0.0)]))
    assert index.names(ids).tolist() == ["1"]
    np.testing.assert_allclose(distance_km, 6 * 111.19508, rtol=1e-6)


def test_on_a_grid_with_many_ties_the_lowest_id_wins() -> None:
    degrees = [(lat, lon) for lat in range(-90, 91, 15) for lon in range(-180, 181, 15)]
    index = RegionIndex.build(places=places_at(*degrees))
    points = np.array([(lat + shift, lon + shift) for lat, lon in degrees for shift in (0, 7.5) if lat + shift <= 90])
    points[:, 1] = (points[:, 1] + 180) % 360 - 180
    places = index.place_latlon_deg(np.arange(first_place(index), len(index)))
    vectors = native.place_vectors(places, "sphere")
    expected = nearest_places(native.place_vectors(points, "sphere"), vectors) + first_place(index)
    assert np.array_equal(index.nearest(points), expected)


def test_sines_are_exact_to_rounding_and_the_same_everywhere() -> None:
    points = np.concatenate([random_points(20_000), [(90, 7), (-90, 7), (0, 0), (0, 90), (0, -90), (45, 45)]])
    lat, lon = np.radians(points).T
    expected = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
    vectors = native.place_vectors(points, "sphere")
    np.testing.assert_allclose(vectors, expected, rtol=0, atol=2 * np.finfo(float).eps)
    # Exact where a C library's cosine of pi / 2 is not
    assert vectors[-6].tolist() == [0, 0, 1]


def test_the_nearest_place_may_lie_across_the_antimeridian() -> None:
    assert nearest_of([(0, -179.9), (0, 179.9), (0, 180), (0, -180)], (0, 179.9), (0, -170)) == ["0"] * 4


def test_the_nearest_place_may_lie_across_a_pole() -> None:
    assert nearest_of([(89, 0), (-89, 0)], (89, 180), (80, 0), (-80, 0), (-89, 180)) == ["0", "3"]


def test_at_a_pole_longitude_means_nothing() -> None:
    assert nearest_of([(90, lon) for lon in (-180, 0, 33)], (70, 0), (85, 120), (-90, 0)) == ["1"] * 3


def test_distance_is_along_the_sphere_not_in_degrees() -> None:
    # At 60 degrees north, 10 degrees of longitude are 5 of latitude.
    assert nearest_of([(60, 0)], (60, 9), (54, 0)) == ["0"]
    assert nearest_of([(0, 0)], (0, 9), (6, 0)) == ["1"]


@pytest.mark.parametrize("longitude", [370.0, -350.0, 10.0, 730.0])
def test_longitude_wraps(longitude: float) -> None:
    assert nearest_of([(0, longitude)], (0, -10), (0, 10), (0, 180)) == ["1"]


@pytest.mark.parametrize("city", CITIES)
def test_a_known_city_has_its_country(city: str) -> None:
    latlon_deg, code, country = CITIES[city]
    index = default_index()
    found = index.lookup(np.array([latlon_deg]))
    assert (index.codes(found.country)[0], index.names(found.country)[0]) == (code, country)
    assert index.names(found.city)[0] == city


def test_every_place_has_the_chain_that_geonames_gives_it() -> None:
    places, index = load_geonames(), default_index()
    ids = index.lookup(places.latlon_deg).ids
    chains = [(c, s, k, p) for c, s, k, p in zip(places.country, places.state, places.county, places.city, strict=True)]
    wrong = [i for i, names in enumerate(index.names(ids).tolist()) if tuple(names) != chains[i]]
    # Others stand at the very same coordinates.
    assert len(wrong) < 400
    assert all((places.latlon_deg == places.latlon_deg[i]).all(axis=1).sum() > 1 for i in wrong[:50])


def test_a_county_of_one_state_is_not_that_of_another() -> None:
    places = places_at((0, 0), (0, 10), country="Land")
    both = Places(**(vars(places) | {"state": ["North", "South"], "county": ["Middle", "Middle"]}))
    index = RegionIndex.build(places=both)
    ids = index.lookup(np.array([(0.0, 0.0), (0.0, 10.0)])).ids
    assert index.names(ids).tolist() == [["Land", "North", "Middle", "0"], ["Land", "South", "Middle", "1"]]
    assert ids[0, 2] != ids[1, 2]
    assert index.parents(ids[:, 2]).tolist() == ids[:, 1].tolist()
    assert index.parents(ids[:, 0]).tolist() == [-1, -1]


def test_degrees_are_compared_as_a_plane_without_wrap() -> None:
    places = places_at((60, 9), (54, 0), (0, 179), (0, -170))
    index = RegionIndex.build(places=places, metric="degrees")
    points = [(60, 0), (0, -179.9), (0, 180), (0, 179.99999999)]
    assert index.names(index.nearest(np.array(points, dtype=np.float64))).tolist() == ["1", "3", "2", "2"]
