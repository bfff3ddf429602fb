"""All that an evaluation measures of its answers, and metrics.json."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geogrpo.evaluation.answers import HeldOutPrediction, true_points
from geogrpo.evaluation.comparison import Comparison, compare
from geogrpo.evaluation.confidence import TARGET_ACCURACY, Uncertainty, measure_uncertainty
from geogrpo.evaluation.floors import Floors, measure_floors
from geogrpo.evaluation.foreign import ForeignAnswer
from geogrpo.evaluation.osv import osv_labels
from geogrpo.evaluation.scores import json_ready, score_tracks
from geogrpo.metrics import Metrics, Protocol, osv_index
from geogrpo.regions.index import RegionIndex
from geogrpo.types import Example


@dataclass(frozen=True)
class Other:
    """Answers to compare with."""

    name: str
    """As the user named them."""
    answers: Mapping[str, ForeignAnswer]
    """By id."""


@dataclass(frozen=True)
class Measures:
    """What is measured, and how."""

    protocol: Protocol
    bootstrap_samples: int
    """Resamples behind each interval."""
    seed: int
    """Of the draws behind the floors."""
    use_osv: bool = False
    """OSV-5M's administrative accuracy, too; needs reverse_geocoder."""
    target_accuracy: float = TARGET_ACCURACY
    """Of answers at the levels that they are backed off to."""
    allow_missing: bool = False
    """Whether a comparison may leave out images that the other evaluation lacks."""


@dataclass(frozen=True)
class Findings:
    """What was measured."""

    num_images: int
    """That are scored."""
    num_unreadable: int
    """That could not be read and are left out."""
    num_without_prediction: int
    """That are scored as misses, as the file of predictions has no row for them."""
    scored: dict[str, Metrics]
    """Track -> metrics."""
    floors: Floors
    uncertainty: Uncertainty | None
    """None without two or more samples of every image."""
    comparison: Comparison | None
    osv_labels_from: str | None
    """Where OSV-5M's labels are from: "columns" of the data, or "coordinates"; None without its accuracy."""

    def to_json(self) -> dict[str, Any]:
        """As in metrics.json."""
        return {
            "num_images": self.num_images,
            "num_unreadable": self.num_unreadable,
            "num_without_prediction": self.num_without_prediction,
            "tracks": {track: json_ready(metrics) for track, metrics in self.scored.items()},
            "osv_labels": self.osv_labels_from,
            "floors": json_ready(self.floors),
            "uncertainty": self.uncertainty.to_json() if self.uncertainty else None,
            "comparison": json_ready(self.comparison) if self.comparison else None,
        }


def measure(
    predictions: Sequence[HeldOutPrediction],
    examples: Mapping[str, Example],
    measures: Measures,
    index: RegionIndex,
    *,
    other: Other | None = None,
    unanswered: Collection[str] = (),
    num_unreadable: int = 0,
    are_foreign: bool = False,
) -> Findings:
    """Everything of metrics.json.

    Args:
        predictions: at least one.
        examples: by id, of every prediction.
        index: says which regions points are in.
        other: to compare with; None for nothing.
        unanswered: ids of predictions that only stand for a missing row; no comparison is made on them.
        num_unreadable: images that were left out.
        are_foreign: whether a file without coordinates is one of names, not of a model that failed at coordinates.
    Raises:
        ValueError: as comparison.compare; when reverse_geocoder is missing.
    """
    labels = osv_labels(predictions, examples) if measures.use_osv else None
    options: dict[str, Any] = {
        "index": index,
        "osv_index": osv_index() if measures.use_osv else None,
        "osv_labels": labels,
        "protocol": measures.protocol,
        "num_samples": measures.bootstrap_samples,
    }
    comparison = None
    if other is not None:
        comparison = compare(
            predictions,
            other.answers,
            name=other.name,
            unanswered=unanswered,
            allow_missing=measures.allow_missing,
            **options,
        )
    return Findings(
        num_images=len(predictions),
        num_unreadable=num_unreadable,
        num_without_prediction=len(unanswered),
        scored=score_tracks(predictions, may_be_names_only=are_foreign, **options),
        floors=measure_floors(true_points(predictions).numpy(), index, protocol=measures.protocol, seed=measures.seed),
        uncertainty=measure_uncertainty(
            predictions,
            index,
            target_accuracy=measures.target_accuracy,
            bootstrap_samples=measures.bootstrap_samples,
        ),
        comparison=comparison,
        osv_labels_from=None if not measures.use_osv else "coordinates" if labels is None else "columns",
    )
