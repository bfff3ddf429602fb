"""The formats that answers come in: read, refused, and never misread."""

import json
import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from geogrpo.parsing import has_think_answer_tags, parse_completion
from geogrpo.regions.chain import chain_of_region
from geogrpo.types import Example

PARIS = (48.85, 2.35)
CAPE_TOWN = (-33.9, 18.4)
FRANCE = ("France", None, "Paris")
BIEI = ("Japan", "Hokkaidō", "Biei Town")


@pytest.mark.parametrize(
    ("written", "latlon_deg"),
    [
        ("Coordinates: 48.85, 2.35", PARIS),
        ("coordinates: 48.85,2.35.", PARIS),
        ("GPS: 48.85, 2.35 (near the river)", PARIS),
        ("Location: `48.85, 2.35`", PARIS),
        ("Final answer: 48.85, 2.35", PARIS),
        ("48.85, 2.35", PARIS),
        ("<answer> 48.85, 2.35 </answer>", PARIS),
        ("[48.85, 2.35]", PARIS),
        ("**Coordinates:** **(48.85, 2.35)**", PARIS),
        ("Coordinates: (−33.9, 18.4)", CAPE_TOWN),
        ("Lat/Lon: 48.85, 2.35", PARIS),
        ("Latitude and longitude: 48.85, 2.35", PARIS),
        ("(lat, lon) = (48.85, 2.35)", PARIS),
        # The text says that the longitude comes first.
        ("Lon/Lat: 2.35, 48.85", PARIS),
        ("Coordinates (longitude, latitude): (2.35, 48.85)", PARIS),
        ("[lng, lat] = [2.35, 48.85]", PARIS),
        ("(2.35, 48.85) in lon, lat order", PARIS),
        ('{"lonlat": [2.35, 48.85]}', PARIS),
        ('{"type": "Point", "coordinates": [2.35, 48.85]}', PARIS),
        ("(2.35 E, 48.85 N)", PARIS),
        ("(18.4 E, -33.9)", CAPE_TOWN),
        ("Coordinates: 2.35° E, 48.85° N", PARIS),
        ("Lon: 2.35, Lat: 48.85", PARIS),
        ('{"lon": 2.35, "lat": 48.85}', PARIS),
        ("<lon>2.35</lon><lat>48.85</lat>", PARIS),
        # Letters and degrees
        ("(48.85 N, 2.35 E)", PARIS),
        ("(48.85°, 2.35°)", PARIS),
        ("48.85° N, 2.35° E", PARIS),
        ("I say 48.85°N 2.35°E, near the river.", PARIS),
        ("N 48.85, E 2.35", PARIS),
        ("N48.85° E2.35°", PARIS),
        ("S 33.9, E 18.4", CAPE_TOWN),
        ("33.9 degrees south, 18.4 degrees east", CAPE_TOWN),
        ("Coordinates: -33.9° S, 18.4° E", CAPE_TOWN),
        ("48°51'N, 2°21'E", PARIS),
        ("48° 51′ 0″ N, 2° 21′ 0″ E", PARIS),
        ("(33° 54' S, 18° 24' E)", CAPE_TOWN),
        ("Coordinates: 48°51'00.0\"N 2°21'00.0\"E", PARIS),
        # Labels
        ("Lat. 48.85, Long. 2.35", PARIS),
        ("[Lat. 48.85, Long. 2.35]", PARIS),
        ("latitude 48.85 degrees north and longitude 2.35 degrees east", PARIS),
        # The name's last word is no label of the line below
        ("City: Silly-le-Long\nLatitude: 48.85\nLongitude: 2.35", PARIS),
        ('{"city": "Silly-le-Long", "latitude": 48.85, "longitude": 2.35}', PARIS),
        ("**Latitude:** 48.85° N\n**Longitude:** 2.35° E", PARIS),
        ("lat=-33.9&lng=18.4", CAPE_TOWN),
        ("Latitude (decimal degrees): -33.9\nLongitude (decimal degrees): 18.4", CAPE_TOWN),
        # Decimal commas
        ("(48,85; 2,35)", PARIS),
        ("48,85° N, 2,35° E", PARIS),
        ("Latitude: 48,85\nLongitude: 2,35", PARIS),
        # Objects
        ("{'LOC': (48.85, 2.35)}", PARIS),
        ('{"LOC": "48.85, 2.35"}', PARIS),
        ('```json\n{"Coordinates": [48.85, 2.35]}\n```', PARIS),
        ('{"coordinates": ["48.85", "2.35"]}', PARIS),
        ('{"location": {"latitude": 48.85, "LONGITUDE": 2.35}}', PARIS),
        ('{"latitude": "48.85° N", "long": "2.35° E"}', PARIS),
        ('{"coordinates": "48.85° N, 2.35° E",}', PARIS),
        ("{'lat': 4885e-2, 'lon': 2.35, 'note': None}", PARIS),
        ('{"reasoning": "not (1, 2)", "loc": [48.85, 2.35]}', PARIS),
        ('{"clues": {"coordinates": [1, 2]}, "loc": [48.85, 2.35]}', PARIS),
        ("<coordinates>48.85, 2.35</coordinates>", PARIS),
    ],
)
def test_coordinates_are_read(written: str, latlon_deg: tuple[float, float]) -> None:
    prediction = parse_completion(written)
    assert prediction.latlon_deg == pytest.approx(latlon_deg)
    assert prediction.problem is None
    assert prediction.num_coordinate_pairs == 1


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("Country: France, 48.85, 2.35", "no coordinates"),
        ("Coordinates: 48.85; 2.35", "no coordinates"),
        ("Coordinates: 48.85", "no coordinates"),
        ("Coordinates: 48.85, 2.35, 7", "no coordinates"),
        ("Coordinates: 48,85, 2,35", "no coordinates"),
        ("N 48,85 E 2,35", "no coordinates"),
        ("Latitude: 48.85", "no coordinates"),
        ("Latitude: 48.85, 2.35", "no coordinates"),
        ("(2.35 lon, 48.85 lat)", "no coordinates"),
        ("Coordinates: 1234.5, 2.35", "no coordinates"),
        ('{"x": 2.35, "y": 48.85}', "no coordinates"),
        ('{"lat": true, "lon": NaN}', "no coordinates"),
        ("(48.85 N, 2.35 E) or (48.86 N, 2.36 E)", "2 coordinate pairs"),
        ("Coordinates: 48.85, 2.35\nCoordinates: 48.85, 2.35", "2 coordinate pairs"),
        ("48.85° N, 2.35° E (48.85, 2.35)", "2 coordinate pairs"),
        ("Lat: 48.85, Lon: 2.35 or lat: 48.86, lon: 2.36", "2 coordinate pairs"),
        ('{"lat": 48.85, "lat": 1, "lon": 2.35}', "2 coordinate pairs"),
        ('{"loc": [48.85, 2.35]} (48.85, 2.35)', "2 coordinate pairs"),
        ("(48.85 N, 49 N)", "contradictory coordinates"),
        ("(-48.85 N, 2.35 E)", "contradictory coordinates"),
        ("(48.85, +2.35 W)", "contradictory coordinates"),
        ("(N 48.85 N, 2.35)", "contradictory coordinates"),
        ("Latitude: 2.35 E, Longitude: 48.85", "contradictory coordinates"),
        ("Latitude: 48°60' N, Longitude: 2.35", "contradictory coordinates"),
        ("(lat, lon) or (lon, lat): (48.85, 2.35)", "unclear order of coordinates"),
        ("Lat: 142.6, Lon: 43.5", "out of range: (142.6, 43.5)"),
        ("(142.6, 43.5)", "out of range: (142.6, 43.5)"),
        ("(10 E, 95 N)", "out of range: (95.0, 10.0)"),
        ('{"loc": [48.85, 2.35]', "malformed JSON"),
        ('{"loc": [48.85, 2.35)}', "malformed JSON"),
        ('{"loc" [48.85, 2.35]}', "malformed JSON"),
        ('{"a": ' * 9 + "1" + "}" * 9, "malformed JSON"),
        ("<coordinates>48.85, 2.35", "<coordinates> is not closed"),
    ],
)
def test_coordinates_are_refused(written: str, problem: str) -> None:
    prediction = parse_completion(written)
    assert prediction.latlon_deg is None
    assert prediction.problem == problem


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("country: France\ncity: Paris", FRANCE),
        ("  COUNTRY: France\r\n> CITY : Paris\r\n", FRANCE),
        ("**Country:** France\n**City**: **Paris**", FRANCE),
        ("**Country: France**\n- __City__: Paris", FRANCE),
        ('1. Country: "France"\n2) City: `Paris`', FRANCE),
        ("* Country：France\n• City：Paris", FRANCE),
        ("Country: Japan State: Hokkaidō City: Biei Town Coordinates: (43.452002, 142.615358)", BIEI),
        ("Country: Japan, **State:** Hokkaidō; place: Biei Town | Latitude: 43.45", BIEI),
        ("Country: Japan\nState / Province: Hokkaidō\nCity or Place: Biei Town", BIEI),
        ("Country: Japan\nState / Administrative Region: Hokkaidō\nNearest town: Biei Town", BIEI),
        ("country name: Japan\nProvince (or state): Hokkaidō\nVillage: Biei Town", BIEI),
        ("<country>France</country><city>Paris</city>", FRANCE),
        ("<Country>\nFrance\n</Country>\n<City> Paris </city>", FRANCE),
        ('{"country": "France", "city": "Paris"}', FRANCE),
        ("Here: ```python\n{'Country': 'France', 'City': 'Paris', 'state': None}\n``` Sure.", FRANCE),
        ('{"Country": "Japan", "province_or_state": "Hokkaid\\u014d", "place": "Biei\\nTown"}', BIEI),
        ('{"FinalAnswer": {"country": "France", "city": ["Paris"]}}', FRANCE),
        ('{"clues": [{"country": "Spain"}], "country": "France", "city": "Paris"}', FRANCE),
        ("Final answer: Japan; Hokkaidō; Biei Town", BIEI),
        ("**Final Answer:** Japan; Hokkaidō; Biei Town", BIEI),
        ("<answer>Japan; Hokkaidō; Biei Town</answer>", BIEI),
        ('{"FinalAnswer": "Japan; Hokkaidō; Biei Town"}', BIEI),
        ("Country: France\nCountry: FRANCE\nCity: Paris", FRANCE),
        # Refused
        ("Japan; Hokkaidō; Biei Town", (None, None, None)),
        ("Final answer: Japan; Biei Town", (None, None, None)),
        ("It is in France. Country: France", (None, None, None)),
        ("Country:\nFrance", (None, None, None)),
        ("City/State: Paris", (None, None, None)),
        ("State: Hokkaidō\nRegion: Kamikawa\nCity: Biei", (None, None, "Biei")),
        ("Country: France\nCountry: Spain\nCity: Paris", (None, None, "Paris")),
        ("<country>France</country><country>Spain</country>", (None, None, None)),
        ('{"country": "France", "country": "Spain", "city": "Paris"}', (None, None, "Paris")),
        ('{"country": ["France", "Spain"]}', (None, None, None)),
        ('{"country": "France"} or {"country": "Spain"}', (None, None, None)),
        ("<country>France\n<city>Paris</city>", (None, None, "Paris")),
    ],
)
def test_names_are_read(written: str, names: tuple[str | None, ...]) -> None:
    prediction = parse_completion(written)
    assert (prediction.country, prediction.state, prediction.city) == names


