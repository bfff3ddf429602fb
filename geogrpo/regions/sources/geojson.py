"""GeoJSON (RFC 7946) with the standard library and NumPy.

Untrusted input: whatever the bytes are, the result is features or a ValueError.
"""

import gzip
import io
import json
import zlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from geogrpo.regions.collection import no_garbage_collection
from geogrpo.regions.sources.features import Columns, Features, crs_error, feature_label, is_wgs84_name, shown
from geogrpo.regions.sources.rings import Rings, offsets

SUFFIXES = (".geojson", ".json", ".geojson.gz", ".json.gz")
# Parsed JSON takes about 10 times its size; a gzip bomb would take the machine down.
_MAX_BYTES = 2**31


def read_geojson(path: Path, columns: Columns) -> Features:
    """The features of a FeatureCollection.

    Args:
        path: ends in one of SUFFIXES; gzip by the name.
        columns: the property names to read.
    Raises:
        ValueError: naming the file, and the feature where there is one.
    """
    features = _feature_list(path.name, _load(path))
    properties = [_properties(path.name, i, feature) for i, feature in enumerate(features)]
    wanted = columns.wanted(path.name, list(dict.fromkeys(chain.from_iterable(properties)))) if properties else []
    labels = [feature_label(path.name, i, values.get(columns.name)) for i, values in enumerate(properties)]
    geometries = [feature.get("geometry") for feature in features]
    polygons = [
        _polygons(geometry, label) if geometry is not None else []
        for geometry, label in zip(geometries, labels, strict=True)
    ]
    return Features(
        file=path.name,
        columns=columns,
        attributes={column: [values.get(column) for values in properties] for column in wanted},
        has_geometry=np.array([geometry is not None for geometry in geometries], dtype=bool),
        rings=_rings(polygons, labels),
        notes=[],
    )


def _load(path: Path) -> object:
    try:
        raw = path.read_bytes()
        if path.name.lower().endswith(".gz"):
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
                raw = file.read(_MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if len(raw) > _MAX_BYTES:
        raise ValueError(f"{path}: GeoJSON of more than {_MAX_BYTES} bytes. Convert it: ogr2ogr OUT.gpkg IN.")
    if raw.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: this is a Git LFS pointer, not the file it points to. Run: git lfs pull")
    try:
        # Every coordinate pair is a new list: 548,471 vertices take 0.49 s with collection, 0.24 s without.
        with no_garbage_collection():
            return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from error


def _feature_list(file: str, document: object) -> list[dict]:
    if not isinstance(document, dict) or document.get("type") != "FeatureCollection":
        kind = document.get("type") if isinstance(document, dict) else document
        raise ValueError(f"{file}: expected a GeoJSON FeatureCollection, got {shown(kind)}.")
    _check_crs(file, document.get("crs"))
    features = document.get("features")
    if not isinstance(features, list):
        raise ValueError(f"{file}: `features` must be a list, got {shown(features)}.")
    for i, feature in enumerate(features):
        if not isinstance(feature, dict):
            raise ValueError(f"{feature_label(file, i, None)}: must be an object, got {shown(feature)}.")
    return features


def _check_crs(file: str, crs: object) -> None:
    """RFC 7946 knows WGS84 only; GeoJSON of 2008 could name another system in `crs`."""
    if crs is None:
        return
    properties = crs.get("properties") if isinstance(crs, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    if not isinstance(name, str) or not is_wgs84_name(name):
        raise crs_error(file, name if isinstance(name, str) else shown(crs))


def _properties(file: str, i: int, feature: dict) -> dict:
    properties = feature.get("properties")
    if properties is None:
        return {}
    if not isinstance(properties, dict):
        raise ValueError(f"{feature_label(file, i, None)}: properties must be an object, got {shown(properties)}.")
    return properties


def _polygons(geometry: object, label: str) -> list[list]:
    """The rings of each polygon in a geometry, as they are in the file."""
    polygons: list[list] = []
    # A stack, not recursion: collections may be nested deeper than Python's own stack.
    pending = [geometry]
    while pending:
        part = pending.pop()
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(part, dict):
            raise ValueError(f"{label}: a geometry must be an object, got {shown(part)}.")
        if kind == "GeometryCollection":
            pending += _list(part.get("geometries"), "geometries", label)
        elif kind == "Polygon":
            polygons.append(_list(part.get("coordinates"), "coordinates", label))
        elif kind == "MultiPolygon":
            parts = _list(part.get("coordinates"), "coordinates", label)
            polygons += [_list(polygon, "a polygon", label) for polygon in parts]
        else:
            raise ValueError(f"{label}: expected Polygon, MultiPolygon or GeometryCollection, got {shown(kind)}.")
    for ring in chain.from_iterable(polygons):
        _list(ring, "a ring", label)
    return polygons


def _list(value: object, what: str, label: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{label}: {what} must be a list, got {shown(value)}.")
    return value


def _rings(polygons_of: Sequence[list[list]], labels: Sequence[str]) -> Rings:
    polygons = list(chain.from_iterable(polygons_of))
    feature = np.repeat(np.arange(len(polygons_of)), [sum(map(len, polygons)) for polygons in polygons_of])
    is_hole = [number > 0 for polygon in polygons for number in range(len(polygon))]
    rings = list(chain.from_iterable(polygons))
    counts = np.fromiter(map(len, rings), np.int64, len(rings))
    try:
        vertices = _lonlat_deg(list(chain.from_iterable(rings)))
    except ValueError:
        # All at once is 3 times faster than ring by ring, but does not say where the mistake is.
        for ring, i in zip(rings, feature.tolist(), strict=True):
            try:
                _lonlat_deg(ring)
            except ValueError as error:
                raise ValueError(f"{labels[i]}: {error}") from error
        raise
    return Rings(vertices, offsets(counts), feature, np.array(is_hole, dtype=bool))


def _lonlat_deg(positions: list) -> np.ndarray:
    """(V, 2) float64 of V positions; an altitude, or whatever else follows the latitude, is ignored."""
    # Types are checked on their own because NumPy reads "1", true and null as numbers.
    wrong = set(map(type, positions)) - {list}
    if wrong:
        raise ValueError(f"a position must be [longitude, latitude], got {_names(wrong)}: is a level of lists missing?")
    sizes = set(map(len, positions))
    if sizes and min(sizes) < 2:
        raise ValueError(f"a position must be [longitude, latitude], got {min(sizes)} values.")
    if sizes != {2}:
        positions = [position[:2] for position in positions]
    flat = list(chain.from_iterable(positions))
    wrong = set(map(type, flat)) - {int, float}
    if wrong:
        hint = ": is the ring nested too deep?" if list in wrong else "."
        raise ValueError(f"a coordinate must be a number, got {_names(wrong)}{hint}")
    try:
        return np.array(flat, dtype=np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise ValueError("a coordinate is too large a number.") from error


def _names(types: set[type]) -> str:
    return ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in types))
