"""Which polygon region each place belongs to: the one it lies in, unless its own country is as close.

Borders and places come from different sources: Natural Earth 10m puts 963 of GeoNames' 155,210 places into another
country's polygon, such as Goma, 1 km inside Congo, into Rwanda.

Shapes: P places, R polygon regions.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from geogrpo.regions.build import Polygons
from geogrpo.regions.sources.geonames import Places
from geogrpo.regions.table import ancestors_by_level

FindRegions = Callable[[Polygons, np.ndarray], np.ndarray]
"""Polygons and (N, 2) degrees -> (N,) finest region of each point, near coasts too; -1 for none."""


@dataclass(frozen=True)
class PlacePolygons:
    """Where places belong, and what had to be decided."""

    region: np.ndarray
    """(P,) int32 polygon region, -1 for none."""
    has_own_names: np.ndarray
    """(P,) bool: False where the place's state and county would contradict the region's country."""
    repairs: list[str]
    """What was decided against the borders or against the places, one line each, with a count."""


def place_polygons(places: Places, polygons: Polygons, find_regions: FindRegions) -> PlacePolygons:
    """The polygon region of each place.

    A place in a polygon whose country has another code goes to the region of its own country that holds it or lies
    within the coast tolerance. Without one it stays, as overseas departments within France and disputed areas should,
    and loses its state and county. Only two-letter codes are compared: others are of another list than the places'.

    Args:
        places: with ISO 3166-1 alpha-2 codes.
        polygons: of all layers.
        find_regions: looks points up in polygons; called once with all of them, then with those of single countries.
    """
    region = find_regions(polygons, places.latlon_deg)
    code_of_region = _country_codes(polygons)
    own_code = np.array(places.country_code, dtype=object)
    found_code = np.where(region >= 0, code_of_region[np.maximum(region, 0)], "")
    is_elsewhere = (found_code != own_code) & _are_iso(found_code) & _are_iso(own_code)
    is_moved = np.zeros(len(region), bool)
    elsewhere = np.flatnonzero(is_elsewhere)
    for code in sorted(set(own_code[elsewhere]) & set(code_of_region)):
        rows = elsewhere[own_code[elsewhere] == code]
        is_own = code_of_region == code
        found = find_regions(polygons.keep(is_own), places.latlon_deg[rows])
        rows, found = rows[found >= 0], found[found >= 0]
        region[rows] = np.flatnonzero(is_own)[found]
        is_moved[rows] = True
    decisions = (
        (is_moved, "lie in a polygon of another country; given to their own, which is within the coast tolerance"),
        (is_elsewhere & ~is_moved, "lie in a polygon of another country; left there without their state and county"),
        (region < 0, "lie in no polygon and near none; lookup never answers with them"),
    )
    return PlacePolygons(
        region=region.astype(np.int32),
        has_own_names=~is_elsewhere | is_moved,
        repairs=[f"places: {who.sum():,} of {len(who):,} {what}" for who, what in decisions if who.any()],
    )


def _country_codes(polygons: Polygons) -> np.ndarray:
    """(R,) code of the country of each region, "" where there is none."""
    country = ancestors_by_level(polygons.table.level, polygons.table.parent)[:, 0]
    return np.where(country >= 0, np.array(polygons.table.code, dtype=object)[np.maximum(country, 0)], "")


def _are_iso(codes: np.ndarray) -> np.ndarray:
    """Which codes are of two capital letters."""
    known = {code: len(code) == 2 and code.isascii() and code.isalpha() and code.isupper() for code in set(codes)}
    return np.array([known[code] for code in codes], dtype=bool)
