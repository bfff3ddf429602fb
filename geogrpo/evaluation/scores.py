"""Predictions -> what they are worth, on each track: the coordinates as emitted, the places that the names mean, the
consensus of the samples.

Shapes: N images, K samples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import numpy as np

from geogrpo.evaluation.answers import HeldOutPrediction, common_samples, greedy_points, true_points
from geogrpo.metrics import Estimate, Metrics, Protocol, evaluate_predictions
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.names import locate
from geogrpo.uncertainty import geometric_median

TRACKS = {
    "coordinates": "coordinates as emitted",
    "names": "names, found offline",
    "consensus": "consensus of the samples",
    "samples": "every sample",
}
"""The tracks of answers, with their titles. The last has K answers to each image."""


def named_points(predictions: Sequence[HeldOutPrediction]) -> np.ndarray:
    """(N, 2) degrees of the places that the answers name, NaN where they name none that is known.

    Raises:
        ValueError: when a library of geogrpo[names] is missing.
    """
    points = [locate(p.country, p.state, p.city) or (np.nan, np.nan) for p in predictions]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def answer_points(
    predictions: Sequence[HeldOutPrediction], *, use_names: bool = True, may_be_names_only: bool = False
) -> dict[str, np.ndarray]:
    """(N, 2) degrees of each track with one answer per image, NaN where it has none.

    Args:
        predictions: at least one. Without a name there is no track of names, without two or more samples of every
            image no consensus.
        use_names: whether to find names, which needs geogrpo[names].
        may_be_names_only: whether answers without any coordinates are of a kind that has none.
    """
    points = {"coordinates": greedy_points(predictions).numpy()}
    if use_names and any(p.country or p.city for p in predictions):
        points["names"] = named_points(predictions)
    is_naming_only = may_be_names_only and not any(
        p.predicted_latlon_deg or any(p.sampled_latlon_deg) for p in predictions
    )
    if is_naming_only and "names" in points:
        # GLOBE's way of answering: all of its coordinates would be misses.
        del points["coordinates"]
    samples = common_samples(predictions)
    if samples is not None and samples.shape[1] > 1:
        points["consensus"] = geometric_median(samples)
    return points


def score_tracks(
    predictions: Sequence[HeldOutPrediction],
    *,
    index: RegionIndex,
    osv_index: RegionIndex | None = None,
    osv_labels: Mapping[str, Sequence[Any]] | None = None,
    protocol: Protocol | None = None,
    num_samples: int = 2000,
    use_names: bool = True,
    may_be_names_only: bool = False,
) -> dict[str, Metrics]:
    """Metrics of each track of answer_points, and of the samples where every image has as many.

    Args:
        predictions, use_names, may_be_names_only: as answer_points.
        index, osv_index, osv_labels, protocol, num_samples: as metrics.evaluate_predictions.
    """
    truth = true_points(predictions).numpy()
    options: dict[str, Any] = {"index": index, "osv_index": osv_index, "protocol": protocol}
    scored = {
        track: evaluate_predictions(points, truth, osv_labels=osv_labels, num_samples=num_samples, **options)
        for track, points in answer_points(
            predictions, use_names=use_names, may_be_names_only=may_be_names_only
        ).items()
    }
    samples = common_samples(predictions)
    if samples is not None:
        # Every sample counts as an answer of its own.
        per_image = samples.shape[1]
        metrics = evaluate_predictions(
            samples.reshape(-1, 2),
            np.repeat(truth, per_image, axis=0),
            osv_labels=_repeated(osv_labels, per_image),
            # Its intervals are not kept.
            num_samples=1,
            **options,
        )
        scored["samples"] = _without_intervals(metrics)
    return scored


def _repeated(labels: Mapping[str, Sequence[Any]] | None, times: int) -> Mapping[str, Sequence[Any]] | None:
    if labels is None:
        return None
    return {name: [text for text in texts for _ in range(times)] for name, texts in labels.items()}


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


def json_ready(value: Any) -> Any:
    """Dataclasses as objects; what is not finite, such as a bound that there is not, as null."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, dict):
        return {key: json_ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
