"""What a completion says, well-formed, malformed and hostile."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geogrpo.prompts import PROMPTS, parse_completion
from geogrpo.types import Prediction

CHAIN = "Country: Japan\nState: Hokkaido\nCity: Biei\nCoordinates: (43.5, 142.6)"
# Pieces of answers, so that random text comes close to one
PIECES = ["Country: ", "State: ", "City: ", "Coordinates: ", "(", ")", ",", ".", "-", "+", " ", "\n", "1", "90", "180"]


def test_a_chain_is_read_in_full() -> None:
    assert parse_completion(CHAIN) == Prediction(CHAIN, "Japan", "Hokkaido", "Biei", (43.5, 142.6), None)


def test_a_chain_without_state_is_read() -> None:
    text = "Country: Kenya\nCity: Nairobi\nCoordinates: (-1.3, 36.8)"
    assert parse_completion(text) == Prediction(text, "Kenya", None, "Nairobi", (-1.3, 36.8), None)


def test_the_prompt_asks_for_the_lines_that_are_read() -> None:
    prediction = parse_completion(PROMPTS["chain_of_region"])
    assert prediction.country == "its name in English"
    assert prediction.state == "the state, province or region"
    assert prediction.city == "the nearest city or village"
    answered = PROMPTS["chain_of_region"].replace("latitude, longitude", "1.5, -2.5")
    assert parse_completion(answered).latlon_deg == (1.5, -2.5)


def test_the_globe_prompt_asks_for_the_answer_that_is_read() -> None:
    prompt = PROMPTS["globe"]
    for tag in ("<think>", "</think>", "<answer>", "</answer>"):
        assert tag in prompt
    lines = "\n".join(prompt.splitlines()[-2:])
    prediction = parse_completion(f"<think>A sign in Japanese.</think>\n<answer>{lines}</answer>")
    assert prediction.country == "its name in English"
    assert prediction.city == "the nearest city or town"
    assert prediction.has_think_answer_tags


@pytest.mark.parametrize(
    ("written", "latlon_deg"),
    [
        ("(48.85, 2.35)", (48.85, 2.35)),
        ("(48.85,2.35)", (48.85, 2.35)),
        ("( 48.85 , 2.35 )", (48.85, 2.35)),
        ("(\n48.85,\n2.35\n)", (48.85, 2.35)),
        ("(+48, -2)", (48.0, -2.0)),
        ("((48, 2))", (48.0, 2.0)),
        ("about (48, 2), I think (sure)", (48.0, 2.0)),
        ("(-90, -180)", (-90.0, -180.0)),
        ("(90.000, 180.000)", (90.0, 180.0)),
        ("(1.123456789012345, 2)", (1.123456789012345, 2.0)),
    ],
)
def test_a_pair_in_parentheses_is_read(written: str, latlon_deg: tuple[float, float]) -> None:
    prediction = parse_completion(f"Coordinates: {written}")
    assert prediction.latlon_deg == latlon_deg
    assert prediction.problem is None


@pytest.mark.parametrize(
    "written",
    [
        "",
        "(48.85; 2.35)",
        "(48.85 2.35)",
        "(48.85)",
        "(48.85, 2.35, 7)",
        "(48.85, 2.35",
        "48.85, 2.35)",
        "(nan, 2)",
        "(inf, 2)",
        "(1e1, 2)",
        "(.5, 2)",
        "(5., 2)",
        "(--5, 2)",
        "(1234, 2)",
        "(48,85, 2,35)",
    ],
)
def test_anything_else_is_no_pair(written: str) -> None:
    prediction = parse_completion(f"Country: France\nCoordinates: {written}")
    assert prediction.latlon_deg is None
    assert prediction.problem == "no coordinates"
    assert prediction.country == "France"


@pytest.mark.parametrize(
    ("text", "num_pairs"),
    [
        ("(1, 2) (3, 4)", 2),
        ("(1, 2)(1, 2)", 2),
        ("(1, 2)\nor (99, 999) or\n(3, 4)", 3),
    ],
)
def test_several_pairs_are_no_answer_even_when_equal_or_out_of_range(text: str, num_pairs: int) -> None:
    prediction = parse_completion(text)
    assert prediction.latlon_deg is None
    assert prediction.problem == f"{num_pairs} coordinate pairs"


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("(90.1, 0)", "(90.1, 0.0)"),
        ("(-90.001, 0)", "(-90.001, 0.0)"),
        ("(0, 180.1)", "(0.0, 180.1)"),
        ("(0, -181)", "(0.0, -181.0)"),
        ("(999, 999)", "(999.0, 999.0)"),
    ],
)
def test_coordinates_out_of_range_are_no_answer(pair: str, reason: str) -> None:
    prediction = parse_completion(pair)
    assert prediction.latlon_deg is None
    assert prediction.problem == f"out of range: {reason}"


@given(lat=st.floats(-90, 90), lon=st.floats(-180, 180))
def test_latitude_comes_first_and_is_never_swapped(lat: float, lon: float) -> None:
    lat, lon = round(lat, 6), round(lon, 6)
    assert parse_completion(f"({lat:.6f}, {lon:.6f})").latlon_deg == (lat, lon)
    swapped = parse_completion(f"({lon:.6f}, {lat:.6f})").latlon_deg
    assert swapped == ((lon, lat) if abs(lon) <= 90 else None)


def test_a_level_with_two_names_is_not_read() -> None:
    text = "Country: France\nCountry: Spain\nState: Brittany\nCity: Brest\nCoordinates: (48.4, -4.5)"
    assert parse_completion(text) == Prediction(text, None, "Brittany", "Brest", (48.4, -4.5), "2 countries")


@pytest.mark.parametrize(
    "line", ["The Country: France", "A Country: France", "Country France", "Country:", "Country:   "]
)
def test_a_line_in_another_form_is_not_read(line: str) -> None:
    prediction = parse_completion(f"{line}\nCity: Brest")
    assert prediction.country is None
    assert prediction.city == "Brest"


def test_names_are_stripped_and_keep_what_is_inside() -> None:
    prediction = parse_completion("Country:   Bosnia and Herzegovina  \nCity: Saint-Denis (La Réunion): centre")
    assert prediction.country == "Bosnia and Herzegovina"
    assert prediction.city == "Saint-Denis (La Réunion): centre"


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join)))
@example("(١٢, ٣٤)")
@example("(1, 2)\x00\ud800")
@example("Country: \u2028\x85\nCountry: x")
def test_any_text_gives_an_answer_in_range_or_a_problem(text: str) -> None:
    prediction = parse_completion(text)
    assert prediction.text == text
    assert prediction.latlon_deg is not None or prediction.problem
    if prediction.latlon_deg is not None:
        lat_deg, lon_deg = prediction.latlon_deg
        assert -90 <= lat_deg <= 90
        assert -180 <= lon_deg <= 180
    for name in (prediction.country, prediction.state, prediction.city):
        assert name is None or (name and name in text and "\n" not in name)


@pytest.mark.parametrize(
    "piece",
    ["(", "1", " ", "\n", "(1", "(1,", "(1.", "( ", "(1 ", "-", "(-", "Country:", "Country: ", "City: x\n", "()"],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    text = piece * 200_000
    start = time.process_time()
    prediction = parse_completion(f"({text}")
    prediction_of_line = parse_completion(f"Country:{text}")
    # A quadratic pattern takes minutes on 200,000 pieces; the linear one milliseconds.
    assert time.process_time() - start < 2
    assert prediction.problem == prediction_of_line.problem == "no coordinates"
