"""The base map: small, in the right place, and what the script makes of its source."""

import json
from pathlib import Path

import numpy as np
import pytest

from geogrpo.report.page import page as page_module

LAND = Path(page_module.__file__).with_name("land.json")
COUNTRIES = Path(__file__).parents[3] / "shared/data/naturalearth/ne_10m_admin_0_countries.geojson.gz"


def rings(kind: str) -> list[np.ndarray]:
    """(N, 2) longitude and latitude of each line."""
    outline = json.loads(LAND.read_text())
    return [np.cumsum(np.reshape(ring, (-1, 2)), axis=0) / outline["units_per_deg"] for ring in outline[kind]]


def is_land(lat_deg: float, lon_deg: float) -> bool:
    """By the even-odd rule, as the canvas fills it."""
    crossings = 0
    for ring in rings("land"):
        (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
        is_across = (y > lat_deg) != (next_y > lat_deg)
        at = x + (lat_deg - y) / np.where(is_across, next_y - y, 1) * (next_x - x)
        crossings += int((is_across & (at > lon_deg)).sum())
    return crossings % 2 == 1


def test_the_outline_is_small_enough_to_be_in_every_page() -> None:
    assert LAND.stat().st_size < 150_000


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ((48.9, 2.3), True),
        ((-1.3, 36.8), True),
        ((35.7, 139.4), True),
        ((-80.0, 0.0), True),
        ((67.0, -175.0), True),
        ((0.0, -30.0), False),
        ((0.0, 170.0), False),
        ((43.0, 50.5), False),
        ((-60.0, 0.0), False),
    ],
)
def test_land_is_where_it_is(place: tuple[float, float], expected: bool) -> None:
    assert is_land(*place) == expected


def test_no_coordinate_is_off_the_earth() -> None:
    points = np.concatenate(rings("land") + rings("borders"))
    assert (np.abs(points) <= (180, 90)).all()


def test_the_script_makes_the_file_again() -> None:
    if not COUNTRIES.is_file():
        pytest.skip(f"needs Natural Earth's countries at {COUNTRIES}")
    pytest.importorskip("shapely", reason="needs shapely: pip install shapely")
    from geogrpo.report.page.land import land_outline

    assert land_outline(COUNTRIES) == json.loads(LAND.read_text())
