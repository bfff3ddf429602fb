"""Small GeoJSON documents for the tests of region polygons, and where the shared ones are."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons

NATURAL_EARTH = Path(__file__).parents[2].parent / "shared/data/naturalearth"
COUNTRIES = NATURAL_EARTH / "ne_10m_admin_0_countries.geojson.gz"
SQUARE = [[0.0, 0.0], [10.0, 0.0], [10.0, 10.0], [0.0, 10.0], [0.0, 0.0]]
HOLE = [[4, 4], [4, 6], [6, 6], [6, 4], [4, 4]]
FAR = [[20, 20], [30, 20], [30, 30], [20, 20]]


def polygon(*rings: Any) -> dict:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: Any, key: Any = "A", name: Any = "Alpha", **properties: Any) -> dict:
    return {"type": "Feature", "properties": {"KEY": key, "NAME": name, **properties}, "geometry": geometry}


def collection(*features: Any, **members: Any) -> dict:
    return {"type": "FeatureCollection", "features": list(features), **members}


def read(folder: Path, document: Any, **arguments: Any) -> PolygonLayer:
    path = folder / "world.geojson"
    path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    return read_polygons(path, "country", **{"key": "KEY", "name": "NAME", **arguments})


def rings(layer: PolygonLayer) -> list[list[list[float]]]:
    """The rings as [lat, lon] lists."""
    return [part.tolist() for part in np.split(layer.vertices_latlon_deg, layer.ring_offset[1:-1])]
