"""Polygon layers: attributes, merged regions, points of view, and the repairs of rings."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regions.geojson_documents import COUNTRIES, FAR, SQUARE, collection, feature, polygon, read, rings

from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons
from geogrpo.regions.sources.rings import Rings, repair_rings


def shifted(ring: list, lon_deg: float) -> list:
    return [[lon + lon_deg, lat] for lon, lat in ring]


def test_features_of_one_key_become_one_region_named_by_the_first(tmp_path: Path) -> None:
    document = collection(
        feature(polygon(SQUARE), "A", "Alpha", CODE="AA"),
        feature(polygon(FAR), "B", "Beta", CODE="-99"),
        feature(polygon(shifted(FAR, 60)), "A", "Other", CODE="XX"),
    )
    layer = read(tmp_path, document, code="CODE")
    assert (layer.key, layer.name, layer.code) == (["A", "B"], ["Alpha", "Beta"], ["AA", ""])
    assert layer.ring_region.tolist() == [0, 1, 0]


def test_numbers_are_keys_too_and_missing_values_are_empty(tmp_path: Path) -> None:
    document = collection(
        feature(polygon(SQUARE), 1001, " Autauga ", CODE=1.0, UP="US"),
        feature(polygon(FAR), "1003", None, CODE=None, UP=-99),
    )
    layer = read(tmp_path, document, code="CODE", parent="UP")
    assert layer.key == ["1001", "1003"]
    assert (layer.name, layer.code, layer.parent_key) == (["Autauga", ""], ["1", ""], ["US", None])
    assert layer.repairs == ["world.geojson: feature 2: no name"]


@pytest.mark.parametrize("key", [None, "", "  ", -99, "-99", -99.0, float("nan")])
def test_a_feature_without_a_key_is_rejected(tmp_path: Path, key: Any) -> None:
    document = collection(feature(polygon(SQUARE)), feature(polygon(FAR), key, "Beta"))
    with pytest.raises(ValueError, match=r"world.geojson: feature 2 \('Beta'\): no key in column 'KEY'"):
        read(tmp_path, document)


@pytest.mark.parametrize("value", [True, ["x"], {"x": 1}, "\ud800"])
def test_an_attribute_that_is_no_text_is_rejected(tmp_path: Path, value: Any) -> None:
    for column in ("KEY", "CODE"):
        document = collection(feature(polygon(SQUARE), CODE="c"))
        document["features"][0]["properties"][column] = value
        with pytest.raises(ValueError, match=rf"feature 1 \('Alpha'\): {column} (must be text|is not valid Unicode)"):
            read(tmp_path, document, code="CODE")


@pytest.mark.parametrize("argument", ["key", "name", "code", "parent"])
def test_a_missing_column_is_answered_with_the_nearest_first(tmp_path: Path, argument: str) -> None:
    document = collection(feature(polygon(SQUARE), POPULATION=1, SHAPE_ISO="x"))
    with pytest.raises(ValueError, match="world.geojson: no column 'shapeIso', expected one of: SHAPE_ISO, "):
        read(tmp_path, document, **{argument: "shapeIso"})


def test_an_unknown_level_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="level must be one of country, state, county, city, got 'province'"):
        read_polygons(tmp_path / "x.json", "province", key="KEY", name="NAME")


def test_a_key_with_two_parents_is_not_unique(tmp_path: Path) -> None:
    counties = [
        feature(polygon(SQUARE), "Washington", "Washington", STATE="Oregon"),
        feature(polygon(FAR), "Washington", "Washington", STATE="Texas"),
    ]
    with pytest.raises(ValueError, match=r"feature 2 .*'Washington' has parent 'Texas' here and 'Oregon' in feature 1"):
        read(tmp_path, collection(*counties), parent="STATE")


def disputed(tmp_path: Path, pov: str | None) -> PolygonLayer:
    document = collection(
        feature(polygon(SQUARE), "TWN", "Taiwan", KEY_CN="CHN", KEY_TW="TWN", KEY_XX="ZZZ", KEY_UN=-99, CODE="TW"),
        feature(polygon(FAR), "CHN", "China", KEY_CN="CHN", KEY_TW=None, KEY_XX="-99", KEY_UN="-99", CODE="CN"),
        feature(polygon(shifted(FAR, 30)), "PGA", "Spratly", KEY_CN="CHN", KEY_TW="TWN", KEY_XX="", KEY_UN=None),
    )
    return read(tmp_path, document, pov=pov, code="CODE")


@pytest.mark.parametrize(
    ("pov", "keys", "names", "codes", "ring_region"),
    [
        (None, ["TWN", "CHN", "PGA"], ["Taiwan", "China", "Spratly"], ["TW", "CN", ""], [0, 1, 2]),
        ("CN", ["CHN"], ["China"], ["CN"], [0, 0, 0]),
        ("TW", ["TWN", "CHN"], ["Taiwan", "China"], ["TW", "CN"], [0, 1, 0]),
        # Nothing has this key by default: the first feature that got it names it.
        ("XX", ["ZZZ", "CHN", "PGA"], ["Taiwan", "China", "Spratly"], ["TW", "CN", ""], [0, 1, 2]),
    ],
)
def test_a_point_of_view_moves_disputed_areas(
    tmp_path: Path, pov: str | None, keys: list, names: list, codes: list, ring_region: list
) -> None:
    layer = disputed(tmp_path, pov)
    assert (layer.key, layer.name, layer.code) == (keys, names, codes)
    assert layer.ring_region.tolist() == ring_region


@pytest.mark.parametrize("pov", ["UN", "FR", "cn", ""])
def test_an_unknown_point_of_view_is_answered_with_a_list(tmp_path: Path, pov: str) -> None:
    with pytest.raises(ValueError, match="no point of view .* expected one of: CN, TW, XX"):
        disputed(tmp_path, pov)
    with pytest.raises(ValueError, match="only Natural Earth countries"):
        read(tmp_path, collection(feature(polygon(SQUARE))), pov=pov)


@pytest.mark.skipif(not COUNTRIES.exists(), reason=f"{COUNTRIES} is missing: it is shared test data")
def test_points_of_view_of_natural_earth() -> None:
    def layer(pov: str | None) -> PolygonLayer:
        return read_polygons(COUNTRIES, "country", key="ADM0_A3", name="NAME", code="ISO_A2_EH", pov=pov)

    default, china = layer(None), layer("CN")
    assert len(default.key) == 258
    gone = set(default.key) - set(china.key)
    assert {"TWN", "KOS", "SOL", "CYN", "KAB"} < gone
    row = china.key.index("CHN")
    assert (china.name[row], china.code[row]) == ("China", "CN")
    default_rings = np.isin(default.ring_region, [default.key.index(key) for key in ("CHN", "TWN", "PGA")])
    assert (china.ring_region == row).sum() == default_rings.sum()
    with pytest.raises(ValueError, match="expected one of: AR, BD, BR, CN, DE"):
        layer("UN")


FEATURE = (
    b'{"properties":{"KEY":"A","NAME":"B"},"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,0],[1,1],[0,0]]]}}'
)


def test_source_names_the_file_and_its_hash(tmp_path: Path) -> None:
    layer = read(tmp_path, b'{"type":"FeatureCollection","features":[' + FEATURE + b"]}", attribution="Me, CC BY")
    assert layer.source.startswith("world.geojson sha256:")
    assert len(layer.source.rpartition(":")[2]) == 64
    changed = read(tmp_path, b' {"type":"FeatureCollection","features":[' + FEATURE + b"]}")
    assert changed.source != layer.source
    assert (layer.attribution, changed.attribution) == ("Me, CC BY", "")


def test_an_open_ring_is_closed_and_reported(tmp_path: Path) -> None:
    layer = read(tmp_path, collection(feature(polygon(FAR)), feature(polygon(SQUARE[:-1], FAR[:-1]), "B", "Beta")))
    assert [len(ring) for ring in rings(layer)] == [4, 5, 4]
    assert rings(layer)[1] == [[lat, lon] for lon, lat in SQUARE]
    assert layer.repairs == ["world.geojson: feature 2 ('Beta'): 2 rings closed"]


@pytest.mark.parametrize(
    "thin",
    [
        [],
        [[1, 1]],
        [[1, 1], [2, 2]],
        [[1, 1], [2, 2], [1, 1]],
        [[1, 1], [2, 2], [1, 1], [2, 2], [1, 1]],
        [[1, 1]] * 5,
        [[1, 1], [1, 1], [2, 1], [2, 1], [1, 1]],
    ],
)
def test_a_ring_without_three_vertices_is_dropped_and_reported(tmp_path: Path, thin: list) -> None:
    layer = read(tmp_path, collection(feature(polygon(thin, SQUARE)), feature(polygon(FAR, thin), "B")))
    assert [len(ring) for ring in rings(layer)] == [5, 4]
    assert layer.ring_region.tolist() == [0, 1]
    assert layer.repairs[0] == "world.geojson: feature 1 ('Alpha'): 1 ring with fewer than 3 distinct vertices dropped"
    assert len(layer.repairs) == 2


def test_three_distinct_vertices_are_enough(tmp_path: Path) -> None:
    layer = read(tmp_path, collection(feature(polygon([[0, 0], [0, 0], [1, 0], [0, 0], [1, 1], [0, 0]]))))
    assert len(rings(layer)) == 1
    assert layer.repairs == []


def test_a_region_that_loses_all_its_rings_is_left_out(tmp_path: Path) -> None:
    thin = feature(polygon([[1, 1], [2, 2], [1, 1]]), "B", "Beta")
    layer = read(tmp_path, collection(feature(polygon(SQUARE)), thin, feature(polygon(FAR), "C", "Gamma")))
    assert (layer.key, layer.name) == (["A", "C"], ["Alpha", "Gamma"])
    assert layer.ring_region.tolist() == [0, 1]
    assert layer.repairs[-1] == "world.geojson: feature 2 ('Beta'): no ring is left, region left out"


@pytest.mark.parametrize(
    ("lon_deg", "lat_deg", "message"),
    [
        (35.6, 139.7, "beyond latitude .*: are latitude and longitude swapped"),
        (-33.9, -151.2, "beyond latitude .*: are latitude and longitude swapped"),
        (260_000.0, 5_000_000.0, "beyond latitude .*reproject"),
        (540.5, 10.0, "beyond longitude"),
        (-541.0, 10.0, "beyond longitude"),
    ],
)
def test_coordinates_out_of_range_are_rejected(tmp_path: Path, lon_deg: float, lat_deg: float, message: str) -> None:
    ring = [[lon_deg, lat_deg], [1, 1], [2, 1], [lon_deg, lat_deg]]
    with pytest.raises(ValueError, match=rf"world.geojson: feature 2 \('Beta'\): vertex with longitude .*{message}"):
        read(tmp_path, collection(feature(polygon(SQUARE)), feature(polygon([], FAR, ring), "B", "Beta")))


@pytest.mark.parametrize(
    ("ring", "jump"),
    [
        ([[179, 0], [-179, 0], [-179, 5], [179, 5], [179, 0]], "179 to -179"),
        # Only the edge that closes the ring jumps.
        ([[-100, 0], [0, 5], [100, 0]], "100 to -100"),
        ([[-180, -60], [180, -60], [180, -80], [-180, -80], [-180, -60]], "-180 to 180"),
        # From pole to pole is no edge along a pole.
        ([[-180, -90], [180, 90], [180, -90], [-180, -90]], "-180 to 180"),
    ],
)
def test_an_edge_around_the_globe_is_rejected(tmp_path: Path, ring: list, jump: str) -> None:
    with pytest.raises(ValueError, match=rf"feature 2 \('Beta'\): an edge goes from longitude {jump}.*antimeridian"):
        read(tmp_path, collection(feature(polygon(SQUARE)), feature(polygon(ring), "B", "Beta")))


def test_a_step_between_rings_is_no_edge_and_half_the_globe_is_allowed(tmp_path: Path) -> None:
    layer = read(tmp_path, collection(feature(polygon(shifted(SQUARE, -170), shifted(SQUARE, 165)))))
    assert layer.repairs == []
    wide = [[-90, 0], [90, 0], [90, 5], [-90, 5], [-90, 0]]
    assert rings(read(tmp_path, collection(feature(polygon(wide))))) == [[[lat, lon] for lon, lat in wide]]


@pytest.mark.parametrize("pole_deg", [90.0, -90.0, -89.999999])
def test_antarctica_is_closed_along_the_pole(tmp_path: Path, pole_deg: float) -> None:
    lat_deg = np.sign(pole_deg) * 60.0
    coast = [[lon, lat_deg] for lon in range(-180, 181, 60)]
    ring = [*coast, [180, pole_deg], [-180, pole_deg], coast[0]]
    layer = read(tmp_path, collection(feature(polygon(ring))))
    assert rings(layer) == [[[lat, lon] for lon, lat in ring]]
    assert layer.repairs == []


def test_a_ring_past_the_antimeridian_is_cut_exactly_there(tmp_path: Path) -> None:
    fiji = [[177, -20], [182, -18], [177, -16], [177, -20]]
    layer = read(tmp_path, collection(feature(polygon(SQUARE)), feature(polygon(fiji), "FJI", "Fiji")))
    assert layer.repairs == [
        "world.geojson: feature 2 ('Fiji'): 1 ring beyond longitude +-180 cut at the antimeridian and wrapped"
    ]
    assert layer.ring_region.tolist() == [0, 1, 1]
    east, west = rings(layer)[1:]
    cut_south, cut_north = -20 + 3 * 0.4, -16 - 3 * 0.4
    np.testing.assert_allclose(sorted(east[:-1]), [(-20, 177), (cut_south, 180), (cut_north, 180), (-16, 177)])
    np.testing.assert_allclose(sorted(west[:-1]), [(cut_south, -180), (-18, -178), (cut_north, -180)])
    # The same bits on both sides: nothing is lost between them.
    assert {lat for lat, lon in east if lon == 180} == {lat for lat, lon in west if lon == -180}


def test_neighbours_are_cut_at_the_same_place(tmp_path: Path) -> None:
    for lon_a, lat_a, lon_b, lat_b in np.random.default_rng(0).uniform((178, -5, 181, -5), (179, 5, 182, 5), (30, 4)):
        a, b = [lon_a, lat_a], [lon_b, lat_b]
        document = collection(feature(polygon([a, b, [179, -9], a])), feature(polygon([b, a, [182, 9], b]), "B"))
        shared = lat_a + (180 - lon_a) / (lon_b - lon_a) * (lat_b - lat_a)
        cuts = [lat for ring in rings(read(tmp_path, document)) for lat, lon in ring if abs(lon) == 180]
        near = [lat for lat in cuts if abs(lat - shared) < 1e-9]
        assert len(near) >= 4
        assert len(set(near)) == 1


def test_a_spike_past_the_antimeridian_leaves_no_line(tmp_path: Path) -> None:
    spike = [[170, 0], [185, 0], [170, 0], [170, 5], [160, 3], [170, 0]]
    (found,) = rings(read(tmp_path, collection(feature(polygon(spike)))))
    assert {lon for _, lon in found} == {160, 170, 180}


def test_antarctica_from_0_to_360_is_turned(tmp_path: Path) -> None:
    coast = [[lon, -60] for lon in range(0, 361, 60)]
    layer = read(tmp_path, collection(feature(polygon([*coast, [360, -90], [0, -90], coast[0]]))))
    point = np.array([(-75.0, lon) for lon in range(-179, 180, 20)])
    assert is_inside(layer.vertices_latlon_deg, layer.ring_offset, point).all()
    assert not is_inside(layer.vertices_latlon_deg, layer.ring_offset, point + np.array([20, 0])).any()


@pytest.mark.parametrize("turn_deg", [-360.0, 360.0])
def test_data_of_another_turn_is_shifted_as_it_is(tmp_path: Path, turn_deg: float) -> None:
    for ring in (SQUARE, shifted(SQUARE, 170), shifted(SQUARE, -180)):
        layer = read(tmp_path, collection(feature(polygon(shifted(ring, turn_deg)))))
        assert len(layer.repairs) == 1
        (found,) = rings(layer)
        # Clipping may start the ring at another vertex.
        assert sorted(found[:-1]) == sorted([lat, lon] for lon, lat in ring[:-1])


def test_a_ring_that_touches_the_antimeridian_is_not_cut(tmp_path: Path) -> None:
    touching = shifted(SQUARE, 170)
    layer = read(tmp_path, collection(feature(polygon(touching))))
    assert layer.repairs == []
    assert rings(layer) == [[[lat, lon] for lon, lat in touching]]


def test_a_ring_wider_than_the_globe_is_rejected(tmp_path: Path) -> None:
    around = [[lon, 0] for lon in range(-180, 200, 20)]
    ring = [*around, [190, 5], *([lon, 10] for lon in range(180, -190, -20)), around[0]]
    with pytest.raises(ValueError, match=r"feature 1 \('Alpha'\): a ring spans 370 degrees"):
        read(tmp_path, collection(feature(polygon(ring))))


def is_inside(vertices_latlon_deg: np.ndarray, ring_offset: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Even-odd by brute force, (N,) bool for (N, 2) points."""
    inside = np.zeros(len(point), bool)
    lat, lon = point.T
    for start, end in pairwise(ring_offset):
        ring = vertices_latlon_deg[start:end]
        for (lat0, lon0), (lat1, lon1) in pairwise(ring):
            if lat0 != lat1:
                inside ^= ((lat0 <= lat) != (lat1 <= lat)) & (lon < lon0 + (lat - lat0) * (lon1 - lon0) / (lat1 - lat0))
    return inside


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(-120, 120), st.integers(-80, 80)), min_size=3, max_size=9),
    start_deg=st.integers(-350, 350),
)
def test_wrapping_keeps_the_interior_of_any_ring(steps: list[tuple[int, int]], start_deg: int) -> None:
    # Any ring, also one that crosses itself, of at most 360 degrees of longitude.
    lon = start_deg + np.clip(np.array([step[0] for step in steps]), -90, 89)
    ring = np.stack([lon, [step[1] for step in steps]], axis=1).astype(float)
    ring = np.concatenate([ring, ring[:1]])
    before = Rings(ring, np.array([0, len(ring)]), np.array([0]), np.array([False]))
    after, _ = repair_rings(before, lambda feature: "f")
    assert (np.abs(after.vertices_lonlat_deg) <= (180, 90)).all()
    # Away from vertices and from the cut, where rounding may decide.
    point = np.random.default_rng(0).uniform((-85, -179.9), (85, 179.9), (300, 2)) + 1e-3
    expected = np.zeros(len(point), bool)
    for turn_deg in (-360.0, 0.0, 360.0):
        expected |= is_inside(ring[:, ::-1], before.offset, point + np.array([0, turn_deg]))
    np.testing.assert_array_equal(is_inside(after.vertices_lonlat_deg[:, ::-1], after.offset, point), expected)
