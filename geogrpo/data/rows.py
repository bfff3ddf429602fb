"""Rows of published files as columns of the fields asked for, chunk by chunk: CSV, TSV, JSONL, JSON lists, Parquet.

Memory is constant in the number of rows. A field goes by several names, of which a file has one. Untrusted input:
whatever the bytes are, the result is rows or a ValueError that names file and row.

Shapes: N rows of a chunk.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geogrpo.regions.tabular_csv import CsvReader
from geogrpo.regions.tabular_lines import TextLines
from geogrpo.regions.tabular_parquet import import_pyarrow
from geogrpo.regions.tabular_rows import Wanted

CHUNK_ROWS = 16_384
MAX_JSON_CHARS = 2**26
"""Longest item of a JSON list; a longer one is no list of examples."""

_SEPARATOR = re.compile(r"[\s,]*")

Names = Mapping[str, Sequence[str]]
"""Field -> the columns it may be in."""


@dataclass(frozen=True)
class Chunk:
    """Consecutive rows."""

    file: Path
    unit: str
    """What `numbers` count: "row", "line" or "item"."""
    numbers: Sequence[int]
    """(N,) places in the file, from 1."""
    columns: dict[str, list[Any]]
    """Field -> (N,) values; a field that the file lacks is left out."""

    def where(self, row: int) -> str:
        """File and row in words."""
        return f"{self.file}: {self.unit} {self.numbers[row]}"


def read_rows(path: Path, names: Names, needed: Sequence[str]) -> Iterator[Chunk]:
    """The rows of a file of any known format, or of all .parquet files in a folder, in order of their names.

    Args:
        names: the fields to read.
        needed: fields without which the file is refused.
    Raises:
        ValueError: naming the file, and the row where there is one.
    """
    for file in table_files(path):
        name = file.name.lower().removesuffix(".gz")
        if name.endswith(".parquet"):
            yield from read_parquet(file, names, needed)
        elif name.endswith((".csv", ".tsv")):
            yield from read_csv(file, names, needed, delimiter="," if name.endswith(".csv") else "\t")
        elif name.endswith((".jsonl", ".json")):
            yield from objects_as_chunks(file, read_objects(file), names, needed)
        else:
            raise ValueError(f"{file}: the name must end in .csv, .tsv, .jsonl, .json (each also .gz) or .parquet.")


def table_files(path: Path) -> list[Path]:
    """The file itself, or the .parquet files of a folder.

    Raises:
        ValueError: when there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path}: no such file. Set data.path (data.test_path, data.grpo_path) to the table.")
    files = sorted(path.glob("*.parquet"))
    if not files:
        raise ValueError(f"{path}: a folder without .parquet files. Name the table itself.")
    return files


def choose_columns(file: Path, columns: Sequence[str], names: Names, needed: Sequence[str]) -> dict[str, str]:
    """Field -> the column that has it.

    Raises:
        ValueError: listing the columns, when a needed field is in none.
    """
    chosen = {field: next((name for name in names[field] if name in columns), None) for field in names}
    for field in needed:
        if chosen.get(field) is None:
            shown = ", ".join(f"{column:.60}" for column in columns[:40])
            raise ValueError(
                f"{file}: no column {' or '.join(map(repr, names[field]))} for the field {field!r}. Columns: {shown}."
                f" Say which it is: data.columns.{field}."
            )
    return {field: name for field, name in chosen.items() if name is not None}


def read_csv(file: Path, names: Names, needed: Sequence[str], *, delimiter: str) -> Iterator[Chunk]:
    """Rows of a CSV file with a header; every field is text as it stands: "NA" is Namibia."""
    header = _csv_header(file, delimiter)
    chosen = choose_columns(file, header, names, needed)
    wanted = Wanted(chosen.get("lat", header[0]), chosen.get("lon", header[0]), (), "csv")
    with closing(CsvReader(file, wanted, delimiter=delimiter)) as reader:
        places = {field: header.index(name) for field, name in chosen.items()}
        for chunk in reader.chunks(CHUNK_ROWS):
            columns = {field: [row[place] for row in chunk.rows] for field, place in places.items()}
            yield Chunk(file, "row", range(chunk.first_row, chunk.first_row + len(chunk)), columns)


def _csv_header(file: Path, delimiter: str) -> list[str]:
    lines = TextLines(file)
    try:
        header = next((fields for fields in csv.reader(iter(lines), delimiter=delimiter, strict=True) if fields), [])
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{file}: header (line {lines.number}): {error}") from error
    finally:
        lines.close()
    if len(header) < 2:
        # Empty, or separated by something else: the reader says which
        only = header[0] if header else None
        CsvReader(file, Wanted(only, only, (), "csv"), delimiter=delimiter).close()
    return header


