"""The compiled index against its NumPy definition, its laws, and places everybody knows.

Shapes: N points.
"""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geogrpo.regions import native, ops
from geogrpo.regions.build import fixed_point, merge_layers
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.regions.reference import nearest_places, polygon_regions
from geogrpo.regions.sources.geonames import Places, load_geonames
from geogrpo.regions.sources.polygons import PolygonLayer
from geogrpo.regions.storage import content_hash

CITIES = {
    "Paris": ((48.8566, 2.3522), "FR", "France"),
    "Tokyo": ((35.6895, 139.6917), "JP", "Japan"),
    "Nairobi": ((-1.2864, 36.8172), "KE", "Kenya"),
    "Windhoek": ((-22.5594, 17.0832), "NA", "Namibia"),
    "Quito": ((-0.2295, -78.5243), "EC", "Ecuador"),
    "Suva": ((-18.1416, 178.4415), "FJ", "Fiji"),
}
NOWHERE = [(math.nan, 0), (0, math.nan), (91, 0), (-90.001, 0), (math.inf, 0), (0, math.inf), (0, -math.inf)]


def places_at(*latlon_deg: tuple[float, float], country: str | None = None) -> Places:
    """Places named 0, 1, 2, ..., each in a country of its name unless one is given."""
    names = [str(i) for i in range(len(latlon_deg))]
    countries = [country or name for name in names]
    nothing = [None] * len(names)
    points = np.array(latlon_deg, dtype=np.float64).reshape(-1, 2)
    return Places(points, np.zeros(len(names), np.int64), countries, countries, nothing, nothing, names)


def ring(*corners_latlon_deg: tuple[float, float]) -> np.ndarray:
    return np.array([*corners_latlon_deg, corners_latlon_deg[0]], dtype=np.float64)


def box(south: float, west: float, north: float, east: float) -> np.ndarray:
    return ring((south, west), (south, east), (north, east), (north, west))


def layer(level: str, parents: list[str | None] | None = None, **rings: list[np.ndarray] | np.ndarray) -> PolygonLayer:
    """Regions by name, each of one ring or several."""
    each = [(name, one) for name, some in rings.items() for one in (some if isinstance(some, list) else [some])]
    names = list(rings)
    return PolygonLayer(
        level=level,
        key=names,
        name=names,
        code=[""] * len(names),
        parent_key=parents or [None] * len(names),
        vertices_latlon_deg=np.concatenate([one for _, one in each]),
        ring_offset=np.cumsum([0] + [len(one) for _, one in each]),
        ring_region=np.array([names.index(name) for name, _ in each]),
        source="test",
        attribution="",
        repairs=[],
    )


def nearest_of(points: list[tuple[float, float]], *places: tuple[float, float]) -> list[str]:
    index = RegionIndex.build(places=places_at(*places))
    return index.names(index.nearest(np.array(points, dtype=np.float64))).tolist()


def countries_at(index: RegionIndex, *points: tuple[float, float]) -> list[str | None]:
    return index.names(index.lookup(np.array(points, dtype=np.float64)).country).tolist()


def random_points(num_points: int, seed: int = 0) -> np.ndarray:
    """Uniform on the sphere."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [np.degrees(np.arcsin(rng.uniform(-1, 1, num_points))), rng.uniform(-180, 180, num_points)], axis=-1
    )


def first_place(index: RegionIndex) -> int:
    return len(index) - index.count("city")


# ---- places --------------------------------------------------------------------------------------------------------


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


# ---- polygons ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_polygons_equal_the_definition(seed: int) -> None:
    """Any rings at all, from centimetres to the whole globe, crossing themselves and each other."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, list[np.ndarray]] = {}
    for number in range(rng.integers(1, 5)):
        rings = []
        for _ in range(rng.integers(1, 4)):
            center, size = random_points(1, int(rng.integers(1 << 30)))[0], 10.0 ** rng.uniform(-6, 2.3)
            corners = center + rng.uniform(-size, size, (int(rng.integers(3, 12)), 2))
            rings.append(ring(*np.clip(corners, (-90, -180), (90, 180)).tolist()))
        shapes[f"r{number}"] = rings
    polygons = merge_layers([layer("country", **shapes)])
    index = RegionIndex.build([layer("country", **shapes)], coast_tolerance_km=0)
    corners = np.concatenate([one for rings in shapes.values() for one in rings])
    near = corners[rng.integers(0, len(corners), 300)] + rng.integers(-3, 4, (300, 2)) * 1e-7
    between = rng.uniform(0, 1, (300, 1)) * (corners[rng.integers(0, len(corners), 300)] - corners[0]) + corners[0]
    points = np.clip(np.concatenate([near, between, random_points(100, seed % 1000)]), (-90, -180), (90, 180 - 1e-7))
    expected = polygon_regions(points, polygons.vertices, polygons.ring_offset, polygons.ring_region)
    assert np.array_equal(index.lookup(points).country, expected)


