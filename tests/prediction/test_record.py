"""The record that every output is made of: all of it, or no more than a level."""

import json
import math
import re
from typing import Any

import pytest

from geogrpo.prediction import place_estimate
from geogrpo.prediction.geojson import feature_collection
from geogrpo.prediction.record import GRANULARITIES, place_record
from geogrpo.prediction.text import record_text
from geogrpo.regions.index import default_index

# Brest, with more than its level in every field, and a picture taken in Munich
LEAKY = (
    "<think>The Zorblax tower at (48.39, -4.49)!</think><answer>Country: France near Zorblax, 48.4\n"
    "State: Brittany\nCity: Brest\nCoordinates: (48.3904, -4.4861)</answer>"
)
SAMPLES = ["Country: France\nCity: Quimper\nCoordinates: (48.0012, -4.1007)", LEAKY, "no idea"]
OWN = (48.1374, 11.5755)
NAMES = {
    "country": {"France", "Germany"},
    "state": {"Brittany", "Bavaria"},
    "city": {"Brest", "Munich"},
}


def record_of(granularity: str | None, greedy: str = LEAKY) -> dict[str, Any]:
    index = default_index()
    estimate = place_estimate(greedy, SAMPLES, index)
    return place_record(
        "a.jpg", estimate, index, own_latlon_deg=OWN, gps_problem="GPS of Zorblax", granularity=granularity
    )


def outputs_of(record: dict[str, Any]) -> list[str]:
    return [json.dumps(record), record_text(record), json.dumps(feature_collection([record]))]


@pytest.mark.parametrize("greedy", [LEAKY, "Country: France\nCity: Brest\nState: Brittany"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_nothing_finer_than_its_level_is_in_any_output(granularity: str, greedy: str) -> None:
    record = record_of(granularity, greedy)
    finer = GRANULARITIES[GRANULARITIES.index(granularity) + 1 :]
    hidden = {"Zorblax", "Quimper", "tower", *(name for level in finer for name in NAMES[level])}
    for output in outputs_of(record):
        assert not [name for name in hidden if name.lower() in output.lower()]
        # No degrees and no kilometres: shares of three samples are the only numbers with a point.
        assert set(re.findall(r"\d+\.\d+", output)) <= {"0.3333", "0.6667", "1.0", "0.0"}
        assert not re.search(r"48|-4|11|km|coordinates\": \[", output)
    assert record["country"] == "France"


def test_each_level_reveals_its_names_and_whether_they_are_right() -> None:
    record = record_of("state")
    assert {level: record.get(level) for level in GRANULARITIES} == {
        "country": "France",
        "state": "Brittany",
        "city": None,
    }
    assert "city" not in record
    assert record["truth"] == {"country": "Germany", "state": "Bavaria", "is_right": False}
    assert record["agreement"] == {"country": 0.6667, "state": 0.6667}
    (feature,) = feature_collection([record])["features"]
    assert feature["geometry"] is None
    assert feature["properties"]["truth"]["is_right"] is False


def test_the_right_country_is_right_whatever_the_city() -> None:
    index = default_index()
    estimate = place_estimate("Coordinates: (52.52, 13.405)", [], index)
    truths = {
        level: place_record("a.jpg", estimate, index, own_latlon_deg=OWN, granularity=level)["truth"]["is_right"]
        for level in GRANULARITIES
    }
    assert truths == {"country": True, "state": False, "city": False}


def test_without_a_limit_everything_is_there_and_the_distance_is_from_the_own_position() -> None:
    record = record_of(None)
    assert record["country"] == "France near Zorblax, 48.4"
    assert (record["latlon_deg"], record["reasoning"]) == ([48.3904, -4.4861], "The Zorblax tower at (48.39, -4.49)!")
    assert record["regions"] == {"country": "France", "state": "Brittany", "city": "Brest"}
    assert record["truth"]["latlon_deg"] == [*OWN]
    # The spherical law of cosines
    (lat, lon), (own_lat, own_lon) = (map(math.radians, point) for point in (record["latlon_deg"], OWN))
    cosine = math.sin(lat) * math.sin(own_lat) + math.cos(lat) * math.cos(own_lat) * math.cos(lon - own_lon)
    assert record["truth"]["distance_km"] == pytest.approx(6371.0088 * math.acos(cosine), abs=0.01)
    assert record["truth"]["city"] == "Munich"
    assert record["gps_problem"] == "GPS of Zorblax"
    assert json.loads(json.dumps(record)) == record


def test_geojson_puts_the_longitude_first_and_names_what_each_feature_is() -> None:
    features = feature_collection([record_of(None)])["features"]
    by_role = {feature["properties"]["role"]: feature for feature in features}
    assert list(by_role) == ["radius_50", "alternative", "own_gps", "answer"]
    assert by_role["answer"]["geometry"] == {"type": "Point", "coordinates": [-4.4861, 48.3904]}
    assert by_role["own_gps"]["geometry"] == {"type": "Point", "coordinates": [11.5755, 48.1374]}
    assert by_role["radius_50"]["geometry"]["type"] == "Polygon"
    assert by_role["radius_50"]["properties"]["radius_km"] == pytest.approx(51.8, abs=0.5)
    assert [f["properties"]["share"] for f in features if f["properties"]["role"] == "alternative"] == [0.3333, 0.3333]
    assert {feature["properties"]["image"] for feature in features} == {"a.jpg"}
    assert all(set(feature) == {"type", "geometry", "properties"} for feature in features)


def test_an_answer_without_a_place_is_a_feature_without_geometry() -> None:
    record = record_of(None, "no idea")
    features = feature_collection([record])["features"]
    assert [f["geometry"] for f in features if f["properties"]["role"] == "answer"] == [None]
    assert "the answer has no point" in record_text(record)


def test_control_characters_do_not_reach_a_terminal() -> None:
    text = record_text(record_of(None, "<think>red \x1b[31m alert</think>Country: Kenya\x07\nCoordinates: (1, 2)"))
    assert "alert" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)
