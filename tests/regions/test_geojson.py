"""The GeoJSON reader: what it accepts, what it says about what it does not, and that no bytes break it."""

import copy
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regions.geojson_documents import COUNTRIES, FAR, HOLE, SQUARE, collection, feature, polygon, read, rings

from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons


def test_a_polygon_keeps_its_vertices_and_gets_latitude_first(tmp_path: Path) -> None:
    layer = read(tmp_path, collection(feature(polygon([FAR[0], [31.5, 20], *FAR[1:]]))))
    assert rings(layer) == [[[20, 20], [20, 31.5], [20, 30], [30, 30], [20, 20]]]
    assert (layer.key, layer.name, layer.code, layer.parent_key) == (["A"], ["Alpha"], [""], [None])
    assert layer.repairs == []
    assert layer.vertices_latlon_deg.dtype == np.float64
    assert layer.ring_offset.dtype == layer.ring_region.dtype == np.int64


def test_holes_parts_and_collections_are_rings_of_one_region(tmp_path: Path) -> None:
    multi = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [FAR]]}
    nested = {"type": "GeometryCollection", "geometries": [polygon(SQUARE, HOLE), {**multi, "coordinates": [[FAR]]}]}
    for geometry in (multi, nested, {"type": "GeometryCollection", "geometries": [nested]}):
        layer = read(tmp_path, collection(feature(polygon(FAR), "B"), feature(geometry, "A")))
        assert layer.key == ["B", "A"]
        of_a = [ring for ring, region in zip(rings(layer), layer.ring_region, strict=True) if region == 1]
        expected = [[[lat, lon] for lon, lat in ring] for ring in (SQUARE, HOLE, FAR)]
        assert sorted(of_a) == sorted(expected)


def test_gzip_byte_order_mark_and_json_suffix_are_read(tmp_path: Path) -> None:
    text = json.dumps(collection(feature(polygon(SQUARE), name="Åland"))).encode()
    for name, raw in (("a.json.gz", gzip.compress(text)), ("A.GeoJSON", b"\xef\xbb\xbf" + text), ("a.json", text)):
        path = tmp_path / name
        path.write_bytes(raw)
        assert read_polygons(path, "country", key="KEY", name="NAME").name == ["Åland"]


def test_altitude_is_ignored_wherever_it_is(tmp_path: Path) -> None:
    everywhere = [[lon, lat, 100.0] for lon, lat in SQUARE]
    somewhere = [everywhere[0], *SQUARE[1:3], [0, 10, None, "m"], SQUARE[0]]
    flat = rings(read(tmp_path, collection(feature(polygon(SQUARE)))))
    assert rings(read(tmp_path, collection(feature(polygon(everywhere))))) == flat
    assert rings(read(tmp_path, collection(feature(polygon(somewhere))))) == flat


def test_a_feature_without_geometry_is_skipped_and_reported(tmp_path: Path) -> None:
    without = feature(None, "B", "Beta")
    del without["geometry"]
    document = collection(feature(None, None, "Nil"), feature(polygon(SQUARE)), without)
    layer = read(tmp_path, document)
    assert layer.key == ["A"]
    assert layer.repairs == [
        "world.geojson: feature 1 ('Nil'): no geometry, skipped",
        "world.geojson: feature 3 ('Beta'): no geometry, skipped",
    ]


