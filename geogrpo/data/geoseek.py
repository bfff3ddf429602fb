"""GeoSeek (GeoAgent): JSON lists, of which the published tools read coordinates under several names.

Labels are "Country; Region; Place". A row without coordinates lies where `regions.names.locate` puts its label. The
reasoning (`ChainOfThought`, `FinalAnswer`) is passed to rewards as it is. What the image and the label are called is
not documented: the likely names are tried, `data.columns` names others.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.rows import Chunk
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.types import Example


def _prepare(chunk: Chunk) -> Chunk:
    """Country, state and city out of the label, where an item does not have them itself."""
    absent: list[Any] = [None] * len(chunk.numbers)
    labels = [_levels(chunk, row, label) for row, label in enumerate(chunk.columns.get("label", absent))]
    columns = dict(chunk.columns)
    for place, level in enumerate(("country", "state", "city")):
        own = chunk.columns.get(level, absent)
        columns[level] = [name or label[place] for name, label in zip(own, labels, strict=True)]
    return replace(chunk, columns=columns)


def _levels(chunk: Chunk, row: int, label: Any) -> list[str | None]:
    """Country, state, city."""
    if label is None:
        return [None] * 3
    if not isinstance(label, str):
        raise ValueError(f"{chunk.where(row)}: label must be 'Country; Region; Place', got {label!r:.80}.")
    parts = [part.strip() or None for part in label.split(";")]
    return [*parts, None, None][:3]


SCHEMA = Schema(
    names={
        "id": ("id", "sample_id"),
        "image": ("image", "image_path", "img_path", "images", "file_name", "filename"),
        "lat": ("ground_truth_lat", "lat", "latitude", "LAT"),
        "lon": ("ground_truth_lon", "lon", "lng", "longitude", "LON"),
        "country": ("country",),
        "state": ("region", "state"),
        "city": ("city", "place"),
        "label": ("label", "ground_truth", "location", "solution"),
        "ChainOfThought": ("ChainOfThought",),
        "FinalAnswer": ("FinalAnswer",),
    },
    needed=("image",),
    prepare=_prepare,
    is_located_by_name=True,
)


def read_geoseek(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The examples of a JSON list (or JSONL file), in order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="geoseek"))


def load_geoseek(config: DataConfig, seed: int) -> Splits:
    """Examples of `path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    return load_table(config, SCHEMA)
