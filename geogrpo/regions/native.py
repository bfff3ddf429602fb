"""The compiled region index (csrc/) through ctypes: plain pointers in, plain arrays out."""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

NUM_LEVELS = 4
METRICS = {"sphere": 0, "degrees": 1}
_ERROR_SIZE = 256


class _IndexView(ctypes.Structure):
    """IndexView of csrc/region_cells.h, in its order."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("cells", "leaves", "records", "vertices")),
        *((name, ctypes.c_int64) for name in ("num_cells", "num_blocks", "num_record_words", "num_vertices")),
        *((name, ctypes.c_void_p) for name in ("roots", "nodes", "candidates", "places")),
        *((name, ctypes.c_int64) for name in ("num_roots", "num_nodes", "num_candidate_words", "num_places")),
        *((name, ctypes.c_void_p) for name in ("region_start", "region_places")),
        *((name, ctypes.c_int64) for name in ("num_region_starts", "num_region_places")),
        ("ancestors", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("num_regions", "num_polygon_regions", "metric")),
    )


class _LookupOptions(ctypes.Structure):
    """LookupOptions of csrc/region_cells.h."""

    _fields_ = (("coast_tolerance_km", ctypes.c_double), ("wrap", ctypes.c_int32), ("use_polygons", ctypes.c_int32))


def library_path() -> Path:
    """The shared library built on installation; another one where GEOGRPO_REGION_LIBRARY names its file."""
    forced = os.environ.get("GEOGRPO_REGION_LIBRARY")
    folder = Path(__file__).parent
    built = [Path(forced)] if forced else sorted(folder.glob("_region_index*.so"))
    if not built:
        raise ValueError(f"the region index is not built in {folder}. Install the package: pip install -e .")
    return built[0]


@cache
def library() -> ctypes.CDLL:
    """The shared library, loaded."""
    loaded = ctypes.CDLL(str(library_path()))
    loaded.geogrpo_check.restype = ctypes.c_char_p
    for name in ("geogrpo_build_grid", "geogrpo_build_place_tree", "geogrpo_built_data"):
        getattr(loaded, name).restype = ctypes.c_void_p
    loaded.geogrpo_built_size.restype = ctypes.c_int64
    if has_cuda(loaded):
        loaded.geogrpo_lookup_cuda_f64.restype = loaded.geogrpo_lookup_cuda_f32.restype = ctypes.c_char_p
    return loaded


def has_cuda(loaded: ctypes.CDLL | None = None) -> bool:
    """Whether the library was built with its CUDA part."""
    return hasattr(loaded or library(), "geogrpo_lookup_cuda_f64")


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _take(arrays: int | None, count: int, error: ctypes.Array) -> list[np.ndarray]:
    """Copy `count` uint32 arrays out of what a build returned, and free it. Without any, raise what `error` says."""
    if not arrays:
        problem = error.value.decode()
        raise MemoryError(problem) if problem == "out of memory" else ValueError(problem)
    handle, lib = ctypes.c_void_p(arrays), library()
    try:
        sizes = [lib.geogrpo_built_size(handle, ctypes.c_int64(i)) for i in range(count)]
        return [
            np.ctypeslib.as_array(
                ctypes.cast(lib.geogrpo_built_data(handle, ctypes.c_int64(i)), ctypes.POINTER(ctypes.c_uint32)), (size,)
            ).copy()
            if size
            else np.empty(0, np.uint32)
            for i, size in enumerate(sizes)
        ]
    finally:
        lib.geogrpo_built_free(handle)


def build_grid(
    vertices: np.ndarray, ring_offset: np.ndarray, ring_region: np.ndarray, num_regions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cells, leaves and records of polygons, and where borders cross themselves.

    Shapes: K rings, V vertices, C regions that cross themselves.
    Args:
        vertices: (V, 2) uint32 fixed point x, y; rings closed, at least 4 vertices each, one after the other.
        ring_offset: (K + 1,) int64.
        ring_region: (K,) int32, in [0, num_regions); a lower number has priority where regions overlap.
    Returns:
        cells, leaves, records (uint32; csrc/region_cells.h), and (C, 3) uint32: region, x, y.
    """
    error = ctypes.create_string_buffer(_ERROR_SIZE)
    vertices, ring_offset = np.ascontiguousarray(vertices, np.uint32), np.ascontiguousarray(ring_offset, np.int64)
    ring_region = np.ascontiguousarray(ring_region, np.int32)
    built = library().geogrpo_build_grid(
        _pointer(vertices),
        _pointer(ring_offset),
        _pointer(ring_region),
        ctypes.c_int64(len(ring_region)),
        ctypes.c_int32(num_regions),
        error,
        ctypes.c_int64(_ERROR_SIZE),
    )
    cells, leaves, records, crossings = _take(built, 4, error)
    return cells, leaves, records, crossings.reshape(-1, 3)


