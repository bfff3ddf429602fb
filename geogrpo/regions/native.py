"""The compiled region index (csrc/), called through ctypes, and its NumPy definition."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

_DOUBLES = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")
_INT64S = np.ctypeslib.ndpointer(np.int64, flags="C_CONTIGUOUS")


@cache
def _library() -> ctypes.CDLL:
    folder = Path(__file__).parent
    built = sorted(folder.glob("_region_index*.so"))
    if not built:
        raise ValueError(f"the region index is not built in {folder}. Install the package: pip install -e .")
    library = ctypes.CDLL(str(built[0]))
    library.geogrpo_nearest_place.argtypes = [
        _DOUBLES,
        _INT64S,
        ctypes.c_int64,
        _DOUBLES,
        ctypes.c_int64,
        ctypes.c_int64,
        _INT64S,
    ]
    library.geogrpo_nearest_place.restype = ctypes.c_int
    return library


def nearest(places: np.ndarray, ids: np.ndarray, points: np.ndarray, num_threads: int) -> np.ndarray:
    """Id of the place nearest to each point; the lowest id on an exact tie.

    Args:
        places: (N, 3) float64 unit vectors, sorted by their last coordinate, N > 0.
        ids: (N,) int64 ids of the places.
        points: (M, 3) float64 unit vectors.
        num_threads: at least 1.
    Returns:
        (M,) int64 ids.
    """
    points = np.ascontiguousarray(points)
    out = np.empty(len(points), dtype=np.int64)
    status = _library().geogrpo_nearest_place(places, ids, len(places), points, len(points), num_threads, out)
    if status != 0:
        raise ValueError("a nearest-place lookup needs at least one place.")
    return out


def nearest_reference(places: np.ndarray, ids: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The definition of `nearest`: every place against every point. Same arguments and result."""
    out = np.empty(len(points), dtype=np.int64)
    for row, point in enumerate(points):
        chord2 = ((places - point) ** 2).sum(axis=1)
        out[row] = ids[chord2 == chord2.min()].min()
    return out
