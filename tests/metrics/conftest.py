import numpy as np
import pytest

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import Places

# (latitude, longitude, code, state, county, city)
PLACES = (
    (48.85, 2.35, "FR", "Ile-de-France", "Paris", "Paris"),
    (48.80, 2.13, "FR", "Ile-de-France", "Yvelines", "Versailles"),
    (45.76, 4.84, "FR", "Rhone-Alpes", None, "Lyon"),
    (52.52, 13.40, "DE", "Berlin", None, "Berlin"),
    (-22.56, 17.08, "NA", "Khomas", None, "Windhoek"),
    (-16.80, 179.95, "FJ", None, None, "Naqara"),
    (-16.80, -170.0, "WS", None, None, "Apia"),
    # The same names as Paris: one city to OSV-5M, two places to the index
    (48.90, 2.35, "FR", "Ile-de-France", "Paris", "Paris"),
)
PARIS, VERSAILLES, LYON, BERLIN, WINDHOEK, NAQARA, APIA, NORTH_PARIS = (place[:2] for place in PLACES)
NOWHERE = (np.nan, np.nan)


@pytest.fixture(scope="session")
def places() -> Places:
    lat, lon, code, state, county, city = (list(column) for column in zip(*PLACES, strict=True))
    return Places(np.array([lat, lon]).T.copy(), np.zeros(len(city), dtype=np.int64), code, code, state, county, city)


@pytest.fixture(scope="session")
def index(places: Places) -> RegionIndex:
    return RegionIndex.build(places=places)


@pytest.fixture(scope="session")
def degrees_index(places: Places) -> RegionIndex:
    return RegionIndex.build(places=places, metric="degrees")
