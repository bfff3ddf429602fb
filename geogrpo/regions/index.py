"""Which country, state, county and city a point is in: exact, offline, on CPU and CUDA.

Polygons answer by the fixed-point test of csrc/region_cells.h, edges straight in longitude and latitude (as GeoJSON and
shapefiles mean them). Places answer by true great-circle distance. With both, a point's city is the nearest place in
the point's own polygon region. One index serves labels, rewards and evaluation.

Shapes: N points, P places; (..., 2) points of any leading dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from geogrpo_kernels import haversine_km
from torch import Tensor

from geogrpo.regions import build, native, ops
from geogrpo.regions.place_polygons import PlacePolygons, place_polygons
from geogrpo.regions.points import check_points, contiguous_points, float_tensor
from geogrpo.regions.sources.geonames import Places, load_geonames
from geogrpo.regions.sources.polygons import PolygonLayer
from geogrpo.regions.storage import EMPTY, IndexInfo, content_hash, read_tables, write_tables
from geogrpo.regions.table import LEVELS, RegionTable, ancestors_by_level, check_texts, pack_texts, unpack_text

CITY = LEVELS.index("city")
CPU = torch.device("cpu")
COAST_TOLERANCE_KM = 5.0
"""Natural Earth's coast misses 1.7 % of GeoNames' places; nine in ten of those lie within 2.6 km."""

ArrayT = TypeVar("ArrayT", np.ndarray, Tensor)


@dataclass(frozen=True)
class RegionIds(Generic[ArrayT]):
    """Where points are. Arrays are NumPy's for NumPy points, tensors on the points' device for tensors."""

    ids: ArrayT
    """(..., 4) int32: country, state, county, city; -1 where there is none."""
    is_near_coast: ArrayT
    """(...) bool: outside every polygon, given the region whose border is nearest."""

    @property
    def country(self) -> ArrayT:
        """(...) int32, as are the next three."""
        return self.ids[..., 0]

    @property
    def state(self) -> ArrayT:
        return self.ids[..., 1]

    @property
    def county(self) -> ArrayT:
        return self.ids[..., 2]

    @property
    def city(self) -> ArrayT:
        return self.ids[..., CITY]


class RegionIndex:
    """Regions of up to four levels, and the way from a point to them. Immutable: any number of threads may use it."""

    def __init__(self, tables: dict[str, Tensor], info: IndexInfo) -> None:
        """From checked tables; use `build` or `load`."""
        self.info = info
        self._tables = tables
        numpy_tables = {name: table.numpy() for name, table in tables.items()}
        ancestors = ancestors_by_level(numpy_tables["level"], numpy_tables["parent"])
        vectors = native.place_vectors(numpy_tables["place_latlon_deg"], info.metric)
        self._ancestors, self._vectors = torch.from_numpy(ancestors), torch.from_numpy(vectors)
        self._first_place = len(ancestors) - len(vectors)
        self._native: dict[torch.device, native.NativeIndex] = {}
        self._handle = ops.make_handle(self)
        self._check(numpy_tables)

    # ---- making and keeping --------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        polygons: Sequence[PolygonLayer] = (),
        places: Places | None = None,
        *,
        metric: str = "sphere",
        coast_tolerance_km: float = COAST_TOLERANCE_KM,
    ) -> "RegionIndex":
        """An index of polygons, places, or both.

        Args:
            polygons: at most one layer per level.
            places: cities; their country, state and county names serve where no polygon layer does.
            metric: how the nearest place is found: "sphere", or "degrees": raw degrees as a plane without wrap, which
                is what reverse_geocoder does and OSV-5M's labels and metric are made with. Wrong, for comparison only.
            coast_tolerance_km: a point outside every polygon belongs to the one whose border is nearest, up to here.
        Raises:
            ValueError: naming the layer and region at fault, or without anything to build from.
        """
        if not polygons and not (places is not None and len(places)):
            raise ValueError("a region index needs a polygon layer or at least one place.")
        if metric not in native.METRICS:
            raise ValueError(f"metric must be one of {', '.join(native.METRICS)}, got {metric!r}.")
        if not 0 <= coast_tolerance_km <= 500:
            raise ValueError(f"coast_tolerance_km must be from 0 to 500, got {coast_tolerance_km}.")
        tables = {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in EMPTY.items()}
        info = IndexInfo(
            metric=metric,
            coast_tolerance_km=coast_tolerance_km,
            num_polygon_regions=0,
            sources=[layer.source for layer in polygons] + ([places.source] if places else []),
            attributions=_unique([layer.attribution for layer in polygons] + ([places.attribution] if places else [])),
            repairs=[repair for layer in polygons for repair in layer.repairs],
        )
        table, merged = build.empty_table(), None
        if polygons:
            merged = build.merge_layers(polygons)
            table = merged.table
            grid, crossings = _build_grid(merged)
            tables |= grid
            info = info.with_polygons(len(table), crossings)
        if places:
            placed, repairs = _build_places(places, merged, tables, info)
            table = build.join_tables(table, placed)
            info = info.with_repairs(repairs)
        for name, texts in (("name", table.name), ("code", table.code)):
            offset, utf8 = pack_texts(texts)
            tables |= {f"{name}_offset": torch.from_numpy(offset), f"{name}_utf8": torch.from_numpy(utf8.copy())}
        tables |= {"level": torch.from_numpy(table.level), "parent": torch.from_numpy(table.parent)}
        return cls(tables, info)

    @classmethod
    def load(cls, path: str | Path) -> "RegionIndex":
        """An index that `save` wrote, memory-mapped. Every offset in it is checked, so no file can read other memory.

        The file must stay as it is while the index lives: if another program cuts it short or writes into it, this
        process ends with a bus error or gets other answers. `save` puts a new file in its place, which does no harm.

        Raises:
            ValueError: naming the file, when it is truncated, altered, or no region index.
        """
        tables, info = read_tables(Path(path), EMPTY)
        try:
            return cls(tables, info)
        except ValueError as error:
            raise ValueError(f"{path} is not a sound region index: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with sources, licences, options and a SHA-256 of the content in its metadata."""
        write_tables(Path(path), self._tables, self.info)

    def _check(self, tables: dict[str, np.ndarray]) -> None:
        num_regions = len(tables["level"])
        if len(tables["parent"]) != num_regions or self._first_place < self.info.num_polygon_regions:
            raise ValueError("the tables of regions do not fit each other.")
        points = tables["place_latlon_deg"]
        if not (np.isfinite(points).all() and (np.abs(points) <= (90, 180)).all()):
            raise ValueError("a place lies outside the world.")
        for name in ("name", "code"):
            check_texts(tables[f"{name}_offset"], tables[f"{name}_utf8"], num_regions)
        problem = self._on(CPU).check()
        if problem:
            raise ValueError(f"{problem}.")

    # ---- looking up ----------------------------------------------------------------------------------------------

    def lookup(self, latlon_deg: ArrayT, *, wrap: bool = True) -> RegionIds[ArrayT]:
        """The regions of any number of points.

        Args:
            latlon_deg: (..., 2) degrees, tensor on any device, NumPy array, or a list of pairs; float32 and float64 as
                they are, other numbers as float64. NaN, infinities and latitudes beyond the poles are nowhere.
            wrap: whether longitudes beyond 180 are folded; nowhere otherwise.
        Returns:
            ids (..., 4) int32 and is_near_coast (...) bool, of the kind and on the device of the points.
        """
        return self._lookup(latlon_deg, wrap, use_polygons=True)

    def nearest(self, latlon_deg: ArrayT) -> ArrayT:
        """Ids of the nearest places, whatever polygon they lie in; a tie goes to the lower id.

        Args:
            latlon_deg: as for `lookup`; longitudes are folded.
        Returns:
            (...) int32, -1 where a point is nowhere.
        """
        if self._first_place == len(self):
            raise ValueError("this region index has no places.")
        return self._lookup(latlon_deg, True, use_polygons=False).city

    def nearest_with_distance(self, latlon_deg: ArrayT) -> tuple[ArrayT, ArrayT]:
        """As `nearest`, and how far each place is.

        Returns:
            (...) int32, and (...) float64 great-circle km, NaN where a point is nowhere. With the metric "degrees" too,
            whose nearest place is not always the nearest.
        """
        points = check_points(latlon_deg)
        ids = self.nearest(points)
        places = torch.from_numpy(self.place_latlon_deg(ids))
        if isinstance(points, Tensor):
            return ids, haversine_km(float_tensor(points).double(), places.to(points.device))
        return ids, haversine_km(torch.from_numpy(points.astype(np.float64)), places).numpy()

    def _lookup(self, latlon_deg: ArrayT, wrap: bool, use_polygons: bool) -> RegionIds[ArrayT]:
        points = check_points(latlon_deg)
        flat = points if points.ndim == 2 else points.reshape(-1, 2)
        if isinstance(points, Tensor):
            ids, is_near_coast = ops.region_lookup(flat, self._handle, wrap, use_polygons)
        else:
            ids, is_near_coast = self._lookup_numpy(flat, wrap, use_polygons)
        if points.ndim != 2:
            ids, is_near_coast = (x.reshape(points.shape[:-1] + x.shape[1:]) for x in (ids, is_near_coast))
        return RegionIds(ids, is_near_coast)

    def _lookup_numpy(self, points: np.ndarray, wrap: bool, use_polygons: bool) -> tuple[np.ndarray, np.ndarray]:
        return self._on(CPU).lookup(
            contiguous_points(points),
            coast_tolerance_km=self.info.coast_tolerance_km,
            wrap=wrap,
            use_polygons=use_polygons,
            num_threads=ops.num_threads(),
        )

    def lookup_tensor(self, latlon_deg: Tensor, wrap: bool, use_polygons: bool) -> tuple[Tensor, Tensor]:
        """What the operator geogrpo::region_lookup calls; use `lookup`."""
        points = float_tensor(latlon_deg)
        if points.device.type != "cuda":
            ids, is_near_coast = self._lookup_numpy(points.cpu().numpy(), wrap, use_polygons)
            return torch.from_numpy(ids).to(points.device), torch.from_numpy(is_near_coast).to(points.device)
        if not native.has_cuda():
            raise ValueError("the region index was built without CUDA: install geogrpo where nvcc is, or use the CPU.")
        return self._on(points.device).lookup_cuda(
            points, coast_tolerance_km=self.info.coast_tolerance_km, wrap=wrap, use_polygons=use_polygons
        )

    def _on(self, device: torch.device) -> native.NativeIndex:
        """The tables on a device, copied there at the first use."""
        if device not in self._native:
            tables = self._tables | {"ancestors": self._ancestors, "places": self._vectors}
            self._native[device] = native.NativeIndex(
                {name: table.to(device) for name, table in tables.items()},
                num_polygon_regions=self.info.num_polygon_regions,
                metric=self.info.metric,
            )
        return self._native[device]

    def __reduce__(self) -> tuple[Any, ...]:
        """For processes that are spawned, and for copies. The tables go as arrays: torch would move a tensor's memory
        to where others can see it, and this index holds its address.
        """
        return _unpickled, ({name: table.numpy() for name, table in self._tables.items()}, self.info)

    # ---- what ids mean -------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of regions of all levels."""
        return len(self._ancestors)

    def names(self, ids: Any) -> np.ndarray:
        """Names of regions: int ids of any shape -> object array of that shape, None for -1."""
        return self._texts("name", ids)

    def codes(self, ids: Any) -> np.ndarray:
        """Codes (ISO 3166-1 alpha-2 of countries, for example) of regions, None for -1 and where there is none."""
        texts = self._texts("code", ids)
        texts[texts == ""] = None
        return texts

    def parents(self, ids: Any) -> Any:
        """Ids of the next coarser regions, -1 where there is none. Int ids of any shape -> int32 of that shape; for a
        tensor a tensor on its device.
        """
        checked = self._checked_ids(ids)
        parents = np.where(checked < 0, -1, self._tables["parent"].numpy()[np.maximum(checked, 0)]).astype(np.int32)
        return torch.from_numpy(parents).to(ids.device) if isinstance(ids, Tensor) else parents

    def levels(self, ids: Any) -> np.ndarray:
        """Levels of regions: 0 country, 1 state, 2 county, 3 city; -1 for -1."""
        checked = self._checked_ids(ids)
        return np.where(checked < 0, -1, self._tables["level"].numpy()[np.maximum(checked, 0)].astype(np.int64))

    def place_latlon_deg(self, ids: Any) -> np.ndarray:
        """Where places are: int ids (of places, or -1) of any shape -> (..., 2) float64 degrees, NaN for -1."""
        checked = self._checked_ids(ids)
        if ((checked >= 0) & (checked < self._first_place)).any():
            raise ValueError("only places have coordinates; these ids hold other regions.")
        points = np.full((*checked.shape, 2), np.nan)
        is_place = checked >= 0
        points[is_place] = self._tables["place_latlon_deg"].numpy()[checked[is_place] - self._first_place]
        return points

    def count(self, level: str) -> int:
        """Number of regions of a level."""
        return int((self._tables["level"] == LEVELS.index(level)).sum())

    @cached_property
    def sha256(self) -> str:
        """Of the content, as it stands in a saved file's metadata."""
        return content_hash(self._tables, self.info.to_json())

    @cached_property
    def num_bytes(self) -> int:
        """Size of the tables in memory."""
        return sum(table.nbytes for table in (*self._tables.values(), self._ancestors, self._vectors))

    def _checked_ids(self, ids: Any) -> np.ndarray:
        array = ids.detach().cpu().numpy() if isinstance(ids, Tensor) else np.asarray(ids)
        if array.size and not (np.issubdtype(array.dtype, np.integer) and -1 <= array.min() <= array.max() < len(self)):
            raise ValueError(f"ids must be integers from -1 to {len(self) - 1}.")
        return array.astype(np.int64)

    def _texts(self, column: str, ids: Any) -> np.ndarray:
        checked = self._checked_ids(ids)
        unique, inverse = np.unique(checked.reshape(-1), return_inverse=True)
        offset, utf8 = self._tables[f"{column}_offset"].numpy(), self._tables[f"{column}_utf8"].numpy()
        texts = np.array([None if i < 0 else unpack_text(offset, utf8, i) for i in unique.tolist()], dtype=object)
        return texts[inverse].reshape(checked.shape)


