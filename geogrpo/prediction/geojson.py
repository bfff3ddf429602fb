"""Records as GeoJSON (RFC 7946): longitude first, degrees of WGS84, circles as polygons."""

from collections.abc import Sequence
from typing import Any

from geogrpo.prediction.circles import circle_geometry

NOT_PROPERTIES = frozenset({"latlon_deg", "alternatives", "truth"})
"""Keys of a record that are features of their own, or their geometry."""


def feature_collection(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The features of all records. `image` says which photograph a feature is of, and `role` what it is:

    answer: the point, or no geometry where there is none or it is not revealed, with the record's other values.
    radius_50, radius_90: circles around the point; alternative: where samples lie, with their share.
    own_gps: the position that the photograph carries.
    """
    return {
        "type": "FeatureCollection",
        "features": [feature for record in records for feature in record_features(record)],
    }


def record_features(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The features of one record, the circles first, so that points are drawn upon them."""
    image, latlon_deg = record["image"], record.get("latlon_deg")
    features = []
    for role in ("radius_90", "radius_50"):
        radius_km = record.get(f"{role}_km")
        if latlon_deg is None or radius_km is None:
            continue
        circle = circle_geometry(tuple(latlon_deg), radius_km)
        if circle is not None:
            features.append(_feature(image, role, circle, {"radius_km": radius_km}))
    for alternative in record.get("alternatives", []):
        features.append(_feature(image, "alternative", _point(alternative["latlon_deg"]), _properties(alternative)))
    truth = record.get("truth")
    if truth is not None and "latlon_deg" in truth:
        features.append(_feature(image, "own_gps", _point(truth["latlon_deg"]), _properties(truth)))
    is_right = {} if truth is None or "is_right" not in truth else {"truth": truth}
    features.append(_feature(image, "answer", _point(latlon_deg), _properties(record) | is_right))
    return features


def _feature(image: str, role: str, geometry: dict[str, Any] | None, properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": {"role": role, **properties, "image": image}}


def _point(latlon_deg: Sequence[float] | None) -> dict[str, Any] | None:
    if latlon_deg is None:
        return None
    lat_deg, lon_deg = latlon_deg
    return {"type": "Point", "coordinates": [lon_deg, lat_deg]}


def _properties(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in NOT_PROPERTIES}
