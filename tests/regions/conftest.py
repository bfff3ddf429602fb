"""The index that tables are looked up in."""

import pytest
from regions.samples import box, layer, places_at

from geogrpo.regions.index import RegionIndex


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    """The western half of the world is west, the eastern one east; the far south is nowhere."""
    halves = layer("country", west=box(-60, -180, 90, 0), east=box(-60, 0, 90, 180))
    return RegionIndex.build([halves], places_at((10, -20), (10, 20)))
