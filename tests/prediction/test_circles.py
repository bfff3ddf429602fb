"""Circles as GeoJSON: valid rings, and every point of the Earth on the right side of them."""

import math
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from geogrpo_kernels import EARTH_RADIUS_KM, haversine_km

from geogrpo.prediction.circles import circle_geometry

QUARTER_KM = math.pi / 2 * EARTH_RADIUS_KM
CENTRES = {
    "inland": (47.3, 8.5),
    "east of the antimeridian": (-17.0, -179.2),
    "west of the antimeridian": (-17.0, 178.9),
    "on the antimeridian": (64.0, 180.0),
    "on it from the other side": (64.0, -180.0),
    "near the north pole": (88.7, 30.0),
    "at the south pole": (-90.0, 0.0),
    "on the equator": (0.0, 0.0),
    "antipode on the antimeridian": (12.0, 0.3),
}
RADII_KM = (0.01, 25.0, 400.0, 2500.0, 8000.0, 12_000.0, 19_500.0)


def positions_of(geometry: dict[str, Any]) -> np.ndarray:
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return np.array([position for rings in polygons for ring in rings for position in ring])


@pytest.mark.parametrize("radius_km", RADII_KM)
@pytest.mark.parametrize("centre", CENTRES.values(), ids=CENTRES)
def test_every_point_is_on_the_right_side(centre: tuple[float, float], radius_km: float) -> None:
    geometry = circle_geometry(centre, radius_km)
    assert geometry is not None
    shape = shapely.geometry.shape(geometry)
    assert shape.is_valid, shapely.is_valid_reason(shape)
    assert (np.abs(positions_of(geometry)) <= (180, 90)).all()
    rng = np.random.default_rng(0)
    anywhere = np.stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000))), rng.uniform(-180, 180, 20_000)], axis=-1)
    points = np.concatenate([anywhere, around(centre, radius_km, rng)])
    km = haversine_km(torch.from_numpy(points), torch.tensor(centre, dtype=torch.float64).expand(len(points), -1))
    # Chords lie within the circle's arcs; on a map in degrees they bend most beside a pole.
    is_clear = (km / radius_km - 1).abs().numpy() > 0.03
    inside = shapely.contains_xy(shape, points[:, 1], points[:, 0])
    assert (inside == (km.numpy() < radius_km))[is_clear].all()


def around(centre: tuple[float, float], radius_km: float, rng: np.random.Generator) -> np.ndarray:
    """(5000, 2) degrees of points up to twice the radius away, by vectors: another way than the code under test."""
    lat, lon = np.radians(centre)
    up = np.array([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])
    east = np.array([-np.sin(lon), np.cos(lon), 0.0])
    north = np.cross(up, east)
    bearing = rng.uniform(0, 2 * np.pi, (5000, 1))
    angle = np.minimum(rng.uniform(0, 2 * radius_km, (5000, 1)) / EARTH_RADIUS_KM, np.pi)
    x, y, z = (up * np.cos(angle) + np.sin(angle) * (east * np.cos(bearing) + north * np.sin(bearing))).T
    return np.degrees(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], axis=-1))


@pytest.mark.parametrize("radius_km", RADII_KM)
@pytest.mark.parametrize("centre", CENTRES.values(), ids=CENTRES)
def test_rings_are_closed_and_turn_as_rfc_7946_says(centre: tuple[float, float], radius_km: float) -> None:
    geometry = circle_geometry(centre, radius_km)
    assert geometry is not None
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    for rings in polygons:
        for number, ring in enumerate(rings):
            assert ring[0] == ring[-1]
            assert len(ring) >= 4
            assert shapely.is_ccw(shapely.linearrings(ring)) == (number == 0)


def test_only_a_circle_over_the_antimeridian_is_cut() -> None:
    assert circle_geometry((-17.0, 178.9), 50.0)["type"] == "Polygon"
    cut = circle_geometry((-17.0, 178.9), 400.0)
    assert cut["type"] == "MultiPolygon"
    west, east = (np.array(rings[0]) for rings in cut["coordinates"])
    assert (west[:, 0].max(), east[:, 0].min()) == (180.0, -180.0)
    assert west[:, 0].min() > 170
    assert east[:, 0].max() < -170


@pytest.mark.parametrize("lat_deg", [60.0, -60.0])
def test_a_ring_around_a_pole_meets_the_maps_edge_on_the_circle(lat_deg: float) -> None:
    positions = positions_of(circle_geometry((lat_deg, 91.0), 5000.0))
    ends = positions[(np.abs(positions[:, 0]) == 180) & (np.abs(positions[:, 1]) < 90)]
    assert set(ends[:, 0]) == {-180.0, 180.0}
    assert len(set(ends[:, 1])) == 1
    points = torch.from_numpy(ends[:, ::-1].copy())
    km = haversine_km(points, torch.tensor([lat_deg, 91.0], dtype=torch.float64).expand(len(ends), -1))
    # 180 chords cut 2 degrees each, and 1 - cos(1 degree) of the radius.
    assert ((km / 5000 - 1).abs() < 5e-4).all()


def test_the_whole_earth_and_a_point_are_circles_too() -> None:
    world = shapely.geometry.shape(circle_geometry((10.0, 20.0), 2 * QUARTER_KM))
    assert world.equals(shapely.box(-180, -90, 180, 90))
    assert circle_geometry((10.0, 20.0), 0.0) is None
