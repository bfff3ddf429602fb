"""Rewards from place names as other systems compute them. Ours is region.named_region.

Shapes: N completions.
"""

from typing import Any

import numpy as np

from geogrpo.regions.names import locate
from geogrpo.rewards.distance import distances_km, geoagent
from geogrpo.rewards.region import chain_share, is_same, names_of
from geogrpo.types import Prediction

CITY_SHARE = 0.8
"""GLOBE's alpha: what of the accuracy hangs on the city, once the country is right."""
MIN_OVERLAP = 0.7
"""GLOBE's code: one name lies in the other and is at least this much of its length."""
GEOVISTA_BETA = 2.0
GEOAGENT_WEIGHTS = np.array([0.1, 0.6, 0.3])


def globe_exact(
    prompts: list[str],
    completions: list[str],
    *,
    prediction: list[Prediction],
    country: list[str | None],
    city: list[str | None],
    **_: Any,
) -> list[float]:
    """GLOBE as printed (arXiv 2506.14674): 0.2 for the country, 1 with the city, names equal apart from case.

    The paper's alpha is not published; 0.8 is the code's.
    """
    return _globe_accuracy(prediction, country, city, lambda named, truth: named == truth)


def globe_substring(
    prompts: list[str],
    completions: list[str],
    *,
    prediction: list[Prediction],
    country: list[str | None],
    city: list[str | None],
    **_: Any,
) -> list[float]:
    """GLOBE as its code computes it: names match when one lies in the other and is at least 0.7 of its length.

    So Niger is Nigeria and Oman is Roman, but the USA is not the United States; `named_region` knows.
    """
    return _globe_accuracy(prediction, country, city, _overlaps)


def geovista(
    prompts: list[str],
    completions: list[str],
    *,
    prediction: list[Prediction],
    country: list[str | None],
    state: list[str | None],
    city: list[str | None],
    **_: Any,
) -> list[float]:
    """GeoVista (arXiv 2511.15705): 4 for the right city, else 2 for the state, else 1 for the country, else 0."""
    is_right = _right_names(prediction, country, state, city)
    earned = np.array([1.0, GEOVISTA_BETA, GEOVISTA_BETA**2])
    return np.where(is_right, earned, 0.0).max(1).tolist()


def geoagent_semantic(
    prompts: list[str],
    completions: list[str],
    *,
    prediction: list[Prediction],
    country: list[str | None],
    state: list[str | None],
    city: list[str | None],
    **_: Any,
) -> list[float]:
    """GeoAgent (arXiv 2602.12617), its semantic part: 0.1 for the country, 0.6 for the state, 0.3 for the city, each
    only below a right level. There a sentence embedding says how alike two names are, here they mean one place or not;
    levels that the truth does not have are left out, and the others weigh as much more.
    """
    is_given = _truth(country, state, city).astype(bool)
    return chain_share(_right_names(prediction, country, state, city), is_given, GEOAGENT_WEIGHTS).tolist()


def geoagent_spatial(
    prompts: list[str],
    completions: list[str],
    *,
    prediction: list[Prediction],
    country: list[str | None],
    state: list[str | None],
    city: list[str | None],
    **_: Any,
) -> list[float]:
    """GeoAgent (arXiv 2602.12617), its spatial part: exp(-d / 200) between where the named place is and where the
    true names are, 0 from 2000 km. Both are found offline (regions.names.locate) instead of by a paid geocoder.
    """
    named = [locate(p.country, p.state, p.city) for p in prediction]
    truth = [locate(*levels) for levels in zip(country, state, city, strict=True)]
    return geoagent(distances_km(named, truth)).tolist()


def _globe_accuracy(
    prediction: list[Prediction], country: list[str | None], city: list[str | None], matches: Any
) -> list[float]:
    earned = []
    for p, true_country, true_city in zip(prediction, country, city, strict=True):
        is_country = _matches(matches, p.country, true_country)
        is_city = is_country and _matches(matches, p.city, true_city)
        # The code's own values, in which 1 - 0.8 is not 0.19999999999999996
        earned.append(1.0 if is_city else round(1 - CITY_SHARE, 9) if is_country else 0.0)
    return earned


def _matches(matches: Any, named: str | None, truth: str | None) -> bool:
    if not named or not truth:
        return False
    return bool(matches(named.strip().casefold(), truth.strip().casefold()))


def _overlaps(a: str, b: str) -> bool:
    shorter, longer = sorted((a, b), key=len)
    return shorter in longer and len(shorter) >= MIN_OVERLAP * len(longer)


def _right_names(
    prediction: list[Prediction], country: list[str | None], state: list[str | None], city: list[str | None]
) -> np.ndarray:
    """(N, 3) bool: country, state and city are named rightly, each for itself, in the true country."""
    return is_same(names_of(prediction), _truth(country, state, city))


def _truth(country: list[str | None], state: list[str | None], city: list[str | None]) -> np.ndarray:
    return np.array([country, state, city], dtype=object).T.reshape(-1, 3)
