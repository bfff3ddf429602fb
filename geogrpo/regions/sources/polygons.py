"""Regions of one level as polygons, from GeoJSON or another vector file.

Shapes: F features of the file, R regions, K rings, V vertices.
"""

import hashlib
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

import numpy as np

from geogrpo.regions.sources.checks import check_integers, check_latlon_deg, check_texts
from geogrpo.regions.sources.features import Columns, Features, shown
from geogrpo.regions.sources.geojson import SUFFIXES, read_geojson
from geogrpo.regions.sources.overlaps import lies_in_another_part
from geogrpo.regions.sources.rings import repair_rings, ring_report
from geogrpo.regions.sources.vector_file import read_vector_file
from geogrpo.regions.table import LEVELS


@dataclass(frozen=True)
class PolygonLayer:
    """Regions of one level and their rings.

    A point is in a region by the even-odd rule over all its rings, edges straight in longitude and latitude. Rings may
    be in any order and direction, and may cross themselves or each other.
    """

    level: str
    """One of LEVELS."""
    key: list[str]
    """R unique keys; finer layers name their parent by it."""
    name: list[str]
    """R names, "" where there is none."""
    code: list[str]
    """R codes (ISO, FIPS, ...), "" where there is none."""
    parent_key: list[str | None]
    """R keys of regions in a coarser layer."""
    vertices_latlon_deg: np.ndarray
    """(V, 2) float64, within latitude +-90 and longitude +-180; the first vertex of a ring is also its last."""
    ring_offset: np.ndarray
    """(K + 1,) int64 into the vertices."""
    ring_region: np.ndarray
    """(K,) int64: region of each ring. Every region has at least one."""
    source: str
    """File name and sha256."""
    attribution: str
    """What must be shown with results; "" when the licence asks for nothing."""
    repairs: list[str]
    """What was repaired, one line each, naming file and feature."""
    other_keys: dict[str, str] = field(default_factory=dict)
    """Keys that finer layers may name a region by besides its own: with a point of view, those it has by default."""
    label: list[str] = field(default_factory=list)
    """R times file and feature in words, for messages; empty where there is no file."""

    def __post_init__(self) -> None:
        """Raise ValueError naming layer, field and row where native code would read or write other memory."""
        where, num_regions = f"layer {self.source}:", len(self.key)
        if self.level not in LEVELS:
            raise ValueError(f"{where} level must be one of {', '.join(LEVELS)}, got {self.level!r}.")
        for name in ("key", "name", "code"):
            check_texts(f"{where} {name}", getattr(self, name), num_regions)
        check_texts(f"{where} parent_key", self.parent_key, num_regions, may_be_none=True)
        if self.label:
            check_texts(f"{where} label", self.label, num_regions)
        if len(set(self.key)) < num_regions:
            row = next(row for row, key in enumerate(self.key) if key in self.key[:row])
            raise ValueError(f"{where} key must be unique, got {self.key[row]!r} again in row {row}.")
        check_latlon_deg(f"{where} vertices_latlon_deg", self.vertices_latlon_deg)
        check_integers(f"{where} ring_region", self.ring_region, 0, num_regions - 1)
        _check_offsets(where, self.ring_offset, len(self.ring_region), self.vertices_latlon_deg)


def _check_offsets(where: str, offset: np.ndarray, num_rings: int, vertices: np.ndarray) -> None:
    check_integers(f"{where} ring_offset", offset, 0, len(vertices))
    if len(offset) != num_rings + 1 or offset[0] != 0 or offset[-1] != len(vertices):
        raise ValueError(
            f"{where} ring_offset must be {num_rings + 1} offsets from 0 to {len(vertices)}, as there are {num_rings}"
            f" rings in ring_region and {len(vertices)} vertices; got {len(offset)}."
        )
    too_short = np.diff(offset) < 4
    if too_short.any():
        raise ValueError(f"{where} ring_offset: ring {int(too_short.argmax())} must have 4 vertices or more.")
    is_open = (vertices[offset[:-1]] != vertices[offset[1:] - 1]).any(axis=1)
    if is_open.any():
        raise ValueError(f"{where} vertices_latlon_deg: ring {int(is_open.argmax())} must end where it begins.")


