"""Rows to audit, from a table or a folder of photographs: who took each picture, where it is and what it is called.

Shapes: N rows of a batch.
"""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geogrpo.auditing.photo_ids import author_key, nsid, photo_id
from geogrpo.labelling.photographs import Photographs, find_photographs
from geogrpo.labelling.rows import Reason
from geogrpo.labelling.workers import Workers
from geogrpo.regions.tabular import table_format
from geogrpo.regions.tabular_csv import CsvChunk
from geogrpo.regions.tabular_jsonl import JsonlChunk
from geogrpo.regions.tabular_lines import TextLines
from geogrpo.regions.tabular_parquet import import_pyarrow
from geogrpo.regions.tabular_rows import LAT_NAMES, LON_NAMES, Chunk, Wanted, candidates

BATCH_ROWS = 16_384
_PEEKED_ROWS = 1000
"""Of JSONL, whose rows need not have all keys."""
NAMES = {
    "id": ("id", "img_id", "photo_id", "photoid", "flickr_id", "image_id"),
    "image": ("image", "file", "path", "img_file", "image_path", "filename", "file_name"),
    "author": ("author", "author_id", "owner", "nsid", "user_nsid", "user_id", "uid", "creator_id", "creator_username"),
    "url": ("url", "photo_url", "flickr_url", "download_url", "link"),
    "lat": LAT_NAMES,
    "lon": LON_NAMES,
}
"""Names that say so, in any case, the first of them first."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table; None for those whose names say so, or for none."""

    id: str | None = None
    image: str | None = None
    author: str | None = None
    url: str | None = None
    """Where numbers of photographs and authors are looked for too."""
    lat: str | None = None
    lon: str | None = None


@dataclass(frozen=True)
class Batch:
    """N consecutive rows."""

    ids: list[str]
    """(N,) the id column, else the image, else "row 12"; "" where the cell is empty."""
    photo_ids: list[int | None]
    authors: list[tuple[str, ...]]
    """(N,) of each row the author's column and the NSID in its id, without repeats; mostly one or none."""
    latlon_deg: np.ndarray
    """(N, 2) float64, any longitude (all that follows wraps it); both NaN where one is missing."""
    pictures: list[str]
    """(N,) paths; "" where there is no file."""


class RowSource(Protocol):
    """A table or a folder."""

    columns: Columns
    size: int
    """Total of `done`."""
    has_pictures: bool

    def batches(self) -> Iterator[Batch]:
        """All rows; can be called once. Raises ValueError naming the row that cannot be read."""

    @property
    def done(self) -> int:
        """How far it is, of `size`."""

    def close(self) -> None:
        """Let go of files."""


def open_rows(path: Path, columns: Columns, images: Path | None, num_workers: int) -> RowSource:
    """The rows of a table or a folder.

    Raises:
        ValueError: naming the path, when there is nothing that can be read, or an option that does not fit it.
    """
    if images is not None and not images.is_dir():
        raise ValueError(f"{images}: no such folder of pictures.")
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder.")
    if not path.is_dir():
        return TableRows(path, columns, images)
    given = [field.name for field in fields(columns) if getattr(columns, field.name) is not None]
    if given or images is not None:
        raise ValueError(f"{path} is a folder of photographs: it has no column {given or 'of images'}.")
    return FolderRows(path, num_workers)


class FolderRows:
    """The photographs below a folder, placed by their EXIF data. Files whose header is broken come without a place."""

    def __init__(self, folder: Path, num_workers: int) -> None:
        self.columns, self.has_pictures = Columns(), True
        self._folder, self._workers = folder, Workers(num_workers, len(find_photographs(folder)))
        self._photographs = Photographs(folder, folder, self._workers, batch_rows=BATCH_ROWS)
        self.size = self._photographs.size

    def batches(self) -> Iterator[Batch]:
        """All photographs, by path."""
        for batch in self._photographs.batches(0):
            for problem in batch.problems.values():
                # The others are no GPS, and what hashing finds out again.
                if problem.reason in (Reason.MALFORMED_GPS, Reason.OUT_OF_RANGE, Reason.NOT_UTF8_NAME):
                    raise ValueError(f"{problem.reason}: {problem.detail}")
            texts = [(name,) for name in batch.ids]
            authors = [_authors("", some) for some in texts]
            pictures = [str(self._folder / name) for name in batch.ids]
            yield Batch(batch.ids, [_photo_id(some) for some in texts], authors, batch.latlon_deg, pictures)

    @property
    def done(self) -> int:
        """Photographs read."""
        return self._photographs.done

    def close(self) -> None:
        """End the processes."""
        self._workers.close()