def test_every_problem_is_named() -> None:
    assert parse_completion("Country: A\nCountry: B\nState: A\nregion: B\ncity: A, place: B").problem == (
        "2 countries; 2 states; 2 cities; no coordinates"
    )
    assert parse_completion("<country>A\n(1, 2)").problem == "<country> is not closed; no coordinates"


@pytest.mark.parametrize(
    ("text", "thinking", "answer", "problem"),
    [
        ("City: Paris", None, "City: Paris", "no coordinates"),
        ("<think>Rome?</think>City: Paris", "Rome?", "City: Paris", "no coordinates"),
        ("Rome?</think>City: Paris", "Rome?", "City: Paris", "no coordinates"),
        ("<think></think>\n<answer>City: Paris</answer>", "", "City: Paris", "no coordinates"),
        ("City: Rome <answer>City: Paris</answer> City: Oslo", None, "City: Paris", "no coordinates"),
        ("<ANSWER>City: Paris</ANSWER>", None, "City: Paris", "no coordinates"),
        (
            "<think>in <answer> tags, <think>!</think><answer>City: Paris</answer>",
            None,
            "City: Paris",
            "no coordinates",
        ),
        ("<answer>City: Paris</answer><think>Rome?</think>", "Rome?", "City: Paris", "no coordinates"),
        ("<answer>City: Paris</answer></think>", "<answer>City: Paris</answer>", "", "no coordinates"),
        ("<think>City: Paris", "City: Paris", "", "<think> is not closed"),
        ("<think>a</think>City: Paris<think>", "a", "", "<think> is not closed"),
        ("<think>a</think>City: Paris</think>City: Rome", None, "", "2 </think> tags"),
        ("<answer>City: Paris", None, "", "<answer> is not closed"),
        ("City: Paris</answer>", None, "", "</answer> without <answer>"),
        ("</answer>City: Paris<answer>", None, "", "<answer> is not closed"),
        ("<answer>City: Paris</answer><answer>City: Paris</answer>", None, "", "2 <answer> elements"),
        ("<answer><answer>City: Paris</answer>", None, "", "2 <answer> elements"),
        ("<answer><think>Rome?</think>City: Paris</answer>", "Rome?", "", "<think> inside <answer>"),
    ],
)
def test_the_answer_field_is_found_or_refused(text: str, thinking: str | None, answer: str, problem: str) -> None:
    prediction = parse_completion(text)
    assert prediction.answer == answer
    assert prediction.problem == problem
    assert prediction.city == ("Paris" if answer else None)
    if thinking is not None:
        assert prediction.thinking == thinking


