"""The compiled nearest-place lookup against its NumPy definition, and places everybody knows.

Shapes: N places, M points.
"""

import math

import numpy as np
import pytest

from geogrpo.regions import native
from geogrpo.regions.index import RegionIndex, default_index, unit_vectors
from geogrpo.regions.sources.geonames import Places

CITIES = {
    "Paris": ((48.8566, 2.3522), "FR", "France"),
    "Tokyo": ((35.6895, 139.6917), "JP", "Japan"),
    "Nairobi": ((-1.2864, 36.8172), "KE", "Kenya"),
    "Windhoek": ((-22.5594, 17.0832), "NA", "Namibia"),
    "Quito": ((-0.2295, -78.5243), "EC", "Ecuador"),
    "Suva": ((-18.1416, 178.4415), "FJ", "Fiji"),
}


def places_at(*latlon_deg: tuple[float, float]) -> Places:
    """Places named 0, 1, 2, ..."""
    names = [str(i) for i in range(len(latlon_deg))]
    return Places(
        latlon_deg=np.array(latlon_deg, dtype=np.float64).reshape(-1, 2),
        population=np.zeros(len(names), dtype=np.int64),
        country_code=names,
        country=names,
        state=[None] * len(names),
        county=[None] * len(names),
        city=names,
    )


def nearest_of(points: list[tuple[float, float]], *places: tuple[float, float]) -> list[int]:
    return RegionIndex(places_at(*places)).nearest(np.array(points)).tolist()


def reference(index: RegionIndex, latlon_deg: np.ndarray) -> np.ndarray:
    """Every place, in the order of its id, against every point."""
    vectors = unit_vectors(index.places.latlon_deg)
    return native.nearest_reference(vectors, np.arange(len(vectors)), unit_vectors(latlon_deg))


