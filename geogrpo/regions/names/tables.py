"""What each name may mean: keys to countries, states and cities, built on first use and kept.

A state is any division between country and city: ISO 3166-2's of every depth, and GeoNames' first two levels, which
are the same state where the names agree. Shapes: P places.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from geogrpo.regions.collection import no_garbage_collection
from geogrpo.regions.names import sources
from geogrpo.regions.names.aliases import CITY_ALIASES
from geogrpo.regions.names.state_aliases import STATE_ALIASES
from geogrpo.regions.names.text import keys_of, without_affix
from geogrpo.regions.sources.geonames import Places, load_geonames

BARE_STATE_CODES = ("US", "CA", "AU", "BR")
"""Countries whose states are called by their letters alone ("TX", "NSW")."""
MOVED_DEG = 0.5
"""How far apart two records of one city may lie: Lisbon's are 1.5 km apart. Namesakes in a country lie further."""
# How sure it is that a key means a state: only the surest meanings of a key count
HAND, FIRST_LEVEL, FIRST_LEVEL_TRANSLATED, DEEPER, DEEPER_TRANSLATED, COUNTY = range(6)


@dataclass
class States:
    """Shapes: S states."""

    country: list[str]
    """Alpha-2 code of each."""
    parent: list[int]
    """The state each lies in; -1 directly under the country."""
    meanings: dict[str, dict[int, int]]
    """Key -> state -> how sure (the lower the surer)."""
    stripped: dict[str, dict[int, int]]
    """The same for keys without administrative words."""

    def add(self, country: str, parent: int) -> int:
        """A new state."""
        self.country.append(country)
        self.parent.append(parent)
        return len(self.country) - 1

    def name(self, state: int, key: str, rank: int) -> None:
        """Let a key mean a state."""
        for meanings, text in ((self.meanings, key), (self.stripped, without_affix(key, "state"))):
            if text:
                ranks = meanings.setdefault(text, {})
                ranks[state] = min(rank, ranks.get(state, rank))

    def find(self, key: str) -> dict[int, int]:
        """The states a key may mean, by how sure; names that need no administrative word taken off first."""
        bare = without_affix(key, "state")
        return self.meanings.get(key) or self.meanings.get(bare) or self.stripped.get(bare) or {}

    def line(self, state: int) -> tuple[int, ...]:
        """A state and all it lies in."""
        found: tuple[int, ...] = ()
        while state >= 0 and state not in found:
            found += (state,)
            state = self.parent[state]
        return found


@dataclass(frozen=True)
class Cities:
    """Places and what each key means. A meaning is a place, or ~place where the key is an alternate name only."""

    latlon_deg: np.ndarray
    """(P, 2) float64."""
    population: np.ndarray
    """(P,) int64."""
    country: list[str]
    state: np.ndarray
    """(P,) int32: the first-level state; -1 for none."""
    county: np.ndarray
    """(P,) int32: the second-level state; -1 for none."""
    meanings: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tables:
    countries: dict[str, str]
    """Key -> alpha-2 code."""
    states: States
    cities: Cities


@cache
def load_tables() -> Tables:
    """All tables, read once per process: 2.7 s of CPU time, 0.6 s more where GeoNames is not read yet,
    and 310 MB.

    Raises:
        ValueError: when a library is missing.
    """
    with no_garbage_collection():
        places = load_geonames()
        states = _iso_states()
        state, county = _place_states(places, states)
        countries = _countries(places, states)
        return Tables(countries, states, _cities(places, state, county, countries, states))


def _countries(places: Places, states: States) -> dict[str, str]:
    """By hand before English before codes; among other languages what most of them mean, then the more populous."""
    rows = list(sources.country_names())
    # the labels of the region index, of which two are in no other source
    labels = set(zip(places.country_code, places.country, strict=True))
    rows += [sources.CountryName(code, name, 1) for code, name in sorted(labels)]
    population = sources.country_populations()
    votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    found: dict[str, str] = {}
    sure: dict[str, int] = {}
    for row, key in zip(rows, keys_of(row.name for row in rows), strict=True):
        if row.rank == 3:
            votes[key][row.code] += 1
        elif row.rank < sure.get(key, 3):
            found[key], sure[key] = row.code, row.rank
    for key, codes in votes.items():
        # some languages call a country by a part of it: the United Kingdom England, Tunisia Tunis
        parts = {states.country[state] for state, rank in states.meanings.get(key, {}).items() if rank <= FIRST_LEVEL}
        if key and key not in found and parts.isdisjoint(codes):
            found[key] = max(codes, key=lambda code: (codes[code], population.get(code, 0), code))
    return found


def _iso_states() -> States:
    states = States([], [], {}, {})
    rows = sources.subdivisions()
    state_of = {row.code: states.add(row.code[:2], -1) for row in rows}
    named: list[tuple[int, str, int]] = []
    for row in rows:
        state, is_first = state_of[row.code], row.parent is None
        states.parent[state] = -1 if is_first else state_of.get(str(row.parent), -1)
        num_hand = len(STATE_ALIASES[row.code].split("; ")) if row.code in STATE_ALIASES else 0
        own, translated = (FIRST_LEVEL, FIRST_LEVEL_TRANSLATED) if is_first else (DEEPER, DEEPER_TRANSLATED)
        named += [(state, name, HAND if i < num_hand else own) for i, name in enumerate(row.names)]
        named += [(state, name, translated) for name in row.translations]
        named.append((state, row.code, own))
        if row.code[:2] in BARE_STATE_CODES:
            named.append((state, row.code[3:], own))
    for (state, _, rank), key in zip(named, keys_of(name for _, name, _ in named), strict=True):
        states.name(state, key, rank)
    return states


