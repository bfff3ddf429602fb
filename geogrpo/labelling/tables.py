"""Rows from a table with coordinates and image paths, through the streaming readers of geogrpo.regions.tabular."""

import math
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from geogrpo.labelling.rows import BATCH_ROWS, Batch, Problem, Reason, joined
from geogrpo.regions.tabular import table_format
from geogrpo.regions.tabular_csv import CsvChunk
from geogrpo.regions.tabular_jsonl import JsonlChunk
from geogrpo.regions.tabular_lines import can_be_text
from geogrpo.regions.tabular_rows import Chunk, Wanted

IMAGE_COLUMNS = ("image", "file", "path", "IMG_ID", "img_id")
"""Names that say so; IMG_ID is that of YFCC100M's and MP-16's lists."""
_EDGE_BYTES = 2**20


class Table:
    """A CSV, TSV, JSONL or Parquet file.

    Args:
        images_folder: what its relative image paths are relative to.
        output_folder: what the written paths are relative to.
        lat, lon, image: names of columns, None for those whose names say so.
    Raises:
        ValueError: naming the file, when it cannot be read or lacks a column.
    """

    def __init__(
        self,
        path: Path,
        images_folder: Path,
        output_folder: Path,
        *,
        lat: str | None,
        lon: str | None,
        image: str | None,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        table = table_format(path)
        # As if written to its own format: then no reader looks at other columns.
        self._reader = table.read(path, Wanted(lat, lon, (), table.name))
        self._batch_rows = batch_rows
        self._relative = os.path.relpath(images_folder.resolve(), output_folder.resolve())
        self.identity = file_identity(path)
        self.size = path.stat().st_size
        self._chunks = self._reader.chunks(batch_rows)
        try:
            self._first: Chunk | None = next(self._chunks)
            self._image = _image_column(path, _columns(self._reader, self._first), image)
        except ValueError:
            self.close()
            raise

    def batches(self, num_rows_done: int) -> Iterator[Batch]:
        """The rows after the first `num_rows_done`, a number of rows after some batch; can be called once."""
        num_rows, chunk = 0, self._first
        self._first = None
        while chunk is not None:
            if num_rows >= num_rows_done:
                yield self._batch(chunk, num_rows + 1)
            num_rows += len(chunk)
            chunk = next(self._chunks, None)

    def _batch(self, chunk: Chunk, first_row: int) -> Batch:
        names = _texts(chunk, self._image)
        points, problems = _points(chunk)
        problems |= {row: Problem(Reason.NO_IMAGE_NAME) for row, name in enumerate(names) if not name}
        return Batch(first_row, chunk.where, names, joined(self._relative, names), points, problems)

    @property
    def done(self) -> int:
        """Bytes read, of `size`."""
        return self._reader.num_bytes_read

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def file_identity(path: Path) -> dict[str, object]:
    """Size, and a hash of both ends: what it costs to read all of a large file is too much."""
    size = path.stat().st_size
    with path.open("rb") as file:
        ends = file.read(_EDGE_BYTES)
        file.seek(max(size - _EDGE_BYTES, 0))
        ends += file.read(_EDGE_BYTES)
    return {"bytes": size, "sha256 of its ends": sha256(ends).hexdigest()}


def _columns(reader: Any, first: Chunk) -> list[str]:
    """Names of the columns; of JSONL those of the first rows."""
    if isinstance(first, JsonlChunk):
        return list(dict.fromkeys(key for row in first.rows for key in row))
    return list(first.columns)


def _image_column(path: Path, columns: list[str], given: str | None) -> str:
    found = [name for name in columns if (name == given if given is not None else name in IMAGE_COLUMNS)]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        problem = f"{len(found)} columns of images: {', '.join(found)}. Name one with --image"
    elif given is not None:
        problem = f"no column {given!r}"
    else:
        problem = f"no column of images ({', '.join(IMAGE_COLUMNS)}). Name it with --image"
    raise ValueError(f"{path}: {problem}. Columns: {', '.join(f'{name:.60}' for name in columns[:40])}.")


def _texts(chunk: Chunk, column: str) -> list[str]:
    """(N,) values of a column, "" where there is none or it is no text or number."""
    if isinstance(chunk, CsvChunk):
        position = chunk.columns.index(column)
        return [row[position] for row in chunk.rows]
    values = (
        [row.get(column) for row in chunk.rows]
        if isinstance(chunk, JsonlChunk)
        else chunk.table().column(column).to_pylist()
    )
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    # JSON can hold half a surrogate pair.
    return str(value) if can_be_text(str(value)) else ""


def _points(chunk: Chunk) -> tuple[np.ndarray, dict[int, Problem]]:
    """(N, 2) degrees, NaN where missing, and the rows whose coordinates are no numbers."""
    try:
        return chunk.latlon_deg, {}
    except ValueError:
        # Some row is bad: which, and what of it, is told row by row.
        points, problems = np.full((len(chunk), 2), np.nan), {}
    for row, pair in enumerate(zip(*chunk.coordinate_values(), strict=True)):
        for i, column in enumerate((chunk.lat_column, chunk.lon_column)):
            number = _number(pair[i])
            if number is None:
                problems[row] = Problem(Reason.NO_NUMBER, f"{column}: {pair[i]!r:.80}")
            else:
                points[row, i] = number
    return points, problems


def _number(value: Any) -> float | None:
    """Degrees, NaN where the value is missing, None where it is none; by the rules of tabular_rows.Chunk."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    if isinstance(value, str) and (not value.isascii() or "_" in value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | float | int):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
