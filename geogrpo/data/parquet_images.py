"""Pictures that are bytes in a Parquet column, as Hugging Face's datasets store them: binary, {bytes, path}, or a list
of such of which the first counts.

Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geogrpo.data.archives import MAX_MEMBER_BYTES
from geogrpo.data.rows import Chunk, Names, read_rows, table_files
from geogrpo.regions.tabular_parquet import import_pyarrow

BATCH_ROWS = 16
"""Rows decoded together in search of one picture: what memory holds besides a column's page."""


@dataclass(frozen=True)
class ParquetImage:
    """A picture in a Parquet file. Text: file, row and column. Opening reads its row group up to the row."""

    path: Path
    column: str
    row: int
    """Counted from 0."""

    def open(self) -> Image.Image:
        """The picture as PIL reads it.

        Raises:
            OSError, ValueError: when there is none, or it cannot be read.
        """
        content = self._bytes()
        if not content:
            raise ValueError("no picture in this row")
        if len(content) > MAX_MEMBER_BYTES:
            raise ValueError(f"{len(content):,} bytes, more than {MAX_MEMBER_BYTES:,}")
        return Image.open(BytesIO(content))

    def _bytes(self) -> bytes | None:
        file, starts = _open(self.path)
        group = int(np.searchsorted(starts, self.row, side="right")) - 1
        offset = self.row - int(starts[group])
        arrow = import_pyarrow(self.path)
        try:
            for batch in file.iter_batches(BATCH_ROWS, [group], [self.column], use_threads=False):
                if offset < len(batch):
                    return picture_bytes(batch.column(0)[offset].as_py())
                offset -= len(batch)
        except arrow.ArrowException as error:
            raise ValueError(str(error)) from error
        return None

    def __str__(self) -> str:
        return f"{self.path}: row {self.row + 1}, column {self.column!r}"


@lru_cache(maxsize=64)
def _open(path: Path) -> tuple[Any, np.ndarray]:
    """The file, and the row at which each of its groups starts."""
    file = import_pyarrow(path).parquet.ParquetFile(path, memory_map=True, pre_buffer=False)
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    return file, np.cumsum([0, *sizes[:-1]])


def picture_bytes(value: Any) -> bytes | None:
    """The bytes in a cell of any of the three kinds, None where it has none."""
    if isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, bytes) else None


def bytes_column(path: Path, names: Sequence[str]) -> str | None:
    """The first of some columns that a file has, where that holds pictures; None in other than Parquet files.

    Raises:
        ValueError: naming the file, when it cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        return None
    schema = open_parquet(path)[0].schema_arrow
    column = next((name for name in names if name in schema.names), None)
    return column if column is not None and "binary" in str(schema.field(column).type) else None


def read_rows_with_pictures(path: Path, names: Names, needed: Sequence[str]) -> Iterator[Chunk]:
    """As `read_rows`; of pictures in a column only the number of the row is given, for `ParquetImages.find`."""
    files = table_files(path)
    if bytes_column(files[0], names["image"]) is None:
        yield from read_rows(path, names, needed)
        return
    first = 0
    others = {field: columns for field, columns in names.items() if field != "image"}
    for chunk in read_rows(path, others, [field for field in needed if field != "image"]):
        rows = range(first, first + len(chunk.numbers))
        first += len(rows)
        own = chunk.columns.get("id") or [None] * len(rows)
        # A missing id would be the image's name, which is a number here, the same in two folders
        ids = [f"{chunk.file.stem}-{n}" if i is None else i for i, n in zip(own, chunk.numbers, strict=True)]
        yield replace(chunk, columns={**chunk.columns, "id": ids, "image": list(map(str, rows))})


class ParquetImages:
    """The pictures of some Parquet files, numbered through.

    Raises:
        ValueError: naming the file that cannot be read or lacks the column.
    """

    def __init__(self, files: Sequence[Path], column: str) -> None:
        self._files, self._column = list(files), column
        self._is_missing = [self._missing(file) for file in files]
        self._starts = np.cumsum([0, *map(len, self._is_missing)])

    def _missing(self, path: Path) -> np.ndarray:
        """(N,) bool: rows without a picture. Pictures are read only in row groups that say they lack some."""
        file, _ = open_parquet(path)
        leaves = [i for i, name in enumerate(file.metadata.schema.names) if name is not None]
        missing = []
        for group in range(file.num_row_groups):
            row_group = file.metadata.row_group(group)
            columns = (row_group.column(i) for i in leaves)
            (leaf,) = [c for c in columns if c.path_in_schema in self._leaf_paths()] or [None]
            statistics = None if leaf is None else leaf.statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
                missing.append(np.zeros(row_group.num_rows, bool))
                continue
            batches = file.iter_batches(BATCH_ROWS, [group], [self._column], use_threads=False)
            values = (value for batch in batches for value in batch.column(0))
            missing.append(np.array([not picture_bytes(value.as_py()) for value in values], bool))
        return np.concatenate([np.empty(0, bool), *missing])

    def _leaf_paths(self) -> tuple[str, ...]:
        name = self._column
        return (name, f"{name}.bytes", f"{name}.list.element.bytes", f"{name}.list.item.bytes", f"{name}.list.element")

    def find(self, names: Sequence[str]) -> np.ndarray:
        """(M,) int64: names are the numbers of rows over all files, from 0; -1 where the row has no picture."""
        rows = np.array([int(name) for name in names], np.int64)
        is_missing = np.concatenate([np.empty(0, bool), *self._is_missing])
        return np.where(is_missing[rows], -1, rows)

    def source(self, number: int) -> ParquetImage:
        """The picture of a row."""
        file = int(np.searchsorted(self._starts, number, side="right")) - 1
        return ParquetImage(self._files[file], self._column, number - int(self._starts[file]))

    def __str__(self) -> str:
        return ", ".join(map(str, self._files[:3]))


def open_parquet(path: Path) -> tuple[Any, np.ndarray]:
    arrow = import_pyarrow(path)
    try:
        return _open(path)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}. Is it cut short? Fetch it again.") from error
