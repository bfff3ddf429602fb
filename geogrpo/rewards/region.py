"""Rewards from regions: where the coordinates lie, what was named, and whether the two agree.

Each level counts only where the one above it is right: a city that is right in the wrong country earns nothing.
Levels that the truth does not have are left out, and the others weigh as much more.

Shapes: N completions.
"""

from typing import Any

import numpy as np

from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.regions.names import same_places
from geogrpo.types import Prediction

LEVELS = ("country", "state", "city")
LEVEL_WEIGHTS = np.array([0.2, 0.3, 0.5])


def coordinates_region(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], latlon_deg: list, **_: Any
) -> list[float]:
    """Share of country, state and city that predicted and true coordinates have in common, by the region index."""
    index = default_index()
    found = _regions(index, [p.latlon_deg for p in prediction])
    truth = _regions(index, latlon_deg)
    return chain_share(found == truth, truth >= 0).tolist()


def named_region(
    prompts: list[str],
    completions: list[str],
    *,
    prediction: list[Prediction],
    country: list[str | None],
    state: list[str | None],
    city: list[str | None],
    **_: Any,
) -> list[float | None]:
    """Share of country, state and city named rightly, in any language; None for an example without a country."""
    truth = np.array([country, state, city], dtype=object).T.reshape(-1, len(LEVELS))
    is_given = truth.astype(bool)
    earned = chain_share(is_same(names_of(prediction), truth), is_given)
    return [float(value) if given else None for value, given in zip(earned, is_given[:, 0], strict=True)]


def consistency(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], latlon_deg: list, **_: Any
) -> list[float]:
    """Share of the named levels that the coordinates lie in, 0 outside of the true country: being consistently wrong
    earns nothing.
    """
    index = default_index()
    found, truth = (_regions(index, points) for points in ([p.latlon_deg for p in prediction], latlon_deg))
    # No county is named.
    names_there = index.names(np.insert(found, 2, -1, axis=1))[:, [0, 1, 3]]
    named = names_of(prediction)
    is_named = named.astype(bool)
    share = (is_same(named, names_there) & is_named).sum(1) / is_named.sum(1).clip(min=1)
    is_right_country = (found[:, 0] == truth[:, 0]) & (found[:, 0] >= 0)
    return np.where(is_right_country, share, 0.0).tolist()


def _regions(index: RegionIndex, points: list) -> np.ndarray:
    """(N, 3) ids of country, state and city; -1 where there is none."""
    latlon_deg = np.array([point or (np.nan, np.nan) for point in points], dtype=np.float64).reshape(-1, 2)
    return index.lookup(latlon_deg).ids[:, [0, 1, 3]]


def names_of(prediction: list[Prediction]) -> np.ndarray:
    """(N, 3) names of country, state and city; None where there is none."""
    columns = [[p.country for p in prediction], [p.state for p in prediction], [p.city for p in prediction]]
    return np.array(columns, dtype=object).reshape(len(LEVELS), -1).T


def is_same(named: np.ndarray, names: np.ndarray) -> np.ndarray:
    """(N, 3) bool: two names mean the same place; states and cities are those in the country of `names`."""
    countries = names[:, 0].tolist()
    columns = [
        same_places(
            named[:, i].tolist(), names[:, i].tolist(), level=level, parent=None if level == "country" else countries
        )
        for i, level in enumerate(LEVELS)
    ]
    return np.stack(columns, axis=1)


def chain_share(is_right: np.ndarray, is_given: np.ndarray, level_weights: np.ndarray = LEVEL_WEIGHTS) -> np.ndarray:
    """(N, 3) -> (N,): weights of the given levels that are right, with all given ones above them, out of all given."""
    is_earned = np.logical_and.accumulate(is_right | ~is_given, axis=1) & is_given
    weights = np.where(is_given, level_weights, 0.0)
    return (weights * is_earned).sum(1) / np.maximum(weights.sum(1), np.finfo(float).tiny)