def with_ring(ring: Any) -> dict:
    return collection(feature(polygon(FAR), "B", "Beta"), feature(polygon(SQUARE, ring)))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "world.geojson: not valid JSON"),
        (b'{"type": "FeatureCollection"', "world.geojson: not valid JSON"),
        (b"\xff\xfe\x00", "world.geojson: not valid JSON"),
        (b"", "world.geojson: not valid JSON"),
        (b"[" * 100_000, "world.geojson: not valid JSON"),
        (b"1" * 100_000, "world.geojson: not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        ([], "world.geojson: expected a GeoJSON FeatureCollection, got list"),
        ({"type": "Topology"}, "expected a GeoJSON FeatureCollection, got 'Topology'"),
        (feature(polygon(SQUARE)), "expected a GeoJSON FeatureCollection, got 'Feature'"),
        ({"type": "FeatureCollection", "features": {}}, "`features` must be a list"),
        (collection(), "world.geojson: no features"),
        (collection(feature(None)), "world.geojson: no feature has a polygon"),
        (collection(feature({"type": "MultiPolygon", "coordinates": []})), "no feature has a polygon"),
        (collection(7), "feature 1: must be an object, got 7"),
        (collection({**feature(None), "properties": []}), "feature 1: properties must be an object"),
        (
            collection(feature({"type": "Point", "coordinates": [1, 2]})),
            "feature 1 ('Alpha'): expected Polygon.*'Point'",
        ),
        (
            collection(feature({"type": "GeometryCollection", "geometries": [{"type": "LineString"}]})),
            "feature 1 ('Alpha'): expected Polygon.*'LineString'",
        ),
        (collection(feature({"type": "GeometryCollection", "geometries": [None]})), "a geometry must be an object"),
        (collection(feature({"type": "GeometryCollection"})), "feature 1 ('Alpha'): geometries must be a list"),
        (collection(feature([1])), "feature 1 ('Alpha'): a geometry must be an object"),
        (collection(feature({"type": "Polygon"})), "feature 1 ('Alpha'): coordinates must be a list, got None"),
        (collection(feature({"type": "MultiPolygon", "coordinates": [3]})), "a polygon must be a list"),
        (with_ring("abc"), "feature 2 ('Alpha'): a ring must be a list"),
        (with_ring([1, 2, 3]), "feature 2 ('Alpha'): a position must be .*: is a level of lists missing"),
        (with_ring([SQUARE]), "feature 2 ('Alpha'): a coordinate must be a number, got list: is the ring nested too"),
        (with_ring([[1], *HOLE]), "feature 2 ('Alpha'): a position must be .*, got 1 values"),
        (with_ring([["4", "4"], *HOLE[1:]]), "feature 2 ('Alpha'): a coordinate must be a number, got str"),
        (with_ring([[None, 4], *HOLE[1:]]), "feature 2 ('Alpha'): a coordinate must be a number, got null"),
        (with_ring([[True, 4], *HOLE[1:]]), "feature 2 ('Alpha'): a coordinate must be a number, got bool"),
        (with_ring([[4, 10**400], *HOLE[1:]]), "feature 2 ('Alpha'): a coordinate is too large"),
        (
            with_ring([[4, float("nan")], *HOLE[1:]]),
            "feature 2 ('Alpha'): vertex with longitude 4, latitude nan is not",
        ),
        (with_ring([[float("inf"), 4], *HOLE[1:]]), "feature 2 ('Alpha'): vertex with longitude inf"),
    ],
)
def test_a_broken_file_is_rejected_by_file_and_feature(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        read(tmp_path, document)


@pytest.mark.parametrize("damage", [lambda raw: raw[:40], lambda raw: b"\x1f\x8b" + raw, lambda raw: raw[:-1] + b"x"])
def test_a_broken_gzip_file_is_rejected(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "world.geojson.gz"
    path.write_bytes(damage(gzip.compress(json.dumps(with_ring(HOLE)).encode())))
    with pytest.raises(ValueError, match="world.geojson.gz: cannot be read"):
        read_polygons(path, "country", key="KEY", name="NAME")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geogrpo.regions.sources.geojson._MAX_BYTES", 1000)
    path = tmp_path / "world.geojson.gz"
    path.write_bytes(gzip.compress(b" " * 10_000))
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_polygons(path, "country", key="KEY", name="NAME")


def test_a_missing_file_is_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.json: cannot be read"):
        read_polygons(tmp_path / "nowhere.json", "country", key="KEY", name="NAME")


@pytest.mark.parametrize(
    "name",
    ["urn:ogc:def:crs:OGC:1.3:CRS84", "urn:ogc:def:crs:EPSG::4326", "EPSG:4326", "urn:ogc:def:crs:OGC::CRS84"],
)
def test_wgs84_may_be_named_as_the_reference_system(tmp_path: Path, name: str) -> None:
    crs = {"type": "name", "properties": {"name": name}}
    assert read(tmp_path, collection(feature(polygon(SQUARE)), crs=crs)).key == ["A"]


@pytest.mark.parametrize(
    "crs",
    [
        {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}},
        {"type": "name", "properties": {"name": "EPSG:14326"}},
        {"type": "name", "properties": {"name": "EPSG:43260"}},
        {"type": "link", "properties": {"href": "http://example.com/crs"}},
        {"properties": None},
        "EPSG:4326",
    ],
)
def test_another_reference_system_is_rejected(tmp_path: Path, crs: Any) -> None:
    with pytest.raises(ValueError, match=r"world.geojson: coordinates must be WGS84 degrees.*ogr2ogr"):
        read(tmp_path, collection(feature(polygon(SQUARE)), crs=crs))


@pytest.fixture(scope="module")
def countries() -> PolygonLayer:
    if not COUNTRIES.exists():
        pytest.skip(f"{COUNTRIES} is missing: it is shared test data, not part of the repository")
    return read_polygons(COUNTRIES, "country", key="ADM0_A3", name="NAME_LONG", code="ISO_A2_EH")


def test_natural_earth_countries_are_complete(countries: PolygonLayer) -> None:
    assert len(countries.key) == 258
    assert len(countries.vertices_latlon_deg) == 548_471
    assert countries.repairs == []
    row = countries.key.index("NOR")
    assert (countries.name[row], countries.code[row]) == ("Norway", "NO")
    # Somaliland has no ISO code: -99 in the file.
    assert countries.code[countries.key.index("SOL")] == ""
    document = json.loads(gzip.decompress(COUNTRIES.read_bytes()))
    italy = next(item for item in document["features"] if item["properties"]["ADM0_A3"] == "ITA")
    expected = [ring for part in italy["geometry"]["coordinates"] for ring in part]
    ids = np.flatnonzero(countries.ring_region == countries.key.index("ITA"))
    assert len(ids) == len(expected) > 20
    for ring, lonlat in zip(ids, expected, strict=True):
        found = countries.vertices_latlon_deg[countries.ring_offset[ring] : countries.ring_offset[ring + 1]]
        np.testing.assert_array_equal(found[:, ::-1], lonlat)


def test_natural_earth_is_read_without_a_python_step_per_vertex(countries: PolygonLayer) -> None:
    start = time.process_time()
    read_polygons(COUNTRIES, "country", key="ADM0_A3", name="NAME_LONG")
    # 0.75 s measured, of which json.loads takes 0.3 s. A Python step per vertex is 1 s or more on top.
    assert time.process_time() - start < 2.0


VALID = with_ring(HOLE)
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
    st.just([[0, 0], [200, 0], [200, 9]]),
    st.sampled_from(["Point", "MultiPolygon", "GeometryCollection", "-99", "\ud800", "EPSG:4326"]),
)