class TableRows:
    """The rows of a CSV, TSV, JSONL or Parquet file, with coordinates or without.

    Args:
        images: what its image paths are below; None where pictures are not looked at.
    """

    def __init__(self, path: Path, columns: Columns, images: Path | None) -> None:
        table, header = table_format(path), _header(path)
        self.columns = _chosen(path, header, columns)
        self.has_pictures = images is not None and (self.columns.image or self.columns.id) is not None
        self._images = images
        self._has_points = self.columns.lat is not None and self.columns.lon is not None
        # Readers want two columns of degrees by name and look at them only when asked: without, any other stands in.
        stand_in = self.columns.id or self.columns.image or self.columns.author or header[0]
        lat, lon = (self.columns.lat, self.columns.lon) if self._has_points else (stand_in, stand_in)
        self._reader = table.read(path, Wanted(lat, lon, (), "parquet" if table.name == "parquet" else "jsonl"))
        self.size = path.stat().st_size

    def batches(self) -> Iterator[Batch]:
        """All rows."""
        first_row = 1
        for chunk in self._reader.chunks(BATCH_ROWS):
            yield self._batch(chunk, first_row)
            first_row += len(chunk)

    def _batch(self, chunk: Chunk, first_row: int) -> Batch:
        names = ("id", "image", "url", "author")
        ids, images, urls, authors = (_texts(chunk, getattr(self.columns, name)) for name in names)
        texts = list(zip(ids, images, urls, strict=True))
        if self.columns.id is None:
            ids = [f"row {first_row + i}" for i in range(len(chunk))] if self.columns.image is None else images
        pictures = [""] * len(chunk)
        if self.has_pictures:
            pictures = [_picture(str(self._images), image or some_id) for some_id, image, _ in texts]
        keys = [_authors(author, some) for author, some in zip(authors, texts, strict=True)]
        return Batch(ids, [_photo_id(some) for some in texts], keys, self._points(chunk), pictures)

    def _points(self, chunk: Chunk) -> np.ndarray:
        if not self._has_points:
            return np.full((len(chunk), 2), np.nan)
        points = chunk.latlon_deg.copy()
        points[np.isnan(points).any(axis=1)] = np.nan
        return points

    @property
    def done(self) -> int:
        """Bytes read."""
        return self._reader.num_bytes_read

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _photo_id(texts: Sequence[str]) -> int | None:
    return next((found for text in texts if text and (found := photo_id(text)) is not None), None)


def _authors(author: str, texts: Sequence[str]) -> tuple[str, ...]:
    found = [author_key(author) if author else None, *(nsid(text) for text in texts if text)]
    return tuple(dict.fromkeys(key for key in found if key is not None))


def _picture(folder: str, name: str) -> str:
    """Where the file is: as named, with MP-16's folders joined by _ as G3 has them, or with .jpg; "" where nowhere."""
    if not name:
        return ""
    tried = (os.path.join(folder, some) for some in (name, name.replace("/", "_"), f"{name}.jpg"))
    return next((path for path in tried if os.path.isfile(path)), "")


def _header(path: Path) -> list[str]:
    """Names of the columns, at least one; of JSONL those of the first rows."""
    name = table_format(path).name
    if name == "parquet":
        pyarrow = import_pyarrow(path)
        try:
            columns = list(pyarrow.parquet.read_schema(path).names)
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    else:
        with closing(TextLines(path)) as lines:
            try:
                texts = (line for line in lines if not line.isspace())
                columns = _json_keys(texts) if name == "jsonl" else _csv_header(path, texts)
            except (ValueError, csv.Error, RecursionError) as error:
                raise ValueError(f"{path}: line {lines.number}: {error}") from error
    if not columns:
        raise ValueError(f"{path}: no columns; the file is empty.")
    return columns


def _json_keys(lines: Iterator[str]) -> list[str]:
    rows = (json.loads(line) for line in islice(lines, _PEEKED_ROWS))
    return list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))


def _csv_header(path: Path, lines: Iterator[str]) -> list[str]:
    delimiter = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    return next(csv.reader(lines, delimiter=delimiter, strict=True), [])


def _chosen(path: Path, header: Sequence[str], given: Columns) -> Columns:
    chosen = {}
    for field in fields(given):
        name = getattr(given, field.name)
        found = candidates(header, name, NAMES[field.name])
        if name is not None and not found:
            raise ValueError(f"{path}: no column {name!r}. Columns: {', '.join(f'{x:.60}' for x in header[:40])}.")
        if len(found) > 1 and field.name in ("lat", "lon"):
            raise ValueError(f"{path}: {len(found)} columns for {field.name}: {', '.join(found)}. Name one.")
        by_name = {x.strip().lower(): x for x in reversed(found)}
        first = next((known for known in NAMES[field.name] if known in by_name), None)
        chosen[field.name] = name or (by_name[first] if first is not None else None)
    if (chosen["lat"] is None) != (chosen["lon"] is None):
        raise ValueError(f"{path}: one of latitude and longitude without the other. Columns: {', '.join(header[:40])}.")
    return Columns(**chosen)


def _texts(chunk: Chunk, column: str | None) -> list[str]:
    """(N,) values of a column, "" where there is none or it is no text or number."""
    if column is None:
        return [""] * len(chunk)
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
    # JSON can hold half a surrogate pair, which no file can.
    return str(value).encode("utf-8", "replace").decode()
