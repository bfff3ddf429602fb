"""Shapefile, GeoPackage and FlatGeobuf, each also zipped, through pyogrio, which is imported here only.

Geometries come as WKB bytes and are decoded to arrays: no geometry objects, no shapely. A malformed file ends in a
ValueError as far as GDAL, which parses it, does not crash itself.
"""

import re
import struct
import zipfile
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np

from geogrpo.regions.sources.features import Columns, Features, crs_error, feature_label, is_wgs84_name
from geogrpo.regions.sources.rings import Rings, offsets

# First bytes by suffix. GDAL goes by content and would open everything else too, such as text that names other files,
# URLs (VRT, WFS, GML schemas) or commands (GDALG), which untrusted files must not do.
_FIRST_BYTES = {".shp": b"\0\0\x27\x0a", ".gpkg": b"SQLite format 3\0", ".fgb": b"fgb"}
_WKB_NAMES = {
    1: "Point",
    2: "LineString",
    4: "MultiPoint",
    5: "MultiLineString",
    8: "CircularString",
    9: "CompoundCurve",
    10: "CurvePolygon",
    11: "MultiCurve",
    12: "MultiSurface",
    15: "PolyhedralSurface",
    16: "TIN",
    17: "Triangle",
}
_POLYGON, _MULTI_POLYGON, _COLLECTION = 3, 6, 7
# NAD83 counts as WGS84: see features.py.
_DATUMS = re.compile(r"(d_?)?(wgs_?1984|world_geodetic_system_1984(_ensemble)?|north_american(_datum)?_1983)")


def read_vector_file(path: Path, columns: Columns) -> Features:
    """The features of the only layer of a file, or of the layer NAME of "FILE|layername=NAME" (as QGIS writes it).

    Raises:
        ValueError: naming the file, and the feature where there is one; also when pyogrio is not installed.
    """
    pyogrio = _pyogrio(path)
    file_path, _, layer = str(path).partition("|layername=")
    file = Path(file_path).name
    try:
        gdal_path = _gdal_path(Path(file_path), layer)
        layer = _layer(pyogrio, gdal_path, layer)
        info = pyogrio.read_info(gdal_path, layer=layer)
        wanted = columns.wanted(file, list(info["fields"]))
        meta, _, geometries, values = pyogrio.raw.read(gdal_path, layer=layer, columns=wanted, force_2d=True)
    except (RuntimeError, OSError, EOFError, UnicodeDecodeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from error
    crs = info["crs"]
    if crs is not None and not is_wgs84_name(crs) and not _is_wgs84_wkt(crs):
        raise crs_error(file, crs)
    attributes = {column: array.tolist() for column, array in zip(meta["fields"], values, strict=True)}
    labels = [feature_label(file, i, name) for i, name in enumerate(attributes[columns.name])]
    return Features(
        file=file,
        columns=columns,
        attributes=attributes,
        has_geometry=np.array([geometry is not None for geometry in geometries], dtype=bool),
        rings=_rings(geometries, labels),
        notes=[] if crs is not None else [f"{file}: names no reference system, taken as WGS84"],
    )


def _pyogrio(path: Path) -> ModuleType:
    try:
        import pyogrio
        import pyogrio.raw
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{path}: files other than GeoJSON need pyogrio. Install it: pip install 'geogrpo[polygons]'"
        ) from error
    return pyogrio


def _gdal_path(path: Path, layer: str) -> str:
    """What GDAL is to open: the file itself, or the only file of a known kind in a zip archive."""
    if path.suffix.lower() != ".zip":
        with path.open("rb") as stream:
            _check_kind(path, path.name, stream.read(16))
        return str(path)
    with zipfile.ZipFile(path) as archive:
        members = [name for name in archive.namelist() if Path(name).suffix.lower() in _FIRST_BYTES]
        # A layer of a shapefile is the file itself.
        members = [name for name in members if Path(name).stem == layer] or members
        if len(members) != 1:
            raise ValueError(
                f"{path.name}: expected one {', '.join(_FIRST_BYTES)} file in the archive, got "
                f'{len(members)}. Ask for one as "FILE|layername=NAME": {", ".join(Path(m).stem for m in members)}.'
            )
        with archive.open(members[0]) as member:
            _check_kind(path, members[0], member.read(16))
    return f"/vsizip/{{{path.resolve()}}}/{members[0]}"


