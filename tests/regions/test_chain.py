"""Chain of Region text, how missing regions are filled in, and the way back through the parser."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.parsing import has_think_answer_tags, parse_completion
from geogrpo.regions.chain import CHAIN_TEMPLATES, chain_of_region, fill_regions
from geogrpo.regions.index import default_index
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.types import Example

PARIS = (48.8566, 2.3522)


def example(latlon_deg: tuple[float, float], country: str | None = "C", **regions: str | None) -> Example:
    return Example("x", "x.jpg", latlon_deg, country, **regions)


def test_the_chain_narrows_from_country_to_coordinates() -> None:
    biei = example((43.45, 142.61), "Japan", state="Hokkaido", city="Biei")
    assert chain_of_region(biei, 1) == "Country: Japan\nState: Hokkaido\nCity: Biei\nCoordinates: (43.5, 142.6)"
    assert chain_of_region(biei, 3).endswith("\nCoordinates: (43.450, 142.610)")
    assert chain_of_region(biei, 0).endswith("\nCoordinates: (43, 143)")


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_level_without_a_name_is_left_out(nothing: str | None) -> None:
    without_state = example((1.0, 2.0), "Kenya", state=nothing, city="Nairobi")
    assert chain_of_region(without_state, 1) == "Country: Kenya\nCity: Nairobi\nCoordinates: (1.0, 2.0)"
    country_alone = example((1.0, 2.0), "Kenya", state=nothing, city=nothing)
    assert chain_of_region(country_alone, 1) == "Country: Kenya\nCoordinates: (1.0, 2.0)"


@pytest.mark.parametrize(
    ("latlon_deg", "decimals", "written"),
    [
        ((-0.04, -0.04), 1, "(0.0, 0.0)"),
        ((-0.06, 0.04), 1, "(-0.1, 0.0)"),
        ((-0.4, -0.2), 0, "(0, 0)"),
        ((-0.0, -0.0), 2, "(0.00, 0.00)"),
        ((89.96, -179.96), 1, "(90.0, -180.0)"),
    ],
)
def test_coordinates_are_rounded_and_zero_has_no_sign(
    latlon_deg: tuple[float, float], decimals: int, written: str
) -> None:
    assert chain_of_region(example(latlon_deg), decimals).splitlines()[-1] == f"Coordinates: {written}"


def test_a_chain_without_a_country_is_rejected() -> None:
    with pytest.raises(ValueError, match="example 'x' has no country: call fill_regions first"):
        chain_of_region(example((0.0, 0.0), None), 1)


def test_each_example_is_filled_from_its_own_point() -> None:
    known = example(PARIS, "Atlantis", city="R'lyeh")
    missing_in_france, missing_in_namibia = example(PARIS, None), example((-22.5594, 17.0832), None)
    filled = fill_regions([missing_in_france, known, missing_in_namibia], default_index())
    assert [e.country for e in filled] == ["France", "Atlantis", "Namibia"]
    assert filled[1] is known
    assert (filled[0].state, filled[2].city) == ("Île-de-France", "Windhoek")
    assert (filled[0].id, filled[0].image, filled[0].latlon_deg) == ("x", "x.jpg", PARIS)
    assert missing_in_france.country is None


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({}, ("France", "Île-de-France", "Paris")),
        ({"state": "IDF"}, ("France", "IDF", "Paris")),
        ({"city": "Le Marais"}, ("France", "Île-de-France", "Le Marais")),
        ({"state": "", "city": "Le Marais"}, ("France", "Île-de-France", "Le Marais")),
        ({"country": "France"}, ("France", "Île-de-France", "Paris")),
        ({"country": "FRANCE", "city": "Le Marais"}, ("FRANCE", "Île-de-France", "Le Marais")),
        ({"country": "France", "state": "IDF", "city": "Le Marais"}, ("France", "IDF", "Le Marais")),
        ({"country": "Atlantis"}, ("Atlantis", None, None)),
        ({"country": "Atlantis", "state": "Deep"}, ("Atlantis", "Deep", None)),
    ],
)
def test_given_levels_stay_and_missing_ones_come_from_the_same_country(
    levels: dict[str, str], expected: tuple[str | None, ...]
) -> None:
    (filled,) = fill_regions([Example("x", "x.jpg", PARIS, **levels)], default_index())
    assert (filled.country, filled.state, filled.city) == expected


def test_filling_nothing_changes_nothing() -> None:
    known = [example(PARIS), example((0.0, 0.0))]
    assert fill_regions(known, default_index()) == known
    assert fill_regions([], default_index()) == []


def test_the_templates_of_one_example() -> None:
    biei = example((43.45, -142.61), "Japan", state="Hokkaido", city="Biei")
    labels = ["Country: Japan", "State: Hokkaido", "City: Biei", "Coordinates: (43.5, -142.6)"]
    narrowing = (
        "The country is Japan. Within Japan, the state or region is Hokkaido."
        " Within Hokkaido, the nearest town or city is Biei."
    )
    lines = "\n".join(labels)
    assert {template: chain_of_region(biei, 1, template) for template in CHAIN_TEMPLATES} == {
        "lines": lines,
        "line": " | ".join(labels),
        "steps": "\n".join(f"{i}. {label}" for i, label in enumerate(labels, start=1)),
        "json": '{"country": "Japan", "state": "Hokkaido", "city": "Biei", "coordinates": [43.5, -142.6]}',
        "sentence": "This photograph was taken in Biei, Hokkaido, Japan.\n"
        "Answer: Japan; Hokkaido; Biei\nCoordinates: (43.5, -142.6)",
        "narrowing": f"{narrowing}\n{' | '.join(labels)}",
        "think": f"<think>\n{narrowing}\n</think>\n<answer>\n{lines}\n</answer>",
    }


def test_the_template_with_tags_is_what_the_format_reward_asks_for() -> None:
    chain = chain_of_region(example((1.0, 2.0), "Kenya", city="Nairobi"), 1, "think")
    assert has_think_answer_tags(chain)
    assert (
        parse_completion(chain).thinking
        == "\nThe country is Kenya. Within Kenya, the nearest town or city is Nairobi.\n"
    )


def test_an_unknown_template_is_rejected() -> None:
    with pytest.raises(ValueError, match="template must be one of lines, .*, got 'haiku'"):
        chain_of_region(example((1.0, 2.0)), 1, "haiku")


@pytest.mark.parametrize("template", CHAIN_TEMPLATES)
def test_every_places_chain_is_read_back(template: str) -> None:
    places = load_geonames()
    # The end of its name before "latitude" was read as a label once.
    silly = places.city.index("Silly-le-Long")
    for place in (silly, *range(0, len(places), 100)):
        latlon_deg = (float(places.latlon_deg[place, 0]), float(places.latlon_deg[place, 1]))
        here = example(latlon_deg, places.country[place], state=places.state[place], city=places.city[place])
        for left_out in ({}, {"state": None}, {"city": ""}, {"state": "", "city": None}):
            shorter = replace(here, **left_out)
            prediction = parse_completion(chain_of_region(shorter, 2, template))
            assert prediction.problem is None
            names = (shorter.country, shorter.state or None, shorter.city or None)
            assert (prediction.country, prediction.state, prediction.city) == names
            assert prediction.latlon_deg == tuple(round(value, 2) for value in latlon_deg)


@pytest.mark.slow
@pytest.mark.parametrize("template", CHAIN_TEMPLATES)
def test_every_single_place_is_read_back(template: str) -> None:
    places = load_geonames()
    for place, point in enumerate(places.latlon_deg.tolist()):
        here = example((point[0], point[1]), places.country[place], state=places.state[place], city=places.city[place])
        prediction = parse_completion(chain_of_region(here, 4, template))
        assert prediction.problem is None
        # Of two spaces in "Querum -  Wabenkamp" the parser leaves one in JSON.
        read = [" ".join(name.split()) for name in (prediction.country, prediction.state, prediction.city) if name]
        assert read == [" ".join(name.split()) for name in (here.country, here.state, here.city) if name]
        assert prediction.latlon_deg == tuple(round(value, 4) for value in point)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=9
).filter(lambda name: not set("(<{") & set(name))


@settings(deadline=None)
@given(
    latlon_deg=st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    decimals=st.integers(0, 6),
    country=NAMES,
    state=st.none() | NAMES,
    city=st.none() | NAMES,
)
def test_any_chain_is_read_back(
    latlon_deg: tuple[float, float], decimals: int, country: str, state: str | None, city: str | None
) -> None:
    prediction = parse_completion(chain_of_region(example(latlon_deg, country, state=state, city=city), decimals))
    assert (prediction.country, prediction.state, prediction.city) == (country, state, city)
    assert prediction.latlon_deg == tuple(round(value, decimals) for value in latlon_deg)
