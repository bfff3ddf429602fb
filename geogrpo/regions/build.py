"""Polygon layers and places -> the tables of a region index.

Every id has one chain of ancestors, and a lookup answers with one such chain, so the levels of an answer never
contradict each other:
* polygons: the first region that holds the point, the finest level first, then the smallest area;
* its ancestors come from the sources' attributes, never from geometry;
* the city of a point is the nearest place among those that belong to the point's own polygon region or one within it.

Shapes: R regions, P places, V vertices, K rings.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geogrpo.regions.sources.geonames import Places
from geogrpo.regions.sources.polygons import PolygonLayer
from geogrpo.regions.table import LEVELS, RegionTable, ancestors_by_level

UNITS_PER_DEG = 1e7
CITY = LEVELS.index("city")


@dataclass(frozen=True)
class Polygons:
    """All layers as one list of regions, in order of priority."""

    table: RegionTable
    label: list[str]
    """Where each region is from, to start a message with."""
    vertices: np.ndarray
    """(V, 2) uint32 fixed point x, y."""
    ring_offset: np.ndarray
    """(K + 1,) int64."""
    ring_region: np.ndarray
    """(K,) int32."""

    def keep(self, is_kept: np.ndarray) -> "Polygons":
        """The regions where the (R,) mask is True, in the same order; a parent that is left out becomes none."""
        number = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
        rows, lengths, has_ring = np.flatnonzero(is_kept), np.diff(self.ring_offset), is_kept[self.ring_region]
        parent = self.table.parent[rows]
        return Polygons(
            table=RegionTable(
                level=self.table.level[rows],
                parent=np.where(parent >= 0, number[parent], -1).astype(np.int32),
                name=[self.table.name[i] for i in rows],
                code=[self.table.code[i] for i in rows],
            ),
            label=[self.label[i] for i in rows],
            vertices=self.vertices[np.repeat(has_ring, lengths)],
            ring_offset=np.concatenate([[0], np.cumsum(lengths[has_ring])]).astype(np.int64),
            ring_region=number[self.ring_region[has_ring]].astype(np.int32),
        )


def fixed_point(latlon_deg: np.ndarray) -> np.ndarray:
    """(N, 2) degrees, lon in [-180, 180] -> (N, 2) uint32 (x, y) as in csrc/region_cells.h."""
    shifted = (np.asarray(latlon_deg, np.float64) + np.array((90.0, 180.0))) * UNITS_PER_DEG
    return np.rint(shifted[:, ::-1]).astype(np.uint32)


def merge_layers(layers: Sequence[PolygonLayer]) -> Polygons:
    """One list of regions out of layers of different levels.

    Raises:
        ValueError: on two layers of one level, or a parent that no coarser layer has.
    """
    levels = [layer.level for layer in layers]
    for layer in layers:
        if levels.count(layer.level) > 1:
            raise ValueError(f"there are two layers of level {layer.level!r}: merge them into one file.")
    coarse_first = sorted(layers, key=lambda layer: LEVELS.index(layer.level))
    start = np.cumsum([0] + [len(layer.key) for layer in coarse_first])
    parents = np.concatenate([_parents(coarse_first, i, start) for i in range(len(coarse_first))])
    level = np.repeat([LEVELS.index(layer.level) for layer in coarse_first], [len(x.key) for x in coarse_first])
    vertices = [fixed_point(layer.vertices_latlon_deg) for layer in coarse_first]
    offsets = [layer.ring_offset for layer in coarse_first]
    ring_region = np.concatenate([x.ring_region + s for x, s in zip(coarse_first, start, strict=False)])
    all_vertices, ring_offset, ring_region = _clean_rings(np.concatenate(vertices), _join(offsets), ring_region)
    area = _areas(all_vertices, ring_offset, ring_region, len(level))
    # The finest level first; then the smallest, so that an enclave that lacks its hole still shows.
    order = np.lexsort((np.arange(len(level)), area, -level))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    names = [name for layer in coarse_first for name in layer.name]
    codes = [code for layer in coarse_first for code in layer.code]
    table = RegionTable(
        level=level[order].astype(np.uint8),
        parent=np.where(parents >= 0, rank[parents], -1)[order].astype(np.int32),
        name=[names[i] for i in order],
        code=[codes[i] for i in order],
    )
    labels = [label for layer in coarse_first for label in _labels(layer)]
    return Polygons(table, [labels[i] for i in order], all_vertices, ring_offset, rank[ring_region].astype(np.int32))


def _labels(layer: PolygonLayer) -> list[str]:
    return layer.label or [f"{layer.source}: {layer.level} {name!r}" for name in layer.name]


def _parents(layers: Sequence[PolygonLayer], number: int, start: np.ndarray) -> np.ndarray:
    """(R,) number of each region's parent in the concatenation of all layers, -1 for none."""
    layer = layers[number]
    known: dict[str, int] = {}
    # The nearest coarser layer's key wins.
    for coarser in range(number):
        own = {key: int(start[coarser]) + i for i, key in enumerate(layers[coarser].key)}
        known |= own | {other: own[key] for other, key in layers[coarser].other_keys.items() if key in own}
    parents = np.full(len(layer.key), -1, np.int64)
    for i, key in enumerate(layer.parent_key):
        if key is None:
            continue
        if key not in known:
            coarser_names = ", ".join(x.source for x in layers[:number]) or "no coarser layer was given"
            raise ValueError(
                f"{layer.source}: {layer.level} {layer.name[i]!r} has the parent {key!r}, which is not a key of"
                f" {coarser_names}."
            )
        parents[i] = known[key]
    return parents


