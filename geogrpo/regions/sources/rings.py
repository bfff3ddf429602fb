"""Checks and repairs of polygon rings, on whole arrays.

Shapes: F features, K rings, V vertices. Interiors are by the even-odd rule over all rings of a region, so neither the
direction of a ring nor whether it is a hole matters, and a ring may be cut into pieces that share an edge.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# One turn to either side: 0..360 data, and rings that run on past the antimeridian.
MAX_LON_DEG = 540.0
# Region indices keep 1e-7 degrees, and data that closes Antarctica is rounded to 6 decimals or more.
_POLE_DEG = 90.0 - 1e-6


@dataclass(frozen=True)
class Rings:
    """Rings of several features, one after the other."""

    vertices_lonlat_deg: np.ndarray
    """(V, 2) float64, longitude first, as in the file."""
    offset: np.ndarray
    """(K + 1,) int64 into the vertices."""
    feature: np.ndarray
    """(K,) int64: the feature of each ring."""
    is_hole: np.ndarray
    """(K,) bool: a ring after the first of its polygon. Only the check for overlaps asks."""

    def keep(self, mask: np.ndarray) -> "Rings":
        """The rings where the (K,) mask is True."""
        counts = np.diff(self.offset)
        vertices = self.vertices_lonlat_deg[np.repeat(mask, counts)]
        return Rings(vertices, offsets(counts[mask]), self.feature[mask], self.is_hole[mask])


def offsets(counts: np.ndarray) -> np.ndarray:
    """(K,) counts -> (K + 1,) int64 offsets."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def repair_rings(rings: Rings, label: Callable[[int], str]) -> tuple[Rings, list[str]]:
    """Rings that are closed, have at least 3 distinct vertices and lie within longitude +-180.

    Args:
        rings: as read from a file.
        label: file and feature in words, by feature number; starts every error and repair.
    Returns:
        the rings, and one line per kind of repair and feature.
    Raises:
        ValueError: naming file and feature, for coordinates out of range and for edges that jump across the globe.
    """
    _check_coordinates(rings, label)
    enough = has_three_vertices(rings)
    report = ring_report(rings.feature[~enough], "with fewer than 3 distinct vertices dropped", label)
    rings = rings if enough.all() else rings.keep(enough)
    rings, was_open = _close(rings)
    report += ring_report(rings.feature[was_open], "closed", label)
    _check_edges(rings, label)
    wrapped, is_beyond = _wrap(rings, label)
    report += ring_report(rings.feature[is_beyond], "beyond longitude +-180 cut at the antimeridian and wrapped", label)
    return wrapped, report


def ring_report(feature: np.ndarray, what: str, label: Callable[[int], str]) -> list[str]:
    """One line per feature, with the number of its rings. `feature` holds the feature of each ring to be reported."""
    numbers, counts = np.unique(feature, return_counts=True)
    return [
        f"{label(number)}: {count} ring{'s' if count > 1 else ''} {what}"
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    ]


def _check_coordinates(rings: Rings, label: Callable[[int], str]) -> None:
    lon, lat = rings.vertices_lonlat_deg.T
    # Written so that NaN, which compares false, is bad.
    bad = ~((np.abs(lat) <= 90.0) & (np.abs(lon) <= MAX_LON_DEG))
    if not bad.any():
        return
    vertex = int(np.argmax(bad))
    where = label(_feature_of_vertex(rings, vertex))
    lon_deg, lat_deg = float(lon[vertex]), float(lat[vertex])
    problem = f"{where}: vertex with longitude {lon_deg:g}, latitude {lat_deg:g}"
    if not np.isfinite([lon_deg, lat_deg]).all():
        raise ValueError(f"{problem} is not finite.")
    if abs(lat_deg) <= 90.0:
        raise ValueError(f"{problem} is beyond longitude +-{MAX_LON_DEG:g}.")
    if abs(lon_deg) <= 90.0:
        raise ValueError(f"{problem} is beyond latitude +-90: are latitude and longitude swapped?")
    raise ValueError(f"{problem} is beyond latitude +-90. Coordinates must be degrees; reproject a projected file.")


def _feature_of_vertex(rings: Rings, vertex: int) -> int:
    return int(rings.feature[np.searchsorted(rings.offset, vertex, side="right") - 1])


def has_three_vertices(rings: Rings) -> np.ndarray:
    """(K,) bool: whether a ring has at least 3 distinct vertices."""
    counts = np.diff(rings.offset)
    result = counts > 0
    # reduceat takes no empty ring.
    filled = rings if result.all() else rings.keep(result)
    if not len(filled.feature):
        return result
    vertices, start = filled.vertices_lonlat_deg, filled.offset[:-1]
    ring = np.repeat(np.arange(len(start)), np.diff(filled.offset))
    # Three are distinct exactly if some vertex differs from the first and from the first that differs from that.
    not_first = (vertices != vertices[start][ring]).any(axis=1)
    second = np.minimum.reduceat(np.where(not_first, np.arange(len(vertices)), len(vertices) - 1), start)
    is_third = not_first & (vertices != vertices[second][ring]).any(axis=1)
    result[result] = np.logical_or.reduceat(is_third, start)
    return result


def _close(rings: Rings) -> tuple[Rings, np.ndarray]:
    """The rings with first == last vertex, and (K,) whether a ring was open."""
    vertices, end = rings.vertices_lonlat_deg, rings.offset[1:]
    first = vertices[rings.offset[:-1]]
    is_open = (first != vertices[end - 1]).any(axis=1)
    if is_open.any():
        vertices = np.insert(vertices, end[is_open], first[is_open], axis=0)
        rings = Rings(vertices, offsets(np.diff(rings.offset) + is_open), rings.feature, rings.is_hole)
    return rings, is_open


