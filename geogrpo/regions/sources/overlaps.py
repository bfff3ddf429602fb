"""Parts of one region that lie in each other: by the even-odd rule, their overlap is outside.

Shapes: K rings, E edges.
"""

import numpy as np

from geogrpo.regions.sources.rings import Rings

# Edges that two rings share may be cut at different vertices, and then their crossings differ by rounding.
_SAME_PLACE_DEG = 1e-9
# Between the south end of a ring and its north end. Golden section: a vertex is seldom exactly there.
_PROBE_HEIGHT = 0.3819660112501051
_FEW_PROBES = 16


def lies_in_another_part(rings: Rings, region: np.ndarray) -> np.ndarray:
    """Which outer rings begin inside their own region: rings that are there twice, and parts within a part.

    Each ring is looked at in one place, its westernmost crossing of one parallel. Borders that cross each other are
    found when the index is built.

    Args:
        rings: closed, each with an inside.
        region: (K,) region of each ring.
    Returns:
        (K,) bool.
    """
    result = np.zeros(len(region), dtype=bool)
    if not len(region):
        return result
    lat = rings.vertices_lonlat_deg[:, 1]
    south, north = (reduce.reduceat(lat, rings.offset[:-1]) for reduce in (np.minimum, np.maximum))
    probe_lat = south + _PROBE_HEIGHT * (north - south)
    is_probed = ~rings.is_hole & (south < probe_lat) & (probe_lat < north)
    order = np.argsort(region, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(region[order])) + 1):
        probes = members[is_probed[members]]
        if len(probes) > 1:
            edges = _Edges.of(rings, members)
            result[probes] = edges.begins_inside(probes, probe_lat[probes])
    return result


class _Edges:
    """Edges of some rings, each from its southern end to its northern one."""

    def __init__(self, ring: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        self.ring, self.low, self.high = ring, low, high

    @classmethod
    def of(cls, rings: Rings, members: np.ndarray) -> "_Edges":
        """Level edges are left out: no parallel crosses them."""
        counts = np.diff(rings.offset)[members]
        ring = np.repeat(members, counts)
        # Each member's first vertex, and how far a vertex is from its ring's first
        step = np.arange(len(ring)) - np.repeat(np.cumsum(counts) - counts, counts)
        vertices = rings.vertices_lonlat_deg[rings.offset[:-1][ring] + step]
        a, b = vertices[:-1], vertices[1:]
        is_edge = (ring[:-1] == ring[1:]) & (a[:, 1] != b[:, 1])
        is_northward = (a[:, 1] < b[:, 1])[:, None]
        return cls(ring[:-1][is_edge], np.where(is_northward, a, b)[is_edge], np.where(is_northward, b, a)[is_edge])

    def begins_inside(self, probes: np.ndarray, lat_deg: np.ndarray) -> np.ndarray:
        """Whether an odd number of crossings of other rings lies west of, or at, each probed ring's westernmost one."""
        if len(probes) <= _FEW_PROBES:
            return np.array(
                [self._begins_inside(*probe) for probe in zip(probes.tolist(), lat_deg.tolist(), strict=True)]
            )
        result, order = np.empty(len(probes), dtype=bool), np.argsort(lat_deg)
        # A half is without the edges beyond its latitudes: all probes against all edges would be quadratic.
        for half in (order[: len(order) // 2], order[len(order) // 2 :]):
            south, north = lat_deg[half[0]], lat_deg[half[-1]]
            near = (self.low[:, 1] <= north) & (self.high[:, 1] > south)
            part = _Edges(self.ring[near], self.low[near], self.high[near])
            result[half] = part.begins_inside(probes[half], lat_deg[half])
        return result

    def _begins_inside(self, probe: int, lat_deg: float) -> bool:
        crossing = (self.low[:, 1] <= lat_deg) & (lat_deg < self.high[:, 1])
        low, high, is_own = self.low[crossing], self.high[crossing], self.ring[crossing] == probe
        lon = low[:, 0] + (lat_deg - low[:, 1]) / (high[:, 1] - low[:, 1]) * (high[:, 0] - low[:, 0])
        is_west = ~is_own & (lon <= lon[is_own].min() + _SAME_PLACE_DEG)
        return bool(is_west.sum() % 2)
