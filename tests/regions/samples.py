"""Places, rings, layers and points for the tests of the region index.

Shapes: N points, C corners of a ring.
"""

import math

import numpy as np

from geogrpo.regions.sources.geonames import Places
from geogrpo.regions.sources.polygons import PolygonLayer

NOWHERE = [(math.nan, 0), (0, math.nan), (91, 0), (-90.001, 0), (math.inf, 0), (0, math.inf), (0, -math.inf)]
"""(lat, lon) in degrees that are no place on Earth."""


def places_at(*latlon_deg: tuple[float, float], country: str | None = None) -> Places:
    """Places named 0, 1, 2, ... at (lat, lon) WGS84 degrees, each in a country of its name unless one is given."""
    names = [str(i) for i in range(len(latlon_deg))]
    countries = [country or name for name in names]
    nothing = [None] * len(names)
    points = np.array(latlon_deg, dtype=np.float64).reshape(-1, 2)
    return Places(points, np.zeros(len(names), np.int64), countries, countries, nothing, nothing, names)


def ring(*corners_latlon_deg: tuple[float, float]) -> np.ndarray:
    """(C + 1, 2) float64 WGS84 degrees: the C corners, and the first one again."""
    return np.array([*corners_latlon_deg, corners_latlon_deg[0]], dtype=np.float64)


def box(south: float, west: float, north: float, east: float) -> np.ndarray:
    """(5, 2) float64 WGS84 degrees: the closed ring between two latitudes and two longitudes in degrees."""
    return ring((south, west), (south, east), (north, east), (north, west))


def layer(level: str, parents: list[str | None] | None = None, **rings: list[np.ndarray] | np.ndarray) -> PolygonLayer:
    """Regions by name, each of one closed ring of (C + 1, 2) degrees or several; `parents` has one entry a region."""
    each = [(name, one) for name, some in rings.items() for one in (some if isinstance(some, list) else [some])]
    names = list(rings)
    return PolygonLayer(
        level=level,
        key=names,
        name=names,
        code=[""] * len(names),
        parent_key=parents or [None] * len(names),
        vertices_latlon_deg=np.concatenate([one for _, one in each]),
        ring_offset=np.cumsum([0] + [len(one) for _, one in each]),
        ring_region=np.array([names.index(name) for name, _ in each]),
        source="test",
        attribution="",
        repairs=[],
    )


def random_points(num_points: int, seed: int = 0) -> np.ndarray:
    """(N, 2) float64 WGS84 degrees, uniform on the sphere; lon in [-180, 180)."""
    rng = np.random.default_rng(seed)
    return np.stack(
        [np.degrees(np.arcsin(rng.uniform(-1, 1, num_points))), rng.uniform(-180, 180, num_points)], axis=-1
    )
