"""Rewards for the form of an answer: whether it can be read, its tags, the length of its reasoning."""

from typing import Any

from geogrpo.types import Prediction

SHORT_CHARS, LONG_CHARS = 90, 200
"""GeoAgent (arXiv 2602.12617): reasoning below the one earns nothing, above the other all."""


def coordinate_format(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], **_: Any
) -> list[float]:
    """1 where the completion holds exactly one valid coordinate pair, else 0 (Geo-R, arXiv 2601.00388)."""
    return [float(p.latlon_deg is not None) for p in prediction]


def think_answer_tags(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], **_: Any
) -> list[float]:
    """1 where the whole completion is <think>...</think><answer>...</answer>, else 0 (GLOBE, GRE Suite, GeoAgent)."""
    return [float(p.has_think_answer_tags) for p in prediction]


def three_names(prompts: list[str], completions: list[str], *, prediction: list[Prediction], **_: Any) -> list[float]:
    """1 where country, state and city are all named, one of each, else 0 (GeoAgent's form of a place)."""
    return [float(bool(p.country and p.state and p.city)) for p in prediction]


def thinking_length(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], **_: Any
) -> list[float]:
    """0 for reasoning of at most 90 characters, 1 from 200, smoothly between (3t^2 - 2t^3); 0 without reasoning.

    The bounds are GeoAgent's (arXiv 2602.12617), which multiplies a judge's reward by such a curve; use it as a gate
    to do so.
    """
    shares = ((len(p.thinking or "") - SHORT_CHARS) / (LONG_CHARS - SHORT_CHARS) for p in prediction)
    return [t * t * (3 - 2 * t) for t in (min(max(share, 0.0), 1.0) for share in shares)]
