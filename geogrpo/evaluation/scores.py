"""Predictions -> what they are worth, on two tracks: the coordinates as emitted, and the places that the names mean.

Shapes: N images.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from geogrpo.evaluation.answers import HeldOutPrediction, greedy_points, sampled_points, true_points
from geogrpo.metrics import Estimate, Metrics, Protocol, evaluate_predictions
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.names import locate

TRACKS = {"coordinates": "coordinates as emitted", "names": "names, found offline"}
"""The tracks of answers, with their titles. Samples are a row of their own on the first."""


def named_points(predictions: Sequence[HeldOutPrediction]) -> np.ndarray:
    """(N, 2) degrees of the places that the answers name, NaN where they name none that is known.

    Raises:
        ValueError: when a library of geogrpo[names] is missing.
    """
    points = [locate(p.country, p.state, p.city) or (np.nan, np.nan) for p in predictions]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def score_tracks(
    predictions: Sequence[HeldOutPrediction],
    *,
    index: RegionIndex,
    osv_index: RegionIndex | None = None,
    protocol: Protocol | None = None,
    num_samples: int = 2000,
    use_names: bool = True,
) -> dict[str, Metrics]:
    """Metrics of each track that the predictions have an answer on, and of the samples where there are some.

    Args:
        predictions: at least one.
        use_names: whether to score the track of names, which needs geogrpo[names].
        index, osv_index, protocol, num_samples: as metrics.evaluate_predictions.
    """
    truth = true_points(predictions).numpy()
    answers = {"coordinates": greedy_points(predictions).numpy()}
    if use_names and any(p.country or p.city for p in predictions):
        answers["names"] = named_points(predictions)
    is_naming_only = not any(p.predicted_latlon_deg or any(p.sampled_latlon_deg) for p in predictions)
    if is_naming_only and "names" in answers:
        # GLOBE's way of answering: all of its coordinates would be misses.
        del answers["coordinates"]
    options: dict[str, Any] = {
        "index": index,
        "osv_index": osv_index,
        "protocol": protocol,
        "num_samples": num_samples,
    }
    scored = {track: evaluate_predictions(points, truth, **options) for track, points in answers.items()}
    num_sampled = {len(p.sampled_latlon_deg) for p in predictions}
    if num_sampled != {0} and len(num_sampled) == 1:
        # Every sample counts as an answer of its own.
        samples = sampled_points(predictions).numpy()
        repeated = np.repeat(truth[:, None], samples.shape[1], axis=1).reshape(-1, 2)
        scored["samples"] = _without_intervals(evaluate_predictions(samples.reshape(-1, 2), repeated, **options))
    return scored


def _without_intervals(metrics: Metrics) -> Metrics:
    """The samples of an image resemble each other: intervals that take them for so many images would be too narrow."""

    def bare(estimates: dict[str, Estimate]) -> dict[str, Estimate]:
        return {name: Estimate(estimate.value, math.nan, math.nan) for name, estimate in estimates.items()}

    return replace(
        metrics,
        estimates=bare(metrics.estimates),
        macro_continent=bare(metrics.macro_continent),
        macro_country=bare(metrics.macro_country),
    )


def metrics_to_json(metrics: Metrics) -> dict[str, Any]:
    """As written to metrics.json: a bound that there is not is null."""
    return _finite(asdict(metrics))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def headline(metrics: Metrics) -> dict[str, Estimate]:
    """The metrics of a table that fits a page, in order."""
    names = (
        *(name for name in metrics.estimates if name.startswith("within_")),
        "median_km",
        "mean_km",
        "geoscore",
        "country_accuracy",
        "city_accuracy",
        "unparseable",
    )
    return {name: metrics.estimates[name] for name in names if name in metrics.estimates}