def test_a_point_on_a_shared_border_is_in_exactly_one_region() -> None:
    shared = [(10.0, 5.0), (12.3, 5.7), (15.0, 5.0), (20.0, 4.9)]
    west = ring((10, 0), *shared, (20, 0))
    east = ring((10, 9), (20, 9), *reversed(shared))
    for order in ({"west": west, "east": east}, {"east": east, "west": west}):
        index = RegionIndex.build([layer("country", **order)], coast_tolerance_km=0)
        steps = np.linspace(0, 1, 1001)[:, None]
        for a, b in itertools.pairwise(shared):
            border = np.array(a) + steps * (np.array(b) - a)
            names = countries_at(index, *border[:-1].tolist())
            assert None not in names
    # A hair to either side is clear.
    assert countries_at(index, (11.0, 5.2), (11.0, 5.5)) == ["west", "east"]


@pytest.mark.parametrize("degrees_off", [0.0, 1e-7, -1e-7])
def test_at_every_vertex_of_a_cover_there_is_exactly_one_region(degrees_off: float) -> None:
    """A rectangle cut into triangles that share all borders: nothing between them."""
    rng = np.random.default_rng(0)
    xs, ys = np.linspace(20, 22, 12), np.linspace(40, 43, 12)
    corners = np.stack(np.meshgrid(ys, xs, indexing="ij"), -1)
    corners[1:-1, 1:-1] += rng.uniform(-0.05, 0.05, (10, 10, 2))
    shapes = {}
    for i in range(11):
        for j in range(11):
            a, b, c, d = (corners[i, j], corners[i, j + 1], corners[i + 1, j + 1], corners[i + 1, j])
            shapes |= {
                f"{i}_{j}_a": ring(tuple(a), tuple(b), tuple(c)),
                f"{i}_{j}_b": ring(tuple(a), tuple(c), tuple(d)),
            }
    polygons = merge_layers([layer("country", **shapes)])
    index = RegionIndex.build([layer("country", **shapes)], coast_tolerance_km=0)
    inner = corners[1:-1, 1:-1].reshape(-1, 2)
    for direction in ((1, 0), (0, 1), (1, 1), (-1, 1)):
        points = inner + np.array(direction) * degrees_off
        found = index.lookup(points).country
        assert (found >= 0).all()
        expected = polygon_regions(points, polygons.vertices, polygons.ring_offset, polygons.ring_region)
        assert np.array_equal(found, expected)
        # One of the triangles that meet at the vertex
        assert all(
            np.abs(corner - fixed_point(index_vertices(polygons, region)).astype(np.int64)).sum(axis=1).min() == 0
            for corner, region in zip(fixed_point(inner).astype(np.int64), found.tolist(), strict=True)
        )


def index_vertices(polygons: object, region: int) -> np.ndarray:
    """Degrees of the vertices of a region's ring."""
    number = int(np.flatnonzero(polygons.ring_region == region)[0])  # type: ignore[attr-defined]
    start, end = polygons.ring_offset[number : number + 2]  # type: ignore[attr-defined]
    x, y = polygons.vertices[start:end].astype(np.float64).T  # type: ignore[attr-defined]
    return np.stack([y / 1e7 - 90, x / 1e7 - 180], axis=-1)


def test_both_signs_of_the_antimeridian_are_one_meridian() -> None:
    index = RegionIndex.build([layer("country", west=box(-10, 170, 10, 180), east=box(-10, -180, 10, -170))])
    assert countries_at(index, (0, 180), (0, -180), (0, 179.9), (0, -179.9)) == ["east", "east", "west", "east"]
    assert countries_at(index, (0, 180 - 1e-9), (0, 540), (0, 539.9)) == ["east", "east", "west"]


def test_at_a_pole_every_longitude_has_the_same_region() -> None:
    south = ring((-90, -180), (-70, -180), (-70, 180), (-90, 180))
    north = ring((80, -180), (90, -180), (90, 180), (80, 180))
    index = RegionIndex.build([layer("country", south=south, north=north)])
    for lon in (-180.0, -90.0, 0.0, 33.3, 179.9, 180.0):
        assert countries_at(index, (-90, lon), (90, lon), (-89.9999999, lon)) == ["south", "north", "south"]


