"""Regions for tables of any size: rows in, the same rows with the names of their regions out, chunk by chunk.

CSV, TSV, JSONL (each also .gz) and Parquet, from any to any. Memory is constant in the number of rows. The output is
written beside its place and renamed at the end: a failure leaves no half file and no lost one.

Shapes: N rows of a chunk.
"""

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.rings import MAX_LON_DEG
from geogrpo.regions.tabular_csv import CsvReader, CsvWriter
from geogrpo.regions.tabular_jsonl import JsonlReader, JsonlWriter
from geogrpo.regions.tabular_parquet import ParquetReader, ParquetWriter, import_pyarrow
from geogrpo.regions.tabular_rows import Wanted

CHUNK_ROWS = 65_536
"""Rows looked up at once. Some 100 MB of Python text at 20 columns."""
ADDED = ("country", "country_code", "state", "county", "city", "is_near_coast")


@dataclass(frozen=True)
class TableFormat:
    """How one kind of file is read and written."""

    name: str
    read: Callable[[Path, Wanted], Any]
    write: Callable[[BinaryIO], Any]
    can_be_gzipped: bool = True


FORMATS: dict[str, TableFormat] = {
    ".csv": TableFormat("csv", CsvReader, CsvWriter),
    ".tsv": TableFormat("csv", partial(CsvReader, delimiter="\t"), partial(CsvWriter, delimiter="\t")),
    ".jsonl": TableFormat("jsonl", JsonlReader, JsonlWriter),
    ".parquet": TableFormat("parquet", ParquetReader, ParquetWriter, can_be_gzipped=False),
}
"""By suffix."""


@dataclass(frozen=True)
class LookupReport:
    """What happened to the rows of a table."""

    num_rows: int
    num_without_coordinates: int
    num_near_coast: int
    num_nowhere: int
    """Rows with coordinates, but in no region of any level."""
    num_far_longitude: int
    """Rows whose longitude is folded by more than a turn: beyond MAX_LON_DEG, where data has other units."""
    lookup_s: float
    """From the first row to the last, without loading the index."""
    attributions: list[str] = field(default_factory=list)


def table_format(path: Path) -> TableFormat:
    """The format that a file's name stands for.

    Raises:
        ValueError: listing the known suffixes.
    """
    name = path.name.lower()
    found = FORMATS.get(Path(name.removesuffix(".gz")).suffix)
    if found is None or (name.endswith(".gz") and not found.can_be_gzipped):
        raise ValueError(f"{path}: the name must end in {', '.join(FORMATS)}, or one of the text formats and .gz.")
    return found


def lookup_table(
    input_path: Path,
    output_path: Path,
    load_index: Callable[[], RegionIndex],
    *,
    lat: str | None = None,
    lon: str | None = None,
    prefix: str = "",
    overwrite: bool = False,
    chunk_rows: int = CHUNK_ROWS,
    on_progress: Callable[[int, int], None] = lambda num_rows, num_bytes: None,
) -> LookupReport:
    """Write the rows of one table with the columns ADDED to another.

    Args:
        load_index: called once input and output are known to be good.
        lat, lon: names of the coordinate columns, None for those whose names say so.
        prefix: before the name of each new column.
        overwrite: whether an existing output may be replaced, which happens at the very end.
        chunk_rows: rows in memory at once; the output does not depend on it.
        on_progress: called after each chunk with the rows done and the bytes of the input read, of its size on disk.
    Raises:
        ValueError: naming file and row. Nothing is written then.
    """
    input_format, output_format = table_format(input_path), table_format(output_path)
    _check_output(output_path, overwrite)
    if output_format.name == "parquet":
        import_pyarrow(output_path)
    if not input_path.is_file():
        raise ValueError(f"{input_path}: no such file.")
    wanted = Wanted(lat, lon, tuple(prefix + name for name in ADDED), output_format.name)
    with closing(input_format.read(input_path, wanted)) as reader:
        index = load_index()
        totals, start = np.zeros(5, np.int64), time.monotonic()
        # The writer is closed also after an error: pyarrow would complain when it is collected.
        with _written_at_the_end(output_path, overwrite) as stream, closing(output_format.write(stream)) as writer:
            for chunk in reader.chunks(chunk_rows):
                added, counts = _region_columns(index, chunk.latlon_deg, prefix)
                writer.write(chunk, added)
                totals += counts
                on_progress(int(totals[0]), reader.num_bytes_read)
        lookup_s = time.monotonic() - start
    num_rows, num_without, num_near_coast, num_nowhere, num_far = totals.tolist()
    return LookupReport(num_rows, num_without, num_near_coast, num_nowhere, num_far, lookup_s, index.info.attributions)


def read_points(path: Path) -> np.ndarray:
    """(N, 2) degrees: the coordinates of a table's rows, without the rows that have none.

    Raises:
        ValueError: naming the file, and the row where there is one, when it cannot be read or no row has coordinates.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file.")
    with closing(table_format(path).read(path, Wanted(None, None, (), "csv"))) as reader:
        points = np.concatenate([np.empty((0, 2)), *(chunk.latlon_deg for chunk in reader.chunks(CHUNK_ROWS))])
    points = points[~np.isnan(points).any(axis=1)]
    if len(points) == 0:
        raise ValueError(f"{path}: no row has coordinates.")
    is_far = np.abs(points[:, 1]) > 180
    points[is_far, 1] = (points[is_far, 1] + 180) % 360 - 180
    return points


def _region_columns(index: RegionIndex, latlon_deg: np.ndarray, prefix: str) -> tuple[dict[str, list], list[int]]:
    """(N,) values of each new column; numbers of rows as LookupReport has them first."""
    found = index.lookup(latlon_deg)
    country, state, county, city = index.names(found.ids).T.tolist()
    values = (country, index.codes(found.country).tolist(), state, county, city, found.is_near_coast.tolist())
    is_missing = np.isnan(latlon_deg).any(axis=1)
    is_nowhere = (found.ids < 0).all(axis=1) & ~is_missing
    is_far = ~is_missing & (np.abs(latlon_deg[:, 1]) > MAX_LON_DEG)
    counts = [len(latlon_deg), *(int(who.sum()) for who in (is_missing, found.is_near_coast, is_nowhere, is_far))]
    return {prefix + name: column for name, column in zip(ADDED, values, strict=True)}, counts


def _check_output(path: Path, overwrite: bool) -> None:
    if path.is_dir() or not path.parent.is_dir():
        problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise ValueError(f"{path}: {problem}.")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists. --overwrite replaces it.")


@contextmanager
def _written_at_the_end(path: Path, overwrite: bool) -> Iterator[BinaryIO]:
    """A stream into a temporary file that takes the place of `path` if all goes well, and is removed if not."""
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        # Exclusive: two runs that write one file would mix their rows.
        file = temporary.open("xb")
    except FileExistsError as error:
        raise ValueError(f"{temporary} exists: another run is writing it; if none is, remove it.") from error
    try:
        with file:
            if path.suffix.lower() == ".gz":
                # Without name and time, equal rows are equal bytes.
                with gzip.GzipFile("", "wb", 6, file, 0) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield file
        # It may have come into being while the rows were written.
        _check_output(path, overwrite)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