GLOBE = re.compile(r"^<think>.*?</think>\s*<answer>.*?</answer>(?![\s\S])", re.DOTALL | re.MULTILINE)
TAGS = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "a", "</Think>"])


@settings(deadline=None, max_examples=500)
@given(st.one_of(st.lists(TAGS, max_size=9), st.permutations(["<think>", "</think>", "<answer>", "</answer>", "\n"])))
@example(["<think>", "</think>", "<answer>", "</answer>"])
@example(["<think>", "</think>", "<answer>", "</answer>", "\n"])
@example(["<think>", "</think>", "</think>", "\n", "<answer>", "<answer>", "</answer>"])
def test_the_tag_rule_is_globes_pattern(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert has_think_answer_tags(text) == (GLOBE.match(text) is not None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a</think><answer>(1, 2)</answer>", True),
        ("<think>a</think>\n\n<answer>\n(1, 2)\n</answer>", True),
        ("<think>a</think><answer>(1, 2)</answer>\n", False),
        ("<think>a</think> so <answer>(1, 2)</answer>", False),
        ("a</think><answer>(1, 2)</answer>", False),
        ("<Think>a</Think><answer>(1, 2)</answer>", False),
        # GLOBE's pattern takes what we cannot tell the answer of.
        ("<think>a</think><answer>(1, 2)</answer><answer>(1, 2)</answer>", True),
        ("<think>a</think></think><answer>(1, 2)</answer>", True),
    ],
)
def test_the_tags_are_a_fact_of_the_prediction(text: str, expected: bool) -> None:
    assert parse_completion(text).has_think_answer_tags is expected