def test_holes_and_what_lies_in_them() -> None:
    outer, hole, inner = box(0, 0, 10, 10), box(4, 4, 6, 6), box(4.5, 4.5, 5.5, 5.5)
    index = RegionIndex.build([layer("country", big=[outer, hole, inner])], coast_tolerance_km=0)
    assert countries_at(index, (1, 1), (4.2, 4.2), (5, 5)) == ["big", None, "big"]


def test_an_enclave_shows_even_where_the_surrounding_region_lacks_its_hole() -> None:
    for order in (
        {"big": box(0, 0, 10, 10), "small": box(4, 4, 6, 6)},
        {"small": box(4, 4, 6, 6), "big": box(0, 0, 10, 10)},
    ):
        index = RegionIndex.build([layer("country", **order)])
        assert countries_at(index, (5, 5), (1, 1)) == ["small", "big"]


def test_regions_with_the_very_same_border_leave_what_is_outside_alone() -> None:
    """Every edge is there twice, and yet a point may be in neither."""
    twice = RegionIndex.build([layer("country", a=box(0, 0, 10, 10), b=box(0, 0, 10, 10))], coast_tolerance_km=0)
    assert countries_at(twice, (5, 5), (10.001, 5), (5, 10.001), (-0.001, 5), (5, -0.001)) == ["a", *[None] * 4]


def test_a_finer_layer_has_priority_and_brings_its_ancestors() -> None:
    countries = layer("country", land=box(0, 0, 10, 10), other=box(0, 10, 10, 20))
    states = layer("state", ["land"], left=box(0, 0, 10, 4))
    index = RegionIndex.build([countries, states], coast_tolerance_km=0)
    names = index.names(index.lookup(np.array([(5.0, 2.0), (5.0, 7.0), (5.0, 12.0)])).ids)
    assert names[:, :2].tolist() == [["land", "left"], ["land", None], ["other", None]]
    # Where sources disagree about a border the finer region's own parent is the answer, never a mix.
    wider = layer("state", ["land"], left=box(0, 0, 10, 11))
    ids = RegionIndex.build([countries, wider]).lookup(np.array([(5.0, 10.5)])).ids
    assert RegionIndex.build([countries, wider]).names(ids)[0, :2].tolist() == ["land", "left"]


def test_a_point_off_the_coast_belongs_to_the_nearest_border_and_says_so() -> None:
    shapes = {"south": box(0, 0, 1, 2), "north": box(1.05, 0, 2, 2)}
    index = RegionIndex.build([layer("country", **shapes)], coast_tolerance_km=3)
    km = 1 / 111.195
    points = np.array([(0.5, 1.0), (1.0 + 2 * km, 1.0), (1.05 - 2 * km, 1.0), (1.0, 2 + 2 * km), (1.0, 2 + 4 * km)])
    found = index.lookup(points)
    assert index.names(found.country).tolist() == ["south", "south", "north", "south", None]
    assert found.is_near_coast.tolist() == [False, True, True, True, False]
    assert not RegionIndex.build([layer("country", **shapes)], coast_tolerance_km=0).lookup(points).is_near_coast.any()


def test_coast_tolerance_shrinks_degrees_of_longitude_towards_the_poles() -> None:
    index = RegionIndex.build([layer("country", cape=box(79, 0, 81, 10))], coast_tolerance_km=5)
    km_per_deg = 111.195 * math.cos(math.radians(80))
    assert countries_at(index, (80, 10 + 4.9 / km_per_deg), (80, 10 + 5.1 / km_per_deg)) == ["cape", None]


def test_coast_tolerance_reaches_across_the_antimeridian() -> None:
    index = RegionIndex.build([layer("country", east=box(-1, 179, 1, 180 - 1e-5))], coast_tolerance_km=5)
    assert countries_at(index, (0, -179.97), (0, -179.9), (0, 180)) == ["east", None, "east"]


