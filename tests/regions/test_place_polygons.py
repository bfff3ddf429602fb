"""Which polygon a place belongs to where borders and places disagree."""

from dataclasses import replace

import numpy as np
import pytest
from regions.geojson_documents import COUNTRIES
from regions.samples import box, layer, places_at

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import Places, load_geonames
from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons


def countries(**codes: str) -> PolygonLayer:
    """West and east of longitude 5, and an island with the west's code."""
    shapes = {"west": box(0, 0, 10, 5), "east": box(0, 5, 10, 10), "isle": box(20, 0, 21, 1)}
    return replace(layer("country", **shapes), code=[codes.get(name, "") for name in shapes])


def places_of(*places: tuple[float, float, str]) -> Places:
    points = places_at(*((lat, lon) for lat, lon, _ in places))
    codes = [code for _, _, code in places]
    states = [f"state of {code}" for code in codes]
    return replace(points, country_code=codes, country=codes, state=states, county=[f"county of {c}" for c in codes])


def chain_of(index: RegionIndex, place: int) -> list[str | None]:
    """Names of country, state and county of the place of that name."""
    everything = np.arange(len(index))
    (number,) = np.flatnonzero((index.names(everything) == str(place)) & (index.levels(everything) == 3))
    chain = [None] * 3
    while (number := int(index.parents(number))) >= 0:
        chain[int(index.levels(number))] = index.names([number])[0]
    return chain


def test_a_place_just_across_the_border_belongs_to_its_own_country() -> None:
    index = RegionIndex.build(
        [countries(west="WW", east="EE")], places_of((5, 5.01, "WW"), (5, 4.0, "WW"), (5, 5.3, "EE"))
    )
    assert chain_of(index, 0) == ["west", "state of WW", "county of WW"]
    # West of the border it is the nearest city; at its own coordinates, in the east, it is not.
    points = np.array([(5.0, 4.99), (5.0, 5.01)])
    assert index.names(index.lookup(points).city).tolist() == ["0", "2"]
    assert index.info.repairs == [
        "places: 1 of 3 lie in a polygon of another country; given to their own, which is within the coast tolerance"
    ]


def test_a_place_far_from_its_own_country_stays_without_its_state_and_county() -> None:
    index = RegionIndex.build(
        [countries(west="WW", east="EE")], places_of((5, 7, "WW"), (5, 5.5, "XX"), (5, 9, "EE"), (50, 50, "WW"))
    )
    assert chain_of(index, 0) == ["east", None, None]
    # No polygon has its code, as those of Reunion have France's.
    assert chain_of(index, 1) == ["east", None, None]
    assert chain_of(index, 2) == ["east", "state of EE", "county of EE"]
    assert chain_of(index, 3) == [None, None, None]
    assert index.info.repairs == [
        "places: 2 of 4 lie in a polygon of another country; left there without their state and county",
        "places: 1 of 4 lie in no polygon and near none; lookup never answers with them",
    ]


@pytest.mark.parametrize("code", ["", "EAS", "ee", "840"])
def test_codes_of_another_list_contradict_nothing(code: str) -> None:
    index = RegionIndex.build([countries(west="WW", east=code)], places_of((5, 5.01, "WW")))
    assert chain_of(index, 0) == ["east", "state of WW", "county of WW"]
    assert index.info.repairs == []


def test_without_coast_tolerance_no_place_is_moved() -> None:
    index = RegionIndex.build([countries(west="WW", east="EE")], places_of((5, 5.01, "WW")), coast_tolerance_km=0)
    assert chain_of(index, 0) == ["east", None, None]


def test_a_place_in_another_countrys_state_goes_to_the_country_that_holds_it() -> None:
    """States of a coarser scale reach across the border."""
    states = layer("state", ["west", "east"], left=box(0, 0, 10, 4.97), right=box(0, 4.98, 10, 10))
    index = RegionIndex.build([countries(west="WW", east="EE"), states], places_of((5, 4.985, "WW"), (5, 5.3, "EE")))
    assert [chain_of(index, i)[:2] for i in (0, 1)] == [["west", "state of WW"], ["east", "right"]]


def test_goma_is_in_congo_and_crimea_goes_by_the_borders() -> None:
    if not COUNTRIES.is_file():
        pytest.skip(f"Natural Earth's countries are not at {COUNTRIES}")
    borders = read_polygons(COUNTRIES, "country", key="ADM0_A3", name="NAME", code="ISO_A2_EH")
    everything = load_geonames()
    index = RegionIndex.build([borders], everything)
    points = np.array([(-1.658, 29.22), (-1.7026, 29.256), (44.95, 34.1), (-20.88, 55.45)])
    names = index.names(index.lookup(points).ids)
    assert names[:, [0, 3]].tolist() == [
        ["Dem. Rep. Congo", "Goma"],
        ["Rwanda", "Gisenyi"],
        ["Russia", "Simferopol"],
        ["France", "Saint-Denis"],
    ]
    assert names[2:, 1:3].tolist() == [[None, None]] * 2
    assert [line.split(" of 155,210 ")[0] for line in index.info.repairs] == [
        "places: 422",
        "places: 541",
        "places: 167",
    ]
