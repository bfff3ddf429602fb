"""Circles on the sphere as GeoJSON polygons (RFC 7946): cut at the antimeridian, and right around a pole.

Positions are (lon, lat) degrees, exterior rings counterclockwise. Shapes: V vertices.
"""

import math
from typing import Any

import numpy as np
from geogrpo_kernels import EARTH_RADIUS_KM

NUM_VERTICES = 180
"""Chords of 2 degrees: at most 0.02 % of the radius from the circle, away from the poles."""
LEAST_RADIUS_KM = 0.001
"""Smaller circles are no polygons once they are rounded."""
DECIMALS = 6
"""0.1 m."""
WORLD = [(-180.0, -90.0), (180.0, -90.0), (180.0, 90.0), (-180.0, 90.0)]

Ring = list[tuple[float, float]]
"""Open: the first position is not repeated."""


def circle_geometry(latlon_deg: tuple[float, float], radius_km: float) -> dict[str, Any] | None:
    """The points within radius_km of a point, as a Polygon or MultiPolygon; None below LEAST_RADIUS_KM.

    Args:
        latlon_deg: (lat, lon), in range.
        radius_km: along the sphere; half its circumference and more is all of it.
    """
    lat_deg, lon_deg = latlon_deg
    radius_deg = math.degrees(radius_km / EARTH_RADIUS_KM)
    if radius_km < LEAST_RADIUS_KM:
        return None
    if radius_deg >= 180:
        return _geometry([[WORLD]])
    has_north, has_south = lat_deg + radius_deg > 90, lat_deg - radius_deg < -90
    if has_north and has_south:
        # All but a circle around the antipode, which holds no pole
        antipode = _boundary(-lat_deg, lon_deg + 180 if lon_deg <= 0 else lon_deg - 180, 180 - radius_deg)
        return _geometry([_world_without(_cut(antipode))])
    boundary = _boundary(lat_deg, lon_deg, radius_deg)
    if has_north or has_south:
        return _geometry([[_around_pole(boundary, 90.0 if has_north else -90.0)]])
    return _geometry([[part] for part in _cut(boundary)])


def _boundary(lat_deg: float, lon_deg: float, radius_deg: float) -> np.ndarray:
    """(V, 2) positions counterclockwise; longitudes within 180 degrees of the centre's, so perhaps beyond 180."""
    bearing = -np.linspace(0, 2 * math.pi, NUM_VERTICES, endpoint=False)
    lat, radius = math.radians(lat_deg), math.radians(radius_deg)
    sine = math.sin(lat) * math.cos(radius) + math.cos(lat) * math.sin(radius) * np.cos(bearing)
    east = np.sin(bearing) * math.sin(radius) * math.cos(lat)
    turned = np.arctan2(east, math.cos(radius) - math.sin(lat) * sine)
    return np.stack([lon_deg + np.degrees(turned), np.degrees(np.arcsin(np.clip(sine, -1, 1)))], axis=-1)


def _cut(boundary: np.ndarray) -> list[Ring]:
    """The parts of a circle without poles on each side of the antimeridian, the western first."""
    if boundary[:, 0].max() > 180:
        boundary = boundary - (360, 0)
    if boundary[:, 0].min() >= -180:
        return [_ring(boundary)]
    parts = [_clipped(boundary, is_east=False) + np.array([360, 0]), _clipped(boundary, is_east=True)]
    return [_ring(part) for part in parts]


def _clipped(boundary: np.ndarray, *, is_east: bool) -> np.ndarray:
    """The part on one side of -180; a meridian meets the circle twice, so it is one part."""
    kept = []
    for (lon, lat), (next_lon, next_lat) in zip(boundary, np.roll(boundary, -1, axis=0), strict=True):
        if (lon >= -180) == is_east or lon == -180:
            kept.append((lon, lat))
        if (lon - -180) * (next_lon - -180) < 0:
            kept.append((-180.0, lat + (next_lat - lat) * (-180 - lon) / (next_lon - lon)))
    return np.array(kept)


def _around_pole(boundary: np.ndarray, pole_deg: float) -> Ring:
    """Each meridian meets the circle once: the ring is the boundary from west to east, and the map's edge."""
    lon = (boundary[:, 0] + 180) % 360 - 180
    order = np.argsort(lon)
    lon, lat = lon[order], boundary[order, 1]
    edge = float(np.interp(180.0, lon, lat, period=360))
    line = [(-180.0, edge), *zip(lon.tolist(), lat.tolist(), strict=True), (180.0, edge)]
    corners = [(180.0, pole_deg), (-180.0, pole_deg)]
    return line + corners if pole_deg > 0 else line[::-1] + corners[::-1]


def _world_without(hole: list[Ring]) -> list[Ring]:
    """Rings of the world's rectangle without a circle, which _cut made."""
    if len(hole) == 1:
        return [WORLD, hole[0][::-1]]
    # The hole lies on the map's edge: two bites instead
    west_of_cut, east_of_cut = (_bite(part) for part in hole)
    return [[WORLD[0], WORLD[1], *west_of_cut, WORLD[2], WORLD[3], *east_of_cut]]


def _bite(part: Ring) -> Ring:
    """The part's ring backwards, from its one end on the map's edge to the other."""
    on_edge = [abs(lon) == 180 for lon, _ in part]
    last = next(i for i in range(len(part)) if on_edge[i] and not on_edge[i - 1])
    # From the position after which the ring runs along the edge
    return (part[last + 1 :] + part[: last + 1])[::-1]


def _ring(positions: np.ndarray) -> Ring:
    return [(lon, lat) for lon, lat in positions.tolist()]


def _geometry(polygons: list[list[Ring]]) -> dict[str, Any]:
    closed = [[[_rounded(position) for position in (*ring, ring[0])] for ring in rings] for rings in polygons]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _rounded(position: tuple[float, float]) -> list[float]:
    # Adding 0.0 takes the sign off a zero.
    return [round(degrees, DECIMALS) + 0.0 for degrees in position]