def _join(offsets: Sequence[np.ndarray]) -> np.ndarray:
    """Offsets of several concatenated lists -> offsets of all."""
    lengths = np.concatenate([np.diff(offset) for offset in offsets])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _clean_rings(
    vertices: np.ndarray, ring_offset: np.ndarray, ring_region: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Without vertices that equal the one before them, and without rings that this leaves with fewer than 3."""
    lengths = np.diff(ring_offset)
    ring = np.repeat(np.arange(len(lengths)), lengths)
    repeats = np.zeros(len(vertices), bool)
    repeats[1:] = (vertices[1:] == vertices[:-1]).all(axis=1) & (ring[1:] == ring[:-1])
    kept_lengths = np.bincount(ring[~repeats], minlength=len(lengths))
    # 3 vertices and the first again
    is_kept = kept_lengths >= 4
    keep = ~repeats & is_kept[ring]
    offset = np.concatenate([[0], np.cumsum(kept_lengths[is_kept])]).astype(np.int64)
    return vertices[keep], offset, ring_region[is_kept]


def _areas(vertices: np.ndarray, ring_offset: np.ndarray, ring_region: np.ndarray, num_regions: int) -> np.ndarray:
    """(R,) rough area of each region in squared fixed-point units: only their order matters."""
    x, y = vertices.astype(np.float64).T
    doubled = np.zeros(len(vertices))
    doubled[:-1] = x[:-1] * y[1:] - x[1:] * y[:-1]
    # The step from the end of a ring to the start of the next one is no edge.
    doubled[ring_offset[1:] - 1] = 0
    per_ring = np.abs(np.add.reduceat(doubled, ring_offset[:-1])) if len(ring_region) else np.zeros(0)
    # Holes count as area too: an enclave is smaller than what surrounds it either way.
    return np.bincount(ring_region, weights=per_ring, minlength=num_regions)


@dataclass(frozen=True)
class PlacedPlaces:
    """Places in the order of their ids, and the regions that their own attributes name."""

    table: RegionTable
    """Attribute regions, then the places; ids start after the polygons'."""
    latlon_deg: np.ndarray
    """(P, 2) float64."""
    order: np.ndarray
    """(P,) which of the given places each one is."""


def place_regions(
    places: Places, polygons: RegionTable, polygon_of_place: np.ndarray, has_own_names: np.ndarray
) -> PlacedPlaces:
    """What places bring to the region table: states and counties by name below each polygon region, places last.

    Args:
        places: any order.
        polygons: the table of the polygon regions; empty without polygons.
        polygon_of_place: (P,) the polygon region that each place belongs to, -1 for none.
        has_own_names: (P,) bool, whether a place's state and county are used.
    """
    order = _curve_order(places.latlon_deg)
    first = len(polygons)
    names: list[str] = []
    codes: list[str] = []
    levels: list[int] = []
    parents: list[int] = []
    known: dict[tuple[int, int, str], int] = {}

    def region(level: int, parent: int, key: str, name: str, code: str) -> int:
        number = known.setdefault((level, parent, key), first + len(names))
        if number == first + len(names):
            names.append(name)
            codes.append(code)
            levels.append(level)
            parents.append(parent)
        return number

    place_parent = np.empty(len(order), np.int64)
    for row, i in enumerate(order.tolist()):
        parent = int(polygon_of_place[i])
        if len(polygons) == 0:
            parent = region(0, -1, places.country_code[i], places.country[i], places.country_code[i])
        elif parent < 0:
            # In no polygon: without ancestors rather than with ones that contradict the polygons
            place_parent[row] = -1
            continue
        for level, name in ((1, places.state[i]), (2, places.county[i])):
            parent_level = levels[parent - first] if parent >= first else int(polygons.level[parent])
            if name and has_own_names[i] and level > parent_level:
                parent = region(level, parent, name, name, "")
        place_parent[row] = parent
    table = RegionTable(
        level=np.array(levels + [CITY] * len(order), np.uint8),
        parent=np.concatenate([np.array(parents, np.int64), place_parent]).astype(np.int32),
        name=names + [places.city[i] for i in order],
        code=codes + [""] * len(order),
    )
    return PlacedPlaces(table, np.ascontiguousarray(places.latlon_deg[order]), order)


def _curve_order(latlon_deg: np.ndarray) -> np.ndarray:
    """Along a Z-order curve: places near each other are near each other in memory. Equal ones keep their order."""
    bits = fixed_point(latlon_deg).astype(np.uint64)
    for shift, mask in ((16, 0x0000FFFF0000FFFF), (8, 0x00FF00FF00FF00FF), (4, 0x0F0F0F0F0F0F0F0F),
                        (2, 0x3333333333333333), (1, 0x5555555555555555)):  # fmt: skip
        bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
    return np.argsort(bits[:, 0] | bits[:, 1] << np.uint64(1), kind="stable")


def places_by_region(
    polygon_of_place: np.ndarray, vectors: np.ndarray, polygons: RegionTable
) -> tuple[np.ndarray, np.ndarray]:
    """(R + 1,) starts and the places of each polygon region and all below it, sorted by their vectors' last coordinate.

    A place stands in one list per level: its region's and those of the region's ancestors.
    """
    inside = np.flatnonzero(polygon_of_place >= 0)
    chains = ancestors_by_level(polygons.level, polygons.parent)[polygon_of_place[inside]]
    row, level = np.nonzero(chains >= 0)
    region, place = chains[row, level], inside[row]
    order = np.lexsort((place, vectors[place, 2], region))
    start = np.concatenate([[0], np.cumsum(np.bincount(region, minlength=len(polygons)))])
    return start.astype(np.int32), place[order].astype(np.int32)


def join_tables(first: RegionTable, second: RegionTable) -> RegionTable:
    """The rows of both; ids in `second` already count those of `first`."""
    return RegionTable(
        level=np.concatenate([first.level, second.level]),
        parent=np.concatenate([first.parent, second.parent]),
        name=first.name + second.name,
        code=first.code + second.code,
    )


def empty_table() -> RegionTable:
    """No regions."""
    return RegionTable(np.empty(0, np.uint8), np.empty(0, np.int32), [], [])