def build_place_tree(vectors: np.ndarray, metric: str, num_threads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Roots, nodes and candidate lists (uint32; csrc/region_cells.h) of (N, 3) place vectors, N > 0."""
    error = ctypes.create_string_buffer(_ERROR_SIZE)
    built = library().geogrpo_build_place_tree(
        _pointer(vectors),
        ctypes.c_int64(len(vectors)),
        ctypes.c_int64(METRICS[metric]),
        ctypes.c_int64(num_threads),
        error,
        ctypes.c_int64(_ERROR_SIZE),
    )
    roots, nodes, candidates = _take(built, 3, error)
    return roots, nodes, candidates


def place_vectors(latlon_deg: np.ndarray, metric: str) -> np.ndarray:
    """(N, 2) degrees -> (N, 3) float64: on the unit sphere, or for "degrees" (lon, 0, lat)."""
    points = np.ascontiguousarray(latlon_deg, np.float64)
    out = np.empty((len(points), 3))
    library().geogrpo_place_vectors(
        _pointer(points), ctypes.c_int64(len(points)), ctypes.c_int64(METRICS[metric]), _pointer(out)
    )
    return out


class NativeIndex:
    """The tables of an index on one device, checked once and ready to be looked up in."""

    def __init__(self, tables: dict[str, Tensor], *, num_polygon_regions: int, metric: str) -> None:
        # Kept alive: the view holds their addresses.
        self._tables = tables
        self._view = _view(tables, num_polygon_regions, METRICS[metric])

    def check(self) -> str | None:
        """What is wrong with the tables (which must be on the CPU), None for a sound index."""
        problem = library().geogrpo_check(ctypes.byref(self._view))
        return problem.decode() if problem else None

    def lookup(
        self, points: np.ndarray, *, coast_tolerance_km: float, wrap: bool, use_polygons: bool, num_threads: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, 2) contiguous float32 or float64 degrees -> (N, 4) int32 ids by level, (N,) bool near a coast."""
        ids, is_near_coast = np.empty((len(points), NUM_LEVELS), np.int32), np.empty(len(points), bool)
        lib = library()
        call = lib.geogrpo_lookup_f64 if points.dtype == np.float64 else lib.geogrpo_lookup_f32
        call(
            ctypes.byref(self._view),
            ctypes.byref(_LookupOptions(coast_tolerance_km, wrap, use_polygons)),
            _pointer(points),
            ctypes.c_int64(len(points)),
            ctypes.c_int64(num_threads),
            _pointer(ids),
            _pointer(is_near_coast),
        )
        return ids, is_near_coast

    def lookup_cuda(
        self, points: Tensor, *, coast_tolerance_km: float, wrap: bool, use_polygons: bool
    ) -> tuple[Tensor, Tensor]:
        """The same for a tensor on the tables' CUDA device, on its current stream."""
        ids = torch.empty((len(points), NUM_LEVELS), dtype=torch.int32, device=points.device)
        is_near_coast = torch.empty(len(points), dtype=torch.bool, device=points.device)
        lib = library()
        call = lib.geogrpo_lookup_cuda_f64 if points.dtype == torch.float64 else lib.geogrpo_lookup_cuda_f32
        with torch.cuda.device(points.device):
            problem = call(
                ctypes.byref(self._view),
                ctypes.byref(_LookupOptions(coast_tolerance_km, wrap, use_polygons)),
                ctypes.c_void_p(points.data_ptr()),
                ctypes.c_int64(len(points)),
                ctypes.c_void_p(ids.data_ptr()),
                ctypes.c_void_p(is_near_coast.data_ptr()),
                ctypes.c_void_p(torch.cuda.current_stream(points.device).cuda_stream),
            )
        if problem:
            raise RuntimeError(f"the region lookup failed on {points.device}: {problem.decode()}")
        return ids, is_near_coast


def _view(tables: dict[str, Tensor], num_polygon_regions: int, metric: int) -> _IndexView:
    def rows(name: str, per_row: int = 1) -> int:
        return tables[name].numel() // per_row

    names: Sequence[str] = [str(field[0]) for field in _IndexView._fields_ if field[1] is ctypes.c_void_p]
    return _IndexView(
        **{name: tables[name].data_ptr() for name in names},
        num_cells=rows("cells"),
        num_blocks=rows("leaves", 64),
        num_record_words=rows("records"),
        num_vertices=rows("vertices", 2),
        num_roots=rows("roots"),
        num_nodes=rows("nodes", 64),
        num_candidate_words=rows("candidates"),
        num_places=rows("places", 3),
        num_region_starts=rows("region_start"),
        num_region_places=rows("region_places"),
        num_regions=rows("ancestors", NUM_LEVELS),
        num_polygon_regions=num_polygon_regions,
        metric=metric,
    )