def test_near_coasts_the_answer_is_the_nearest_border_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    shapes = {
        f"i{k}": box(lat, lon, lat + 0.03, lon + 0.05) for k, (lat, lon) in enumerate(rng.uniform(50, 51, (60, 2)))
    }
    index = RegionIndex.build([layer("country", **shapes)], coast_tolerance_km=8)
    points = rng.uniform(49.9, 51.1, (2000, 2))
    found = index.lookup(points)
    cos = np.cos(np.radians(points[:, 0]))
    distance = np.stack(
        [
            np.hypot(
                (points[:, 0] - points[:, 0].clip(one[0, 0], one[2, 0])) * 111.195,
                (points[:, 1] - points[:, 1].clip(one[0, 1], one[2, 1])) * 111.195 * cos,
            )
            for one in shapes.values()
        ]
    )
    expected = np.where(distance.min(axis=0) <= 8, np.array(list(shapes))[distance.argmin(axis=0)], None)
    # Overlapping boxes hold a point both; the others must agree to a metre.
    ordered = np.sort(distance, axis=0)
    clear = (ordered[1] - ordered[0] > 1e-3) & (np.abs(ordered[0] - 8) > 1e-2)
    assert clear.sum() > 1000
    assert index.names(found.country)[clear].tolist() == expected[clear].tolist()


def test_a_city_lies_in_the_points_own_polygon() -> None:
    countries = layer("country", west=box(0, 0, 10, 5), east=box(0, 5, 10, 10), empty=box(20, 0, 30, 10))
    index = RegionIndex.build([countries], places_at((5, 4), (5, 5.5), (5, 9), (50, 50)))
    points = np.array([(5.0, 4.9), (5.0, 5.1), (5.0, 8.0), (25.0, 5.0), (50.0, 50.0)])
    ids = index.lookup(points).ids
    # (5, 4.9) is nearer to the eastern place 1 than to its own 0.
    assert index.names(ids)[:, [0, 3]].tolist() == [
        ["west", "0"],
        ["east", "1"],
        ["east", "2"],
        ["empty", None],
        [None] * 2,
    ]
    assert index.names(index.nearest(points)).tolist() == ["1", "1", "2", "1", "3"]
    assert index.parents(ids[:3, 3]).tolist() == ids[:3, 0].tolist()


# ---- any input -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed() -> RegionIndex:
    """Polygons and places."""
    countries = layer("country", west=box(-60, -180, 60, 0), east=box(-60, 0, 60, 180))
    return RegionIndex.build([countries], load_geonames())


def test_a_point_that_is_none_gives_minus_1_and_leaves_the_others_alone(mixed: RegionIndex) -> None:
    good = (48.8566, 2.3522)
    points = [good]
    for point in NOWHERE:
        points += [point, good]
    for index in (mixed, default_index()):
        found = index.lookup(np.array(points))
        assert (found.ids[1::2] == -1).all()
        assert (found.ids[::2] == found.ids[0]).all()
        assert index.names(found.city)[0] == "Paris"
        assert not found.is_near_coast.any()


def test_without_wrap_a_longitude_beyond_180_is_nowhere(mixed: RegionIndex) -> None:
    points = np.array([(0.0, 180.0), (0.0, -180.0), (0.0, 180.1), (0.0, -190.0), (0.0, 370.0)])
    assert (mixed.lookup(points, wrap=False).country >= 0).tolist() == [True, True, False, False, False]
    assert (mixed.lookup(points).country >= 0).all()


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.uint64, (64, 2)), st.booleans())
def test_any_bits_are_a_point_or_nowhere(bits: np.ndarray, single: bool) -> None:
    index = default_index()
    points = bits.astype(np.uint32).view(np.float32) if single else bits.view(np.float64)
    with np.errstate(invalid="ignore"):
        is_valid = np.isfinite(points).all(axis=1) & (np.abs(points[:, 0]) <= 90)
    assert np.array_equal(index.lookup(points).city >= 0, is_valid)