def read_polygons(
    path: str | Path,
    level: str,
    *,
    key: str,
    name: str,
    code: str | None = None,
    parent: str | None = None,
    pov: str | None = None,
    attribution: str = "",
) -> PolygonLayer:
    """The regions of a vector file: GeoJSON (also gzipped) by itself, shapefile, GeoPackage, FlatGeobuf by pyogrio.

    Features with the same key become one region. Neither they nor the parts of one feature may overlap: even-odd makes
    the overlap outside. A part within a part, or there twice, is among the repairs.

    Args:
        path: .geojson, .json, each also .gz; .shp, .gpkg, .fgb, each also zipped; "FILE|layername=NAME" if of many
            layers.
        level: one of LEVELS.
        key, name, code, parent: attribute columns. Empty and -99 mean none, which only a key must not be.
        pov: point of view on disputed borders, Natural Earth only, with key="ADM0_A3": "CN" takes the key of each
            feature from the column ADM0_A3_CN where that has one, and name, code and parent from the feature that has
            the new key by default. Finer layers may go on naming their parents by the default keys.
        attribution: what the licence of the file asks to be shown.
    Raises:
        ValueError: naming the file and, where there is one, the feature (counted from 1).
    """
    path = Path(path)
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}.")
    reader = read_geojson if path.name.lower().endswith(SUFFIXES) else read_vector_file
    features = reader(path, Columns(key=key, name=name, code=code, parent=parent, pov=pov))
    if not len(features.has_geometry):
        raise ValueError(f"{features.file}: no features.")
    rings, repairs = repair_rings(features.rings, features.label)
    keys, naming, region, other_keys = _regions(features)
    overlapping = lies_in_another_part(rings, region[rings.feature])
    kept, ring_region = _number_kept(region[rings.feature], len(keys))
    if not kept.any():
        raise ValueError(f"{features.file}: no feature has a polygon.")
    names = [features.text(name, i) for i in naming]
    return PolygonLayer(
        level=level,
        key=list(compress(keys, kept)),
        name=[text or "" for text in compress(names, kept)],
        code=[features.text(code, i) or "" for i in compress(naming, kept)],
        parent_key=[features.text(parent, i) for i in compress(naming, kept)],
        vertices_latlon_deg=np.ascontiguousarray(rings.vertices_lonlat_deg[:, ::-1]),
        ring_offset=rings.offset,
        ring_region=ring_region,
        source=_source(path),
        attribution=attribution,
        repairs=[
            *features.notes,
            *repairs,
            *ring_report(
                rings.feature[overlapping],
                "lying in another part of the region, where the even-odd rule makes the overlap outside",
                features.label,
            ),
            *(f"{features.label(i)}: no geometry, skipped" for i in np.flatnonzero(~features.has_geometry).tolist()),
            *(f"{features.label(i)}: no ring is left, region left out" for i in compress(naming, ~kept)),
            *(f"{features.label(naming[i])}: no name" for i in np.flatnonzero(kept) if names[i] is None),
        ],
        other_keys=other_keys,
        label=[features.label(i) for i in compress(naming, kept)],
    )


def _regions(features: Features) -> tuple[list[str], list[int], np.ndarray, dict[str, str]]:
    """The regions of the features that have a geometry.

    Returns:
        R keys in order of appearance; for each the feature that names it; (F,) region of each feature, 0 without one;
        default keys that are no longer keys, and what became of them.
    """
    present = np.flatnonzero(features.has_geometry).tolist()
    default = {i: _key(features, i) for i in present}
    _check_parents(features, default)
    column = _pov_column(features, present)
    region = np.zeros(len(features.has_geometry), dtype=np.int64)
    number: dict[str, int] = {}
    first: dict[str, int] = {}
    by_default: dict[str, int] = {}
    for i in present:
        key = features.text(column, i) or default[i]
        region[i] = number.setdefault(key, len(number))
        first.setdefault(key, i)
        if key == default[i]:
            by_default.setdefault(key, i)
    keys = list(number)
    other_keys = {default[i]: keys[region[i]] for i in present if default[i] not in number}
    return keys, [by_default.get(key, first[key]) for key in keys], region, other_keys


def _key(features: Features, i: int) -> str:
    column = features.columns.key
    key = features.text(column, i)
    if key is None:
        value = features.attributes[column][i]
        raise ValueError(
            f"{features.label(i)}: no key in column {column!r} (it is {shown(value)}). Choose another column."
        )
    return key


def _check_parents(features: Features, key_of: dict[int, str]) -> None:
    """One key with two parents is a key that is not unique, such as a county's name."""
    seen: dict[str, int] = {}
    for i, key in key_of.items():
        other = seen.setdefault(key, i)
        parents = [features.text(features.columns.parent, feature) for feature in (other, i)]
        if parents[0] != parents[1]:
            raise ValueError(
                f"{features.label(i)}: key {key!r} has parent {parents[1]!r} here and {parents[0]!r} in feature "
                f"{other + 1}. Choose a key column with unique values."
            )


def _pov_column(features: Features, present: list[int]) -> str | None:
    """The column of keys seen from the point of view asked for; None without one."""
    key, pov = features.columns.key, features.columns.pov
    if pov is None:
        return None
    # Natural Earth has columns of nothing but -99 (ADM0_A3_UN), which are no point of view.
    columns = [column for column in features.attributes if column.startswith(f"{key}_")]
    filled = [column for column in columns if any(features.text(column, i) for i in present)]
    available = sorted(column.removeprefix(f"{key}_") for column in filled)
    if pov not in available:
        raise ValueError(
            f"{features.file}: no point of view {pov!r} in columns {key}_*, expected one of: "
            f"{', '.join(available) or 'none, only Natural Earth countries with key ADM0_A3 have them'}."
        )
    return f"{key}_{pov}"


def _number_kept(region_of_ring: np.ndarray, num_regions: int) -> tuple[np.ndarray, np.ndarray]:
    """(R,) bool, which regions have a ring, and (K,) int64, the region of each ring counted among those."""
    kept = np.zeros(num_regions, dtype=bool)
    kept[region_of_ring] = True
    return kept, (np.cumsum(kept, dtype=np.int64) - 1)[region_of_ring]


def _source(path: Path) -> str:
    """File name and sha256 of the file that was named; a shapefile's other parts are not in it."""
    file = Path(str(path).partition("|layername=")[0])
    if not file.is_file():
        return path.name
    with file.open("rb") as stream:
        return f"{path.name} sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
