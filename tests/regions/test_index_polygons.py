"""Polygon lookup: against the NumPy definition, on borders, in holes, off coasts, at the poles and the antimeridian."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regions.samples import box, layer, places_at, random_points, ring

from geogrpo.regions.build import fixed_point, merge_layers
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.native import place_vectors
from geogrpo.regions.reference import polygon_regions


def countries_at(index: RegionIndex, *points: tuple[float, float]) -> list[str | None]:
    return index.names(index.lookup(np.array(points, dtype=np.float64)).country).tolist()


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


def test_a_border_that_crosses_itself_is_filled_even_odd_and_reported() -> None:
    bow_tie = ring((0, 0), (0, 10), (10, 0), (10, 10))
    index = RegionIndex.build([layer("country", tie=bow_tie, plain=box(20, 0, 30, 10))], coast_tolerance_km=0)
    assert index.info.repairs == [
        "test: country 'tie': the border crosses itself at latitude 5.000000, longitude 5.000000, filled by the"
        " even-odd rule"
    ]
    assert countries_at(index, (1, 5), (9, 5), (5, 1)) == ["tie", "tie", None]


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


def test_a_point_in_no_state_gets_the_nearest_city_of_its_country() -> None:
    """Layers of different scales leave gaps between states; the places in the states are still the country's."""
    countries = layer("country", land=box(0, 0, 10, 10), other=box(0, 10, 10, 20))
    states = layer("state", ["land", "land"], left=box(0, 0, 10, 4), right=box(0, 6, 10, 10))
    places = places_at((5, 3), (5, 9.9), (9.9, 5), (5, 10.05))
    index = RegionIndex.build([countries, states], places)
    points = np.array([(5.0, 4.1), (9.0, 5.0), (5.0, 10.0 - 1e-6), (5.0, 7.0), (5.0, 14.0)])
    names = index.names(index.lookup(points).ids)[:, [0, 1, 3]].tolist()
    assert names == [
        ["land", "left", "0"],
        ["land", None, "2"],
        ["land", "right", "1"],
        ["land", "right", "1"],
        ["other", None, "3"],
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_city_is_the_nearest_of_the_finest_region_by_brute_force(seed: int) -> None:
    """Countries, states and counties whose borders do not fit each other."""
    rng = np.random.default_rng(seed)

    def boxes(prefix: str, count: int, size: float) -> dict[str, np.ndarray]:
        corners = rng.uniform(0, 10 - size, (count, 2))
        return {f"{prefix}{i}": box(a, b, a + size, b + size) for i, (a, b) in enumerate(corners.tolist())}

    countries, states, counties = boxes("c", 3, 6), boxes("s", 5, 3), boxes("k", 6, 1.5)
    index = RegionIndex.build(
        [
            layer("country", **countries),
            layer("state", [f"c{i % 3}" for i in range(5)], **states),
            layer("county", [f"s{i % 5}" for i in range(6)], **counties),
        ],
        places_at(*rng.uniform(0, 10, (40, 2)).tolist()),
    )
    points = rng.uniform(0, 10, (300, 2))
    ids = index.lookup(points).ids
    places = np.flatnonzero(index.levels(np.arange(len(index))) == 3)
    chains = index.lookup(index.place_latlon_deg(places)).ids
    vectors, queries = (place_vectors(x, "sphere") for x in (index.place_latlon_deg(places), points))
    distance2 = ((queries[:, None] - vectors) ** 2).sum(axis=2)
    without_places = RegionIndex.build(
        [layer("country", **countries), layer("state", [f"c{i % 3}" for i in range(5)], **states),
         layer("county", [f"s{i % 5}" for i in range(6)], **counties)]
    ).lookup(points).ids  # fmt: skip
    for row, region in enumerate(without_places.max(axis=1, initial=-1).tolist()):
        own = without_places[row]
        level = int(np.flatnonzero(own >= 0).max()) if region >= 0 else -1
        here = np.flatnonzero((chains[:, level] == own[level]) if level >= 0 else np.zeros(len(places), bool))
        expected = places[here[distance2[row, here].argmin()]] if len(here) else -1
        assert ids[row, 3] == expected
