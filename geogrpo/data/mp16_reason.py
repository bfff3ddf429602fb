"""MP16-Reason (GLOBE, arXiv 2506.14674): the training set as Parquet with images, the test set as CSV.

Training rows hold `images` (bytes), `response` (the teacher's reasoning), `solution` ("<country>...</country>
<city>...</city>") and `entities` (objects with a "text"), and no coordinates: an example lies where
`regions.names.locate` puts its city. The test set's coordinates are those of city centres as well. The fields are
those that GLOBE's code reads; there is no data card.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.parquet_images import read_rows_with_pictures
from geogrpo.data.rows import Chunk, Names, table_files
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.types import Example

_TAGGED = re.compile(r"<(country|state|city)>\s*(.*?)\s*</\1>", re.DOTALL | re.IGNORECASE)


def _read(path: Path, names: Names, needed: Sequence[str]) -> Iterator[Chunk]:
    if table_files(path)[0].suffix.lower() != ".parquet":
        needed = ("image", "lat", "lon")
    return read_rows_with_pictures(path, names, needed)


def _prepare(chunk: Chunk) -> Chunk:
    """Country, state and city out of the tagged solution, where there are no columns of them."""
    solutions = chunk.columns.get("solution")
    if solutions is None:
        return chunk
    tagged = [_names_in(chunk, row, solution) for row, solution in enumerate(solutions)]
    levels = {level: [names.get(level) for names in tagged] for level in ("country", "state", "city")}
    return replace(chunk, columns=levels | chunk.columns)


def _names_in(chunk: Chunk, row: int, solution: Any) -> dict[str, str]:
    names = {level.lower(): name for level, name in _TAGGED.findall(solution)} if isinstance(solution, str) else {}
    if "country" not in names:
        raise ValueError(
            f"{chunk.where(row)}: solution must hold <country>...</country><city>...</city>, got {solution!r:.80}."
        )
    return names


SCHEMA = Schema(
    names={
        "id": ("id", "IMG_ID"),
        "image": ("images", "IMG_ID", "id"),
        "lat": ("LAT", "latitude"),
        "lon": ("LON", "longitude"),
        "country": ("country",),
        "city": ("city",),
        "solution": ("solution",),
        "response": ("response",),
        "entities": ("entities",),
    },
    needed=("image", "solution"),
    prepare=_prepare,
    is_located_by_name=True,
    read=_read,
)


def read_mp16_reason(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The examples of a Parquet file, a folder of such, or the test set's CSV."""
    return read_examples(path, SCHEMA, config or DataConfig(name="mp16_reason"))


def load_mp16_reason(config: DataConfig, seed: int) -> Splits:
    """Examples of `path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    return load_table(config, SCHEMA)
