"""A map of one answer as SVG, drawn from the report's outline of the land: no tiles, no request.

x is the longitude and y the latitude downwards, in degrees. The world repeats to the left and right, so that a map
around Fiji is whole. Shapes: N points.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from geogrpo.prediction.circles import circle_geometry

ASPECT = 2.0
LEAST_WIDTH_DEG = 36.0
"""The outline has corners every few tenths of a degree: nearer it would look wrong."""
MARGIN = 1.25
"""Of the width that holds everything."""
OTHER_TURNS = (-360, 360)


def world_map(record: Mapping[str, Any]) -> str | None:
    """The map of a record, or None where it holds no point."""
    alternatives = [alternative["latlon_deg"] for alternative in record.get("alternatives", [])]
    truth = record.get("truth") or {}
    answer, own = record.get("latlon_deg"), truth.get("latlon_deg")
    circles = [circle_geometry(tuple(answer), km) for km in _radii_km(record)] if answer else []
    points = [point for point in (answer, own, *alternatives) if point]
    if not points:
        return None
    left, top, width = _window(points, [circle for circle in circles if circle])
    height, unit = width / ASPECT, width / 1000
    marks = [_circle(circle, number) for number, circle in enumerate(circles) if circle]
    marks += [_numbered(point, number, unit) for number, point in enumerate(alternatives, start=1)]
    marks += [_ring(own, unit)] if own else []
    marks += [_dot(answer, unit)] if answer else []
    drawing = "".join(marks)
    repeated = "".join(
        f'<use href="#gg-{name}" x="{turn}"/>'
        for name in ("ground", "marks")
        for turn in OTHER_TURNS
        if left < turn + 180 and left + width > turn - 180
    )
    return (
        f'<svg viewBox="{left:.3f} {top:.3f} {width:.3f} {height:.3f}" role="img" aria-label="Map of the answer">'
        f'<rect class="gg-sea" x="{left:.3f}" y="{top:.3f}" width="{width:.3f}" height="{height:.3f}"/>'
        f'{_ground()}{repeated}<g id="gg-marks">{drawing}</g></svg>'
    )


def _radii_km(record: Mapping[str, Any]) -> list[float]:
    """The larger first, so that the smaller lies on it."""
    return [km for km in (record["radius_90_km"], record["radius_50_km"]) if km is not None]


def _window(points: Sequence[Sequence[float]], circles: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """(left, top, width) around everything, as seen from the first point."""
    centre = points[0][1]
    seen = [(lat, _beside(lon, centre)) for lat, lon in points]
    for circle in circles:
        polygons = [circle["coordinates"]] if circle["type"] == "Polygon" else circle["coordinates"]
        seen += [(lat, _beside(lon, centre)) for rings in polygons for ring in rings for lon, lat in ring]
    lats, lons = zip(*seen, strict=True)
    wide, high = max(lons) - min(lons), max(lats) - min(lats)
    width = min(max(MARGIN * wide, MARGIN * ASPECT * high, LEAST_WIDTH_DEG), 360.0)
    middle_lon, middle_lat = (max(lons) + min(lons)) / 2, (max(lats) + min(lats)) / 2
    # No farther than the poles
    reach = 90 - width / ASPECT / 2
    middle_lat = min(max(middle_lat, -reach), reach)
    return middle_lon - width / 2, -middle_lat - width / ASPECT / 2, width


def _beside(lon_deg: float, centre_deg: float) -> float:
    """The turn of a longitude that is nearest to the centre."""
    return lon_deg - 360 * round((lon_deg - centre_deg) / 360)


@cache
def _ground() -> str:
    """Land and borders once; the rest of the page refers to them."""
    outline = json.loads((resources.files("geogrpo.report.page") / "land.json").read_text(encoding="utf-8"))
    scale = 1 / outline["units_per_deg"]
    land = "".join(f"{_path(ring)}z" for ring in outline["land"])
    borders = "".join(map(_path, outline["borders"]))
    return (
        f'<g id="gg-ground"><g transform="scale({scale} {-scale})"><path class="gg-land" d="{land}"/>'
        f'<path class="gg-border" d="{borders}"/></g></g>'
    )


def _path(line: Sequence[int]) -> str:
    return f"M{line[0]} {line[1]}l{' '.join(map(str, line[2:]))}"


def _circle(geometry: Mapping[str, Any], number: int) -> str:
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    rings = (ring for rings in polygons for ring in rings)
    path = "".join("M" + "L".join(f"{lon:.3f} {-lat:.3f}" for lon, lat in ring) + "z" for ring in rings)
    return f'<path class="gg-circle gg-circle-{number}" d="{path}"/>'


def _numbered(latlon_deg: Sequence[float], number: int, unit: float) -> str:
    lat, lon = latlon_deg
    return (
        f'<circle class="gg-alternative" cx="{lon}" cy="{-lat}" r="{9 * unit:.4f}"/>'
        f'<text class="gg-number" x="{lon}" y="{-lat + 4.5 * unit:.4f}" font-size="{12.5 * unit:.4f}">{number}</text>'
    )


def _ring(latlon_deg: Sequence[float], unit: float) -> str:
    lat, lon = latlon_deg
    return f'<circle class="gg-own" cx="{lon}" cy="{-lat}" r="{11 * unit:.4f}" stroke-width="{4 * unit:.4f}"/>'


def _dot(latlon_deg: Sequence[float], unit: float) -> str:
    lat, lon = latlon_deg
    return f'<circle class="gg-answer-dot" cx="{lon}" cy="{-lat}" r="{7 * unit:.4f}" stroke-width="{2.5 * unit:.4f}"/>'
