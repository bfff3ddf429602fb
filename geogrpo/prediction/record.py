"""The one record that every output is made of: what is not in it is not revealed.

Without a limit it holds the answer as the model gave it. With one it holds names from the region index alone, down to
that level: the model's own words, for which "Country: France, 48.85 north" is as good as any, and every number from
which a position could be told are left out, and so is the position that the photograph itself carries.
"""

from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from geogrpo.prediction.estimate import SHOWN_LEVELS, Alternative, PlaceEstimate, distance_km, regions_of
from geogrpo.regions.index import RegionIndex

GRANULARITIES = SHOWN_LEVELS
"""Levels that the answer can be limited to."""
DECIMALS = 6
"""Of degrees; a model's own coordinates have fewer."""


def place_record(
    image: str,
    estimate: PlaceEstimate,
    index: RegionIndex,
    *,
    own_latlon_deg: tuple[float, float] | None = None,
    gps_problem: str | None = None,
    granularity: str | None = None,
) -> dict[str, Any]:
    """The estimate as JSON knows it.

    Args:
        image: what the outputs call the photograph.
        index: names the photograph's own position.
        own_latlon_deg, gps_problem: as read_photograph gives them.
        granularity: one of GRANULARITIES; None reveals everything.
    """
    if granularity is not None:
        return _limited(image, estimate, index, own_latlon_deg, granularity)
    said = estimate.said
    return {
        "image": image,
        "country": said.country,
        "state": said.state,
        "city": said.city,
        "latlon_deg": _rounded(estimate.latlon_deg),
        "is_from_names": estimate.is_from_names,
        "regions": asdict(estimate.regions),
        "num_samples": estimate.num_samples,
        "radius_50_km": _rounded_km(estimate.radius_50_km),
        "radius_90_km": _rounded_km(estimate.radius_90_km),
        "agreement": {level: round(share, 4) for level, share in estimate.agreement.items()},
        "alternatives": list(map(_alternative, estimate.alternatives)),
        "reasoning": said.thinking,
        "text": said.text,
        "problem": said.problem,
        "truth": _truth(estimate, index, own_latlon_deg),
        "gps_problem": gps_problem,
    }


def _alternative(alternative: Alternative) -> dict[str, Any]:
    return {
        "share": round(alternative.share, 4),
        "latlon_deg": _rounded(alternative.latlon_deg),
        **asdict(alternative.regions),
        "holds_answer": alternative.holds_answer,
    }


def _truth(
    estimate: PlaceEstimate, index: RegionIndex, own_latlon_deg: tuple[float, float] | None
) -> dict[str, Any] | None:
    if own_latlon_deg is None:
        return None
    km = None if estimate.latlon_deg is None else distance_km(own_latlon_deg, estimate.latlon_deg)
    return {
        "latlon_deg": _rounded(own_latlon_deg),
        **asdict(regions_of(own_latlon_deg, index)),
        "distance_km": _rounded_km(km),
    }


def _limited(
    image: str,
    estimate: PlaceEstimate,
    index: RegionIndex,
    own_latlon_deg: tuple[float, float] | None,
    granularity: str,
) -> dict[str, Any]:
    levels = SHOWN_LEVELS[: SHOWN_LEVELS.index(granularity) + 1]
    names = {level: getattr(estimate.regions, level) for level in levels}
    truth = None
    if own_latlon_deg is not None:
        own = regions_of(own_latlon_deg, index)
        truth = {level: getattr(own, level) for level in levels}
        truth["is_right"] = names["country"] is not None and names == truth
    return {
        # A folder may be called after what is not to be revealed.
        "image": PurePath(image).name,
        "granularity": granularity,
        **names,
        "num_samples": estimate.num_samples,
        "agreement": {level: round(estimate.agreement[level], 4) for level in levels if level in estimate.agreement},
        "truth": truth,
    }


def _rounded(latlon_deg: tuple[float, float] | None) -> list[float] | None:
    return None if latlon_deg is None else [round(float(degrees), DECIMALS) + 0.0 for degrees in latlon_deg]


def _rounded_km(km: float | None) -> float | None:
    return None if km is None else round(km, 3)
