"""What a greedy answer and samples say together, against points placed by hand."""

import pytest

from geogrpo.prediction import PlaceEstimate, Regions, place_estimate
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.uncertainty import sample_radii_km

GREEDY = "Country: Kenya\nCity: Nairobi\nCoordinates: (-1.3, 36.8)"


@pytest.fixture(scope="session")
def index() -> RegionIndex:
    return default_index()


def estimate_of(index: RegionIndex, greedy: str, *samples: str) -> PlaceEstimate:
    return place_estimate(greedy, samples, index)


def point(lat: float, lon: float) -> str:
    return f"Coordinates: ({lat}, {lon})"


def test_the_answer_is_the_greedy_one_and_the_radii_are_around_it(index: RegionIndex) -> None:
    samples = [(-1.3, 36.8), (-1.3, 37.0), (-2.0, 36.8), (48.4, -4.5)]
    estimate = estimate_of(index, GREEDY, *(point(*sample) for sample in samples))
    assert (estimate.said.country, estimate.said.state, estimate.said.city) == ("Kenya", None, "Nairobi")
    assert estimate.latlon_deg == (-1.3, 36.8)
    assert (estimate.regions.country, estimate.regions.city) == ("Kenya", "Nairobi")
    # Two of four within 0.2 degrees of longitude; nine tenths of four are all of them.
    assert estimate.radius_50_km == pytest.approx(0.2 * 111.19, rel=2e-3)
    assert estimate.radius_90_km == pytest.approx(61.205 * 111.195, rel=2e-3)
    assert (estimate.radius_50_km, estimate.radius_90_km) == tuple(
        sample_radii_km([samples], [(-1.3, 36.8)])[0].tolist()
    )


def test_alternatives_are_where_samples_lie_together_with_their_share_of_all(index: RegionIndex) -> None:
    samples = [point(48.4, -4.5), point(-1.3, 36.8), point(-1.3, 36.9), "no idea"]
    estimate = estimate_of(index, GREEDY, *samples)
    kenya, france = estimate.alternatives
    assert (kenya.share, kenya.holds_answer, kenya.regions.country) == (0.5, True, "Kenya")
    assert kenya.latlon_deg[0] == pytest.approx(-1.3, abs=0.01)
    assert 36.8 <= kenya.latlon_deg[1] <= 36.9
    assert (france.share, france.holds_answer) == (0.25, False)
    assert france.latlon_deg == (48.4, -4.5)
    assert france.regions == Regions("France", "Brittany", "Brest")


def test_agreement_is_the_share_of_all_samples_in_the_points_regions(index: RegionIndex) -> None:
    estimate = estimate_of(index, GREEDY, point(-1.3, 36.8), point(-4.05, 39.66), "no idea", point(48.4, -4.5))
    assert estimate.agreement["country"] == 0.5
    assert estimate.agreement["city"] == 0.25


def test_names_without_coordinates_are_located(index: RegionIndex) -> None:
    estimate = estimate_of(index, "Country: Kenya\nCity: Nairobi", "Country: Kenya\nCity: Nairobi", point(-1.3, 36.8))
    assert estimate.is_from_names
    assert estimate.latlon_deg == pytest.approx((-1.28, 36.82), abs=0.05)
    assert estimate.radius_50_km == 0
    assert 0 < estimate.radius_90_km < 10
    assert [alternative.share for alternative in estimate.alternatives] == [1.0]


def test_coordinates_come_before_names(index: RegionIndex) -> None:
    estimate = estimate_of(index, "Country: France\nCity: Paris\nCoordinates: (-1.3, 36.8)")
    assert (estimate.latlon_deg, estimate.is_from_names) == ((-1.3, 36.8), False)
    assert (estimate.said.country, estimate.regions.country) == ("France", "Kenya")


def test_without_samples_there_are_no_radii(index: RegionIndex) -> None:
    estimate = estimate_of(index, GREEDY)
    assert (estimate.radius_50_km, estimate.radius_90_km, estimate.agreement) == (None, None, {})
    assert (estimate.alternatives, estimate.num_samples) == ([], 0)


def test_a_radius_that_samples_without_coordinates_would_be_in_is_none(index: RegionIndex) -> None:
    estimate = estimate_of(index, GREEDY, point(-1.3, 36.8), point(-1.3, 36.8), "no idea", "no idea")
    assert (estimate.radius_50_km, estimate.radius_90_km) == (0, None)


def test_an_answer_without_a_place_leaves_the_samples_alternatives(index: RegionIndex) -> None:
    estimate = estimate_of(index, "no idea", point(48.4, -4.5), point(48.4, -4.5))
    assert (estimate.latlon_deg, estimate.radius_50_km, estimate.regions) == (None, None, Regions())
    assert estimate.said.problem is not None
    (alternative,) = estimate.alternatives
    assert (alternative.share, alternative.holds_answer) == (1.0, False)