def _check_kind(path: Path, name: str, first_bytes: bytes) -> None:
    expected = _FIRST_BYTES.get(Path(name).suffix.lower())
    if expected is None or not first_bytes.startswith(expected):
        raise ValueError(
            f"{path.name}: {name} is no {', '.join(_FIRST_BYTES)} or GeoJSON file. Convert it: ogr2ogr OUT.gpkg IN."
        )


def _layer(pyogrio: ModuleType, path: str, layer: str) -> str:
    """The layer to read. Several layers and none asked for is an error: the first would be an arbitrary one."""
    # Tables without geometry are listed with None.
    names = [str(name) for name, geometry in pyogrio.list_layers(path) if geometry is not None]
    if layer in names:
        return layer
    if not layer and len(names) == 1:
        return names[0]
    problem = f"no layer {layer!r}" if layer else f"{len(names)} layers, expected one"
    raise ValueError(f'{Path(path).name}: {problem}. Ask for one of them as "FILE|layername=NAME": {", ".join(names)}.')


def _is_wgs84_wkt(wkt: str) -> bool:
    """Whether a WKT definition without an EPSG code is geographic, in degrees from Greenwich, on WGS84 or NAD83."""
    datum = re.search(r'\b(?:DATUM|ENSEMBLE)\["([^"]*)"', wkt)
    meridian = re.search(r'\bPRIMEM\["[^"]*",\s*([-+\d.eE]+)', wkt)
    unit = re.search(r'\b(?:ANGLEUNIT|UNIT)\["([^"]*)"', wkt)
    return (
        re.match(r"\s*GEOG(?:CS|CRS|RAPHICCRS)\[", wkt) is not None
        and datum is not None
        and _DATUMS.fullmatch(datum[1].lower().replace(" ", "_")) is not None
        and (meridian is None or re.fullmatch(r"[-+]?0*\.?0*", meridian[1]) is not None)
        and (unit is None or unit[1].lower().startswith("degree"))
    )


def _rings(geometries: np.ndarray, labels: list[str]) -> Rings:
    rings: list[np.ndarray] = []
    feature: list[int] = []
    is_hole: list[bool] = []
    for i, (geometry, label) in enumerate(zip(geometries, labels, strict=True)):
        try:
            polygons = [] if geometry is None else wkb_polygons(geometry)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from error
        for polygon in polygons:
            rings += polygon
            feature += [i] * len(polygon)
            is_hole += [number > 0 for number in range(len(polygon))]
    return Rings(
        np.concatenate([np.empty((0, 2)), *rings]),
        offsets(np.array([len(ring) for ring in rings])),
        np.array(feature, dtype=np.int64),
        np.array(is_hole, dtype=bool),
    )


def wkb_polygons(wkb: bytes) -> list[list[np.ndarray]]:
    """The rings of each polygon in a two-dimensional WKB geometry.

    Returns:
        (N, 2) float64 arrays of x (longitude) and y (latitude).
    Raises:
        ValueError: for a geometry that is no area, and for bytes that are no WKB.
    Source: OGC 06-103r4 (Simple Feature Access 1.2.1), 8.2.
    """
    polygons: list[list[np.ndarray]] = []
    position, num_pending = 0, 1
    try:
        while num_pending:
            num_pending -= 1
            order = "<" if wkb[position] == 1 else ">"
            kind, count = struct.unpack_from(f"{order}II", wkb, position + 1)
            position += 9
            if kind in (_MULTI_POLYGON, _COLLECTION):
                # The parts follow one another, each with its own header.
                num_pending += count
                continue
            if kind != _POLYGON:
                name = _WKB_NAMES.get(kind, f"WKB type {kind}")
                raise ValueError(f"expected Polygon, MultiPolygon or GeometryCollection, got {name!r}.")
            polygons.append([])
            for _ in range(count):
                (num_vertices,) = struct.unpack_from(f"{order}I", wkb, position)
                ring = np.frombuffer(wkb, f"{order}f8", 2 * num_vertices, position + 4)
                polygons[-1].append(ring.reshape(-1, 2))
                position += 4 + 16 * num_vertices
    except (struct.error, IndexError) as error:
        raise ValueError(f"truncated WKB geometry: {error}") from error
    return polygons
