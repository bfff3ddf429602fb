"""Makes land.json, the page's base map, from Natural Earth's countries. Needs shapely; reading the map does not.

    python -m geogrpo.report.page.land ne_10m_admin_0_countries.geojson.gz geogrpo/report/page/land.json

Source: Natural Earth 1:10m v5.1.2 (public domain), which draws borders as they are held, not as they are claimed.
`geogrpo.regions.sources.download.fetch_natural_earth` gets the file.
"""

import gzip
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import shapely

UNITS_PER_DEG = 50
TOLERANCE_DEG = 0.145
"""Side of the triangle (as the root of its area) below which a corner goes: the file is then under 150 kB."""
MIN_ISLAND_DEG2 = 0.01
"""Smaller islands and lakes go: 0.01 is 11 km x 11 km at the equator."""
SOURCE = "Natural Earth 1:10m v5.1.2, admin 0 countries (public domain), simplified"


def land_outline(countries: str | Path) -> dict[str, Any]:
    """The outline as written to land.json.

    Args:
        countries: GeoJSON file, gzip-compressed or not, of polygons that share their borders exactly.
    Returns:
        `land`: closed rings (holes are rings too: fill by the even-odd rule); `borders`: open lines between countries.
        Each is one flat list x, y, dx, dy, dx, dy ...: longitude and latitude in 1 / `units_per_deg` degrees, each
        point but the first as the step from the one before. `source`: where it is from.
    """
    raw = Path(countries).read_bytes()
    text = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    shapes = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in json.loads(text)["features"]]
    # Shared borders are simplified once, so that no gap opens between neighbours.
    simplified = shapely.coverage_simplify(shapes, TOLERANCE_DEG)
    land = shapely.union_all(simplified)
    boundaries = shapely.union_all(shapely.boundary(simplified))
    borders = shapely.line_merge(shapely.difference(boundaries, shapely.boundary(land)))
    rings = [ring for part in shapely.get_parts(land) for ring in (part.exterior, *part.interiors)]
    return {
        "source": SOURCE,
        "units_per_deg": UNITS_PER_DEG,
        "land": _steps(ring for ring in rings if shapely.Polygon(ring).area >= MIN_ISLAND_DEG2),
        "borders": _steps(shapely.get_parts(borders)),
    }


def _steps(lines: Iterable[shapely.LineString]) -> list[list[int]]:
    encoded = []
    for line in lines:
        points = np.round(shapely.get_coordinates(line) * UNITS_PER_DEG).astype(int)
        steps = np.diff(points, axis=0)
        steps = steps[(steps != 0).any(axis=1)]
        if len(steps):
            encoded.append(np.concatenate([points[:1], steps]).ravel().tolist())
    return encoded


def write_land_outline(countries: str | Path, path: str | Path) -> None:
    """land.json at `path`."""
    Path(path).write_text(json.dumps(land_outline(countries), separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_land_outline(*sys.argv[1:])