def _unpickled(tables: dict[str, np.ndarray], info: IndexInfo) -> RegionIndex:
    return RegionIndex({name: torch.from_numpy(table) for name, table in tables.items()}, info)


def _build_grid(polygons: build.Polygons) -> tuple[dict[str, Tensor], list[str]]:
    """The tables of the grid, and a line about each border that crosses itself."""
    cells, leaves, records, crossings = native.build_grid(
        polygons.vertices, polygons.ring_offset, polygons.ring_region, len(polygons.table)
    )
    arrays = {"cells": cells, "leaves": leaves.reshape(-1, 64), "records": records, "vertices": polygons.vertices}
    lines = [
        f"{polygons.label[region]}: the border crosses itself at latitude {y / build.UNITS_PER_DEG - 90:.6f},"
        f" longitude {x / build.UNITS_PER_DEG - 180:.6f}, filled by the even-odd rule"
        for region, x, y in crossings.tolist()
    ]
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, lines


def _build_places(
    places: Places, polygons: build.Polygons | None, tables: dict[str, Tensor], info: IndexInfo
) -> tuple[RegionTable, list[str]]:
    """Adds the places' tables and returns their part of the region table, and what had to be decided about them."""

    def find_regions(some: build.Polygons, latlon_deg: np.ndarray) -> np.ndarray:
        # The polygons alone say where each place is, with the same tolerance as any point.
        grid = {} if some is polygons else _build_grid(some)[0]
        some_info = replace(info, num_polygon_regions=len(some.table))
        levels = RegionIndex(tables | grid | _texts_of(some.table), some_info).lookup(latlon_deg).ids
        has_level = levels >= 0
        finest = len(LEVELS) - 1 - has_level[:, ::-1].argmax(axis=1)
        return np.where(has_level.any(axis=1), levels[np.arange(len(levels)), finest], -1)

    if polygons is None:
        table = build.empty_table()
        chosen = PlacePolygons(np.full(len(places), -1, np.int32), np.ones(len(places), bool), [])
    else:
        table = polygons.table
        chosen = place_polygons(places, polygons, find_regions)
    placed = build.place_regions(places, table, chosen.region, chosen.has_own_names)
    vectors = native.place_vectors(placed.latlon_deg, info.metric)
    roots, nodes, candidates = native.build_place_tree(vectors, info.metric, ops.num_threads())
    arrays = {"roots": roots, "nodes": nodes.reshape(-1, 64), "candidates": candidates}
    arrays["place_latlon_deg"] = placed.latlon_deg
    if polygons is not None:
        arrays["region_start"], arrays["region_places"] = build.places_by_region(
            chosen.region[placed.order], vectors, table
        )
    tables |= {name: torch.from_numpy(array) for name, array in arrays.items()}
    return placed.table, chosen.repairs


def _texts_of(table: RegionTable) -> dict[str, Tensor]:
    """The tables of regions, with empty names: enough to look up."""
    empty = torch.zeros(len(table) + 1, dtype=torch.int64)
    return {
        "level": torch.from_numpy(table.level),
        "parent": torch.from_numpy(table.parent),
        "name_offset": empty,
        "code_offset": empty,
    }


def _unique(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(line for line in lines if line))


@cache
def default_index() -> RegionIndex:
    """The index over every GeoNames place, built once per process."""
    return RegionIndex.build(places=load_geonames())


__all__ = ["LEVELS", "RegionIds", "RegionIndex", "default_index"]