def read_headless(file: Path, positions: Mapping[str, int], num_columns: int) -> Iterator[Chunk]:
    """Rows of tab-separated text without header and quotes, by position from 0; at least `num_columns` fields each."""
    lines = TextLines(file)
    with closing(lines):
        columns: dict[str, list[Any]] = {field: [] for field in positions}
        numbers: list[int] = []
        try:
            for line in lines:
                fields = line.rstrip("\r\n").split("\t")
                if not line.strip():
                    continue
                if len(fields) < num_columns:
                    raise ValueError(f"expected {num_columns} or more fields between tabs, got {len(fields)}.")
                for field, position in positions.items():
                    columns[field].append(fields[position])
                numbers.append(lines.number)
                if len(numbers) == CHUNK_ROWS:
                    yield Chunk(file, "line", numbers, columns)
                    columns, numbers = {field: [] for field in positions}, []
        except ValueError as error:
            raise ValueError(f"{file}: line {lines.number}: {error}") from error
        yield Chunk(file, "line", numbers, columns)


def read_parquet(file: Path, names: Names, needed: Sequence[str]) -> Iterator[Chunk]:
    """Rows of a Parquet file; of its columns only those asked for are read."""
    arrow = import_pyarrow(file)
    try:
        with arrow.parquet.ParquetFile(file, memory_map=True, pre_buffer=False) as table:
            chosen = choose_columns(file, table.schema_arrow.names, names, needed)
            first = 1
            for batch in table.iter_batches(
                CHUNK_ROWS, columns=list(dict.fromkeys(chosen.values())), use_threads=False
            ):
                batch.validate(full=True)
                columns = {field: batch.column(name).to_pylist() for field, name in chosen.items()}
                yield Chunk(file, "row", range(first, first + len(batch)), columns)
                first += len(batch)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: cannot be read as Parquet: {error}. Is it cut short? Fetch it again.") from error


def read_objects(file: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(line or item, which of the two, object) of a JSONL file, or of a JSON file that is one list of objects."""
    is_list = file.name.lower().removesuffix(".gz").endswith(".json")
    unit, number = ("item", 0) if is_list else ("line", 0)
    values = _items(file) if is_list else _lines(file)
    try:
        for number, value in values:
            if not isinstance(value, dict):
                raise ValueError(f"{file}: {unit} {number}: expected an object, got {type(value).__name__}.")
            yield number, unit, value
    except RecursionError as error:
        raise ValueError(f"{file}: after {unit} {number}: the JSON is nested too deeply.") from error
    finally:
        values.close()


def _lines(file: Path) -> Generator[tuple[int, Any], None, None]:
    lines = TextLines(file)
    try:
        for line in lines:
            if not line.isspace():
                yield lines.number, json.loads(line)
    except json.JSONDecodeError as error:
        problem = f"not valid JSON ({error.msg} at column {error.colno})"
        raise ValueError(f"{file}: line {lines.number}: {problem}. Is the file cut short?") from error
    except ValueError as error:
        raise ValueError(f"{file}: line {lines.number}: {error}") from error
    finally:
        lines.close()


def _items(file: Path) -> Generator[tuple[int, Any], None, None]:
    """(number, item) of a JSON list, of which one item and a block of text are in memory."""
    decoder, text, number, blocks = json.JSONDecoder(), "", 0, _blocks(file)
    is_open = False
    for block in blocks:
        text += block
        if not is_open and (text := text.lstrip()):
            if text[0] != "[":
                raise ValueError(f"{file}: expected a list, [ ... ], of objects. One object a line is named .jsonl.")
            text, is_open = text[1:], True
        start = 0
        while is_open:
            start = _SEPARATOR.match(text, start).end()  # type: ignore[union-attr]  # it also matches nothing
            if text.startswith("]", start):
                return
            try:
                value, start = decoder.raw_decode(text, start)
            except json.JSONDecodeError as error:
                # Cut off by the end of the block, or wrong: that shows once the text has grown
                if len(text) - start > MAX_JSON_CHARS:
                    raise ValueError(f"{file}: item {number + 1}: not valid JSON ({error.msg}).") from error
                break
            number += 1
            yield number, value
        text = text[start:]
    raise ValueError(f"{file}: item {number + 1}: not valid JSON, or the file is cut short: the list does not end.")


def _blocks(file: Path) -> Iterator[str]:
    """The text of a file, each block twice as long as the one before: a long item is tried few times."""
    decoder, num_bytes = codecs.getincrementaldecoder("utf-8-sig")(), 2**16
    try:
        with gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb") as stream:
            while block := stream.read(num_bytes):
                yield decoder.decode(block)
                num_bytes = min(2 * num_bytes, MAX_JSON_CHARS // 4)
            yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text ({error.reason}). Convert it: iconv -t UTF-8.") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file}: cannot be read further: {error}.") from error


def objects_as_chunks(
    file: Path, objects: Iterable[tuple[int, str, Mapping[str, Any]]], names: Names, needed: Sequence[str]
) -> Iterator[Chunk]:
    """Objects as columns; a key that an object lacks is None there. The needed ones must be in the first."""
    numbers: list[int] = []
    columns: dict[str, list[Any]] = {field: [] for field in names}
    unit, is_first = "line", True
    for number, unit, value in objects:
        if is_first:
            choose_columns(file, list(value), names, needed)
            is_first = False
        numbers.append(number)
        for field, candidates in names.items():
            columns[field].append(next((value[name] for name in candidates if name in value), None))
        if len(numbers) == CHUNK_ROWS:
            yield Chunk(file, unit, numbers, columns)
            numbers, columns = [], {field: [] for field in names}
    yield Chunk(file, unit, numbers, columns)