def places(node: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything inside a JSON document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [inner for key, value in items for inner in places(value, (*path, key))]


def assert_valid_or_rejected(folder: Path, raw: bytes) -> None:
    try:
        layer = read(folder, raw, code="NAME", parent="KEY")
    except ValueError:
        return
    assert len(set(layer.key)) == len(layer.key) == len(layer.name) == len(layer.code) == len(layer.parent_key) > 0
    assert (np.abs(layer.vertices_latlon_deg) <= (90, 180)).all()
    assert set(layer.ring_region.tolist()) == set(range(len(layer.key)))
    assert layer.ring_offset[0] == 0
    assert layer.ring_offset[-1] == len(layer.vertices_latlon_deg)
    assert (np.diff(layer.ring_offset) >= 4).all()
    for ring in rings(layer):
        assert ring[0] == ring[-1]
    json.dumps([layer.key, layer.name, layer.code], ensure_ascii=False).encode()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_changed_value_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    document = copy.deepcopy(VALID)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        node = document
        for key in path[:-1]:
            node = node[key]
        if data.draw(st.booleans()):
            node[path[-1]] = copy.deepcopy(data.draw(ODD_VALUES))
        else:
            del node[path[-1]]
        if not places(document):
            break
    assert_valid_or_rejected(tmp_path_factory.getbasetemp(), json.dumps(document).encode())


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_changed_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(VALID).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([b"[", b"]", b"{", b"}", b",", b'"', b"e9", b"-", b"NaN"]))
        )
    assert_valid_or_rejected(tmp_path_factory.getbasetemp(), bytes(raw))