def _place_states(places: Places, states: States) -> tuple[np.ndarray, np.ndarray]:
    """(P,) int32 first- and second-level state of every place; those that ISO does not have are added."""
    first = [f"{code}\n{name}" if name else "" for code, name in zip(places.country_code, places.state, strict=True)]
    second = [f"{state}\n{name}" if name else "" for state, name in zip(first, places.county, strict=True)]
    state_of = {"": -1}
    for texts, level in ((first, HAND), (second, COUNTY)):
        new = [text for text in dict.fromkeys(texts) if text]
        for text, key in zip(new, keys_of(text.rpartition("\n")[2] for text in new), strict=True):
            country, parent = text[:2], state_of.get(text.rpartition("\n")[0], -1)
            state = _iso_state(states, country, key, parent, level)
            if state is None:
                state = states.add(country, parent)
            states.name(state, key, level)
            state_of[text] = state
    return tuple(np.array([state_of[text] for text in texts], dtype=np.int32) for texts in (first, second))  # type: ignore[return-value]


def _iso_state(states: States, country: str, key: str, parent: int, level: int) -> int | None:
    """The one state of a country that a GeoNames name means; None when there is none or several."""
    ranks = {state: rank for state, rank in states.find(key).items() if states.country[state] == country}
    if level == COUNTY:
        # a county may share its state's name ("New York"), or lie in another division that has its name
        ranks = {s: r for s, r in ranks.items() if s != parent and parent in (*states.line(s), -1) and r != HAND}
    surest = [state for state, rank in ranks.items() if rank == min(ranks.values())]
    return surest[0] if len(surest) == 1 else None


def _cities(places: Places, state: np.ndarray, county: np.ndarray, countries: dict[str, str], states: States) -> Cities:
    names, alternates, alternate_of = list(places.city), list[str](), list[int]()
    for city, place in _cities_that_are_places(sources.cities(), places):
        alternates += [city.name, *city.alternate_names]
        alternate_of += [place] * (1 + len(city.alternate_names))
    keys = keys_of(names + alternates)
    meanings: dict[str, tuple[int, ...]] = {}
    for place, key in enumerate(keys[: len(names)]):
        meanings[key] = (*meanings.get(key, ()), place)

    # "Mexico" is an alternate name of Mexico City: whoever repeats the country has not named the city
    region_of = {
        place: bare
        for place, key in enumerate(keys[: len(names)])
        if key.endswith(" city")
        and (
            countries.get(bare := key[:-5]) == places.country_code[place]
            or state[place] in states.meanings.get(bare, ())
        )
    }
    for place, key in zip(alternate_of, keys[len(names) :], strict=True):
        known = meanings.get(key, ())
        if place not in known and ~place not in known and region_of.get(place) != key:
            meanings[key] = (*known, ~place)
    meanings.pop("", None)
    cities = Cities(places.latlon_deg, places.population, places.country_code, state, county, meanings)
    _add_city_aliases(cities)
    return cities


def _cities_that_are_places(cities: list[sources.City], places: Places) -> Iterator[tuple[sources.City, int]]:
    """Cities of one GeoNames package with the place of the other, of another year, that each is.

    That is the place at the same spot, or the nearest within MOVED_DEG under one of the city's names.
    """
    spots = zip(places.country_code, _grid(places.latlon_deg), strict=True)
    place_of_spot = {spot: place for place, spot in enumerate(spots)}
    moved = []
    for city, spot in zip(cities, _grid(np.array([city.latlon_deg for city in cities])), strict=True):
        place = place_of_spot.get((city.country, spot))
        if place is None:
            moved.append(city)
        else:
            yield city, place
    places_named: dict[tuple[str, str], list[int]] = {
        (city.country, name): [] for city in moved for name in (city.name, *city.alternate_names)
    }
    for place, named in enumerate(zip(places.country_code, places.city, strict=True)):
        if named in places_named:
            places_named[named].append(place)
    for city in moved:
        near = [place for name in (city.name, *city.alternate_names) for place in places_named[city.country, name]]
        if near:
            apart_deg = np.abs(places.latlon_deg[near] - city.latlon_deg).max(axis=1)
            if apart_deg.min() < MOVED_DEG:
                yield city, near[int(apart_deg.argmin())]


def _grid(latlon_deg: np.ndarray) -> list[int]:
    """One number for each point to 0.0001 degrees, to which both sources of GeoNames are rounded alike."""
    lat, lon = np.rint(latlon_deg.reshape(-1, 2) * 1e4).astype(np.int64).T
    return (lat * 10_000_000 + lon).tolist()


def _add_city_aliases(cities: Cities) -> None:
    for (country, own), text in CITY_ALIASES.items():
        bearers = [max(place, ~place) for place in cities.meanings.get(own, ())]
        bearers = [place for place in bearers if cities.country[place] == country]
        if bearers:
            place = max(bearers, key=lambda place: cities.population[place])
            for key in keys_of(text.split("; ")):
                known = cities.meanings.get(key, ())
                if place not in known:
                    cities.meanings[key] = (place, *(other for other in known if other != ~place))