@pytest.mark.parametrize("num_points", [0, 1, 127, 128, 129, 40_000, 100_001])
def test_the_number_of_threads_and_of_points_does_not_matter(
    mixed: RegionIndex, num_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = random_points(num_points, 5)
    answers = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(ops, "num_threads", lambda threads=threads: threads)
        answers.append(mixed.lookup(points))
    for other in answers[1:]:
        assert np.array_equal(answers[0].ids, other.ids)
        assert np.array_equal(answers[0].is_near_coast, other.is_near_coast)
    if num_points:
        some = np.random.default_rng(0).integers(0, num_points, 50)
        alone = np.concatenate([mixed.lookup(points[i : i + 1]).ids for i in some])
        assert np.array_equal(answers[0].ids[some], alone)


def test_float32_points_are_widened_exactly(mixed: RegionIndex) -> None:
    points = random_points(5000).astype(np.float32)
    assert np.array_equal(mixed.lookup(points).ids, mixed.lookup(points.astype(np.float64)).ids)


def test_other_dtypes_and_layouts_are_converted(mixed: RegionIndex) -> None:
    points = np.array([(48, 2), (-33, 151)])
    expected = mixed.lookup(points.astype(np.float64)).ids
    assert np.array_equal(mixed.lookup(points).ids, expected)
    assert np.array_equal(mixed.lookup(np.asfortranarray(points.astype(np.float64))).ids, expected)
    assert np.array_equal(mixed.lookup(torch.tensor(points)).ids.numpy(), expected)


def test_tensors_get_tensors_through_the_operator(mixed: RegionIndex) -> None:
    points = torch.from_numpy(random_points(1000))
    found = mixed.lookup(points)
    assert np.array_equal(found.ids.numpy(), mixed.lookup(points.numpy()).ids)
    assert np.array_equal(found.is_near_coast.numpy(), mixed.lookup(points.numpy()).is_near_coast)
    torch.library.opcheck(ops.region_lookup, (points, mixed._handle, True, True))
    with torch.device("meta"):
        ids, is_near_coast = ops.region_lookup(torch.empty(7, 2), mixed._handle, True, True)
    assert (ids.shape, ids.dtype, is_near_coast.shape, is_near_coast.dtype) == ((7, 4), torch.int32, (7,), torch.bool)


def test_a_handle_outlived_by_its_index_is_refused() -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    handle = index._handle
    del index
    with pytest.raises(ValueError, match="is gone. Keep a reference"):
        ops.region_lookup(torch.zeros(1, 2), handle, True, True)


@pytest.mark.parametrize("shape", [(2,), (3, 3), (1, 2, 2)])
def test_points_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    for points in (np.zeros(shape), torch.zeros(shape)):
        with pytest.raises(ValueError, match=r"latlon_deg must be \(N, 2\), got") as error:
            index.lookup(points)
        assert f"got {shape}" in str(error.value)


def test_nothing_to_build_from_is_rejected() -> None:
    with pytest.raises(ValueError, match="needs a polygon layer or at least one place"):
        RegionIndex.build()
    with pytest.raises(ValueError, match="needs a polygon layer or at least one place"):
        RegionIndex.build(places=places_at())
    with pytest.raises(ValueError, match="metric must be one of sphere, degrees"):
        RegionIndex.build(places=places_at((0, 0)), metric="manhattan")
    with pytest.raises(ValueError, match="no places"):
        RegionIndex.build([layer("country", a=box(0, 0, 1, 1))]).nearest(np.zeros((1, 2)))


def test_layers_that_do_not_fit_are_rejected_by_name() -> None:
    country = layer("country", land=box(0, 0, 1, 1))
    with pytest.raises(ValueError, match="state 'left' has the parent 'sea'"):
        RegionIndex.build([country, layer("state", ["sea"], left=box(0, 0, 1, 1))])
    with pytest.raises(ValueError, match="two layers of level 'country'"):
        RegionIndex.build([country, country])
    with pytest.raises(ValueError, match="level must be one of country, state, county, city, got 'planet'"):
        RegionIndex.build([layer("planet", earth=box(0, 0, 1, 1))])


def test_a_border_that_crosses_itself_is_filled_even_odd_and_reported() -> None:
    bow_tie = ring((0, 0), (0, 10), (10, 0), (10, 10))
    index = RegionIndex.build([layer("country", tie=bow_tie, plain=box(20, 0, 30, 10))], coast_tolerance_km=0)
    assert len(index.info.repairs) == 1
    assert "country 'tie' crosses its own border near" in index.info.repairs[0]
    assert countries_at(index, (1, 5), (9, 5), (5, 1)) == ["tie", "tie", None]


def test_ids_that_stand_for_nothing_are_rejected() -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    assert index.names([[-1, 0]]).tolist() == [[None, "0"]]
    assert index.levels([-1, 0, 1]).tolist() == [-1, 0, 3]
    assert np.isnan(index.place_latlon_deg(-1)).all()
    for ids in ([2], [-2], [0.5]):
        with pytest.raises(ValueError, match="ids must be integers from -1 to 1"):
            index.names(ids)
    with pytest.raises(ValueError, match="only places have coordinates"):
        index.place_latlon_deg([0])


def test_building_twice_gives_the_same_tables() -> None:
    countries = layer("country", west=box(-60, -180, 60, 0), east=box(-60, 0, 60, 180))
    first, second = (RegionIndex.build([countries], places_at((0, 1), (0, 2))) for _ in range(2))
    assert content_hash(first._tables) == content_hash(second._tables)