LATS, LONS = st.decimals(-90, 90, places=4), st.decimals(-180, 180, places=4)


def _letters(value: object, letters: str, pattern: str) -> str:
    written = str(value)
    return pattern.format(v=written.lstrip("-"), h=letters[written.startswith("-")])


@settings(deadline=None, max_examples=500)
@given(data=st.data(), lat=LATS, lon=LONS)
def test_a_labelled_longitude_is_never_read_as_a_latitude(data: st.DataObject, lat: object, lon: object) -> None:
    style = data.draw(st.sampled_from(["words", "keys", "letters", "order"]))
    lon_first = data.draw(st.booleans())
    if style == "letters":
        pattern = data.draw(st.sampled_from(["{v} {h}", "{v}°{h}", "{h} {v}", "{h}{v}°", "{v}° {h}"]))
        pair = [_letters(lat, "NS", pattern), _letters(lon, "EW", pattern)]
        frame = data.draw(st.sampled_from(["({}, {})", "[{},{}]", "{}, {}", "Coordinates: {}, {}", "here: {} {}!"]))
    elif style == "words":
        lat_label = data.draw(st.sampled_from(["lat", "Lat.", "Latitude", "LATITUDE"]))
        lon_label = data.draw(st.sampled_from(["lon", "Long.", "Longitude", "LNG", "long"]))
        colon = data.draw(st.sampled_from([": ", " = ", " ", ":"]))
        pair = [f"{lat_label}{colon}{lat}", f"{lon_label}{colon}{lon}"]
        frame = data.draw(st.sampled_from(["{}, {}", "({}, {})", "{}\n{}", "- {}\n- {}", "{} and {}", "[{}; {}]"]))
    elif style == "keys":
        quote = data.draw(st.sampled_from(["'", '"']))
        pair = [f"{quote}latitude{quote}: {lat}", f"{quote}lng{quote}: {quote}{lon}{quote}"]
        frame = data.draw(st.sampled_from(["{{{}, {}}}", '```\n{{"a": 1, {}, {}}}```', '{{"LOC": {{{},{}}}}}']))
    else:
        pair = [str(lat), str(lon)]
        words = ("lon", "lat") if lon_first else ("lat", "lon")
        frame = data.draw(st.sampled_from(["{}/{}: ", "({}, {}): ", "{}gitude{}: "])).replace("gitude", "-")
        frame = frame.format(*words) + data.draw(st.sampled_from(["{}, {}", "({}, {})", "[{},{}]"]))
    text = frame.format(*(reversed(pair) if lon_first else pair))
    assert parse_completion(text).latlon_deg == (float(str(lat)), float(str(lon))), text


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="([{<;:|"), min_size=1)