def random_points(num_points: int, seed: int = 0) -> np.ndarray:
    """Uniform on the sphere."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [np.degrees(np.arcsin(rng.uniform(-1, 1, num_points))), rng.uniform(-180, 180, num_points)], axis=-1
    )


def test_unit_vectors_point_where_they_should() -> None:
    points = np.array([(0, 0), (0, 90), (90, 7), (-90, 7), (0, 180), (45, 0)])
    half = math.sqrt(0.5)
    expected = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1), (-1, 0, 0), (half, 0, half)]
    np.testing.assert_allclose(unit_vectors(points), expected, rtol=0, atol=2 * np.finfo(float).eps)


def test_every_place_is_nearest_to_itself_unless_another_stands_there() -> None:
    index = default_index()
    sample = np.arange(0, len(index.places), 50)
    nearest = index.nearest(index.places.latlon_deg[sample])
    assert (index.places.latlon_deg[nearest] == index.places.latlon_deg[sample]).all()
    assert (nearest <= sample).all()


@pytest.mark.parametrize("where", ["anywhere", "at places", "near places", "poles", "antimeridian"])
def test_the_compiled_lookup_equals_its_definition(where: str) -> None:
    index = default_index()
    rng = np.random.default_rng(1)
    points = random_points(150)
    if where in ("at places", "near places"):
        points = index.places.latlon_deg[rng.integers(0, len(index.places), 150)]
        points = points + (rng.normal(scale=0.01, size=points.shape) if where == "near places" else 0)
    elif where == "poles":
        points[:, 0] = rng.choice((-90.0, 90.0, -89.999, 89.9), size=len(points))
    elif where == "antimeridian":
        points[:, 1] = rng.choice((-180.0, 180.0, -179.999, 179.999), size=len(points))
    assert np.array_equal(index.nearest(points), reference(index, points))


def test_on_a_dense_grid_with_many_ties_the_lookup_equals_its_definition() -> None:
    degrees = [(lat, lon) for lat in range(-90, 91, 15) for lon in range(-180, 181, 15)]
    index = RegionIndex(places_at(*degrees))
    points = np.array([(lat + shift, lon + shift) for lat, lon in degrees for shift in (0, 7.5) if lat + shift <= 90])
    assert np.array_equal(index.nearest(points), reference(index, points))


@pytest.mark.parametrize("num_points", [1, 63, 64, 65, 127, 128, 1000])
def test_the_number_of_threads_does_not_matter(num_points: int) -> None:
    index = default_index()
    points = unit_vectors(random_points(num_points))
    vectors = unit_vectors(index.places.latlon_deg)
    order = np.argsort(vectors[:, 2], kind="stable")
    one, two, many = (native.nearest(vectors[order], order, points, n) for n in (1, 2, 7))
    assert np.array_equal(one, two)
    assert np.array_equal(one, many)
    assert (one >= 0).all()


def test_a_point_is_looked_up_alike_alone_and_among_others() -> None:
    index = default_index()
    points = random_points(300)
    alone = [int(index.nearest(point[None])[0]) for point in points]
    assert index.nearest(points).tolist() == alone


def test_the_nearest_place_may_lie_across_the_antimeridian() -> None:
    assert nearest_of([(0, -179.9), (0, 179.9), (0, 180), (0, -180)], (0, 179.9), (0, -170)) == [0, 0, 0, 0]


def test_the_nearest_place_may_lie_across_a_pole() -> None:
    assert nearest_of([(89, 0), (-89, 0)], (89, 180), (80, 0), (-80, 0), (-89, 180)) == [0, 3]


def test_at_a_pole_longitude_means_nothing() -> None:
    assert nearest_of([(90, lon) for lon in (-180, 0, 33)], (70, 0), (85, 120), (-90, 0)) == [1, 1, 1]


def test_distance_is_along_the_sphere_not_in_degrees() -> None:
    # At 60 degrees north, 10 degrees of longitude are 5 of latitude.
    assert nearest_of([(60, 0)], (60, 9), (54, 0)) == [0]
    assert nearest_of([(0, 0)], (0, 9), (6, 0)) == [1]


@pytest.mark.parametrize("longitude", [370.0, -350.0, 10.0, 730.0])
def test_longitude_wraps(longitude: float) -> None:
    assert nearest_of([(0, longitude)], (0, -10), (0, 10), (0, 180)) == [1]


@pytest.mark.parametrize(
    "places",
    [
        ((10.0, 20.0), (10.0, 20.0), (10.0, 20.0)),
        ((5.0, 0.0), (-5.0, 0.0)),
        ((-5.0, 0.0), (5.0, 0.0)),
        ((0.0, 5.0), (0.0, -5.0)),
        ((0.0, -5.0), (0.0, 5.0)),
    ],
)
def test_a_tie_goes_to_the_lowest_id(places: tuple[tuple[float, float], ...]) -> None:
    assert nearest_of([(0.0, 0.0)], *places) == [0]
    # The same places under higher ids, after one that is farther
    assert nearest_of([(0.0, 0.0)], (80.0, 0.0), *places) == [1]


def test_a_point_that_is_none_gives_minus_1_and_leaves_the_others_alone() -> None:
    bad = [(math.nan, 0), (0, math.nan), (91, 0), (-90.001, 0), (math.inf, 0), (0, math.inf)]
    points = [(1.0, 2.0)]
    for point in bad:
        points += [point, (1.0, 2.0)]
    assert nearest_of(points, (50, 50), (0, 0)) == [1] + [-1, 1] * len(bad)
    codes = RegionIndex(places_at((0, 0))).country_codes(np.array(points))
    assert codes == ["0"] + [None, "0"] * len(bad)


@pytest.mark.parametrize("city", CITIES)
def test_a_known_city_has_its_country(city: str) -> None:
    latlon_deg, code, country = CITIES[city]
    index = default_index()
    assert index.country_codes(np.array([latlon_deg])) == [code]
    place = index.nearest(np.array([latlon_deg]))[0]
    assert index.places.country[place] == country


def test_namibia_is_not_a_missing_value() -> None:
    places = default_index().places
    assert all(isinstance(code, str) and len(code) == 2 for code in places.country_code)
    assert {name for name, code in zip(places.country, places.country_code, strict=True) if code == "NA"} == {"Namibia"}


def test_no_points_have_no_places() -> None:
    assert RegionIndex(places_at((0, 0))).nearest(np.zeros((0, 2))).tolist() == []


@pytest.mark.parametrize("shape", [(2,), (3, 3), (1, 2, 2)])
def test_points_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"latlon_deg must be \(N, 2\), got") as error:
        RegionIndex(places_at((0, 0))).nearest(np.zeros(shape))
    assert f"got {shape}" in str(error.value)


def test_an_index_of_no_places_is_rejected() -> None:
    with pytest.raises(ValueError, match="a region index needs at least one place"):
        RegionIndex(places_at())
    with pytest.raises(ValueError, match="a nearest-place lookup needs at least one place"):
        native.nearest(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), np.zeros((1, 3)), 1)