def _check_edges(rings: Rings, label: Callable[[int], str]) -> None:
    """An edge longer than half the globe is a ring that crosses the antimeridian without being cut there."""
    lon, lat = rings.vertices_lonlat_deg.T
    is_jump = np.abs(np.diff(lon)) > 180.0
    # The step from one ring to the next is no edge.
    is_jump[rings.offset[1:-1] - 1] = False
    # Antarctica is closed along the pole, around the whole globe.
    is_jump &= ~((np.abs(lat[1:]) >= _POLE_DEG) & (np.abs(lat[:-1]) >= _POLE_DEG) & (lat[1:] * lat[:-1] > 0))
    if is_jump.any():
        vertex = int(np.argmax(is_jump))
        raise ValueError(
            f"{label(_feature_of_vertex(rings, vertex))}: an edge goes from longitude {lon[vertex]:g} to "
            f"{lon[vertex + 1]:g}, more than half way around the globe. Cut the polygon at the antimeridian "
            "(RFC 7946, 3.1.9), or let its longitudes run on past 180."
        )


def _wrap(rings: Rings, label: Callable[[int], str]) -> tuple[Rings, np.ndarray]:
    """The rings cut where longitude is +-180 and shifted into range, and (K,) whether a ring was beyond it."""
    if not len(rings.feature):
        return rings, np.zeros(0, bool)
    lon, start = rings.vertices_lonlat_deg[:, 0], rings.offset[:-1]
    west, east = np.minimum.reduceat(lon, start), np.maximum.reduceat(lon, start)
    is_beyond = (west < -180.0) | (east > 180.0)
    if not is_beyond.any():
        return rings, is_beyond
    # Its parts would overlap after wrapping, and even-odd would make the overlap outside.
    too_wide = is_beyond & (east - west > 360.0)
    if too_wide.any():
        ring = int(np.argmax(too_wide))
        raise ValueError(
            f"{label(int(rings.feature[ring]))}: a ring spans {east[ring] - west[ring]:g} degrees of longitude, "
            "more than the whole globe."
        )
    pieces, origin = [np.empty((0, 2))], []
    for ring in np.flatnonzero(is_beyond).tolist():
        for piece in _cut_at_antimeridian(rings.vertices_lonlat_deg[start[ring] : rings.offset[ring + 1]]):
            pieces.append(piece)
            origin.append(ring)
    counts = np.array([len(piece) for piece in pieces[1:]], dtype=np.int64)
    cut = Rings(np.concatenate(pieces), offsets(counts), rings.feature[origin], rings.is_hole[origin])
    # Of a line that a ring runs there and back, past the antimeridian, a line without inside is left.
    cut = cut.keep(has_three_vertices(cut))
    inside = rings.keep(~is_beyond)
    return _join(inside, cut), is_beyond


def _join(a: Rings, b: Rings) -> Rings:
    return Rings(
        np.concatenate([a.vertices_lonlat_deg, b.vertices_lonlat_deg]),
        np.concatenate([a.offset, b.offset[1:] + a.offset[-1]]),
        np.concatenate([a.feature, b.feature]),
        np.concatenate([a.is_hole, b.is_hole]),
    )


def _cut_at_antimeridian(ring: np.ndarray) -> list[np.ndarray]:
    """(N, 2) closed lon/lat ring within +-540 -> closed rings within +-180, whose union modulo 360 it is."""
    pieces = []
    for turn_deg in (-360.0, 0.0, 360.0):
        low, high = turn_deg - 180.0, turn_deg + 180.0
        if ring[:, 0].min() < high and ring[:, 0].max() > low:
            piece = _clip(_clip(ring, high, keep_west=True), low, keep_west=False)
            pieces.append(piece - (turn_deg, 0.0))
    return pieces


def _clip(ring: np.ndarray, lon_deg: float, *, keep_west: bool) -> np.ndarray:
    """The part of a closed ring on one side of a meridian, closed along the meridian.

    The even-odd interior is right for every ring, also where parts are joined by a line along the meridian.
    Source: I. Sutherland and G. Hodgman, "Reentrant polygon clipping", 1974.
    """
    a, b = ring[:-1], ring[1:]
    a_side, b_side = ((a[:, 0] - lon_deg), (b[:, 0] - lon_deg)) if keep_west else (lon_deg - a[:, 0], lon_deg - b[:, 0])
    crosses = a_side * b_side < 0.0
    # From west to east: neighbours that walk a shared edge in opposite directions get the same bits.
    is_eastward = (a[:, 0] <= b[:, 0])[:, None]
    p, q = np.where(is_eastward, a, b)[crosses], np.where(is_eastward, b, a)[crosses]
    lat = p[:, 1] + (lon_deg - p[:, 0]) / (q[:, 0] - p[:, 0]) * (q[:, 1] - p[:, 1])
    points = np.stack([np.empty_like(b), b], axis=1)
    points[crosses, 0, 0] = lon_deg
    # Rounding must not carry a crossing past the pole.
    points[crosses, 0, 1] = np.clip(lat, np.minimum(p[:, 1], q[:, 1]), np.maximum(p[:, 1], q[:, 1]))
    out = points[np.stack([crosses, b_side <= 0.0], axis=1)]
    return np.concatenate([out, out[:1]])