@settings(deadline=None)
@given(
    latlon_deg=st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    country=NAMES,
    state=st.none() | NAMES,
    city=st.none() | NAMES,
    thinking=st.text(),
    in_tags=st.booleans(),
)
@example((0.0, 0.0), "-", "*", "N", "", True)
@example((0.0, 0.0), "__main__", "City:", "{}", "", False)
@example((0.0, 0.0), "1,2", "Lat", '"', "", True)
def test_a_chain_is_read_back(
    latlon_deg: tuple[float, float], country: str, state: str | None, city: str | None, thinking: str, in_tags: bool
) -> None:
    chain = chain_of_region(Example("x", "x.jpg", latlon_deg, country, state, city), 4)
    text = f"<think>{thinking.replace('<', '')}</think>\n" + (f"<answer>\n{chain}\n</answer>" if in_tags else chain)
    prediction = parse_completion(text)
    expected = tuple(round(value, 4) for value in latlon_deg)
    assert (prediction.country, prediction.state, prediction.city) == (country, state, city)
    assert prediction.latlon_deg == expected
    assert prediction.has_think_answer_tags is in_tags


@settings(deadline=None)
@given(country=NAMES.filter(lambda name: name[0] not in '*_"`'), lat=st.floats(-90, 90), lon=st.floats(-180, 180))
def test_json_and_python_literals_are_read_back(country: str, lat: float, lon: float) -> None:
    values = {"country": country, "location": {"lat": lat, "lon": lon}}
    for text in (json.dumps(values), json.dumps(values, ensure_ascii=False, indent=2), repr(values)):
        prediction = parse_completion(text)
        assert prediction.country == country
        assert prediction.latlon_deg == pytest.approx((lat, lon), abs=1e-15)


PIECES = st.sampled_from(
    (
        *("Country: ", "City: ", "Coordinates: ", "lat", "lon: ", "answer: ", '{"lat": ', "<country>", "</country>"),
        *("<answer>", "</answer>", "(", ")", "[", "{", "}", '"', "'", ",", ";", ".", "-", " N", "E", "°", "\n"),
        *("1", "90", "180"),
    )
)
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join))


@settings(deadline=None, max_examples=500)
@given(TEXTS)
@example("(1, 2)\x00\ud800")
@example('{"country": "\\ud800"}')
@example('{"lat": 1e999, "lon": "1e5"}')
@example('{"\\')
def test_any_text_gives_an_answer_in_range_or_a_problem(text: str) -> None:
    prediction = parse_completion(text)
    assert prediction.latlon_deg is not None or prediction.problem
    if prediction.latlon_deg is not None:
        assert prediction.num_coordinate_pairs == 1
        assert abs(prediction.latlon_deg[0]) <= 90
        assert abs(prediction.latlon_deg[1]) <= 180
    for name in (prediction.country, prediction.state, prediction.city):
        assert name is None or (name == name.strip() and name and "\n" not in name)


@settings(deadline=None)
@given(thinking=TEXTS, answer=TEXTS)
def test_thinking_never_changes_the_answer(thinking: str, answer: str) -> None:
    thinking = re.sub(r"(?i)</?think>", "", thinking)
    answer = re.sub(r"(?i)</?(?:think|answer)>", "", answer)
    alone = parse_completion(answer)
    thought = parse_completion(f"<think>{thinking}</think>{answer}")
    assert thought.thinking == thinking
    for field in ("country", "state", "city", "latlon_deg", "problem", "num_coordinate_pairs", "answer"):
        assert getattr(thought, field) == getattr(alone, field)


def test_a_single_wide_escape_is_one_character() -> None:
    assert parse_completion('{"country": "\\ud83d\\ude00"}').country == "\U0001f600"


HOSTILE = (
    *("(", ")", "{", "[", "{'", '{"a":', '{"a":[', "1", "1 ", "1,", "1.", " ", "\n", "<", "<think>", "</think>"),
    *("<answer>", "<country>", "Country: a ", "Country: a;", "lat ", "lat:1 ", "N 1 ", "1N,", "1°", "(1,2)", '"', "\\"),
    *("coordinates: 1,", "coordinates (", "state or ", ";", "*", "> "),
)


@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("start", ["", "(", 'lat 1 N {"a": "', "Country: x ", "coordinates: "])
def test_hostile_text_takes_linear_time(piece: str, start: str) -> None:
    text = start + piece * (1_000_000 // len(piece))
    before = time.process_time()
    parse_completion(text)
    # Measured 0.3 s at most. A quadratic pattern takes minutes.
    assert time.process_time() - before < 2
