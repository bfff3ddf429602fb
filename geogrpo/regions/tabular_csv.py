"""CSV and TSV in chunks of rows.

Fields are text and pass through as they are: "NA" is Namibia, leading zeros stay. Towards JSONL and Parquet only the
two coordinates become numbers. Untrusted input: whatever the bytes are, the result is rows or a ValueError that names
file and row.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from geogrpo.regions.tabular_lines import TextLines, can_be_text
from geogrpo.regions.tabular_rows import Chunk, Wanted, check_added, check_unique, find_coordinates

_JSON_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


@dataclass
class CsvChunk(Chunk):
    """Rows of text."""

    reader: "CsvReader"
    rows: list[list[str]]
    lines: list[int]
    """Where each row starts."""
    first_row: int
    """Counted from 1, without the header."""

    def __post_init__(self) -> None:
        self.columns = self.reader.columns
        self.lat_column, self.lon_column = self.reader.coordinates
        self._positions = [self.columns.index(name) for name in self.reader.coordinates]

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, row: int) -> str:
        return self.reader.where(self.first_row + row, self.lines[row])

    def coordinate_values(self) -> tuple[list[str], list[str]]:
        lat, lon = self._positions
        return [row[lat] for row in self.rows], [row[lon] for row in self.rows]

    def texts(self) -> Iterator[list[str]]:
        return iter(self.rows)

    def objects(self) -> Iterator[str]:
        keys = [f"{_ENCODE(column)}: " for column in self.columns]
        for row, degrees in zip(self.rows, self.latlon_deg.tolist(), strict=True):
            values = [_ENCODE(text) for text in row]
            for position, number in zip(self._positions, degrees, strict=True):
                text = row[position]
                values[position] = (
                    text if _JSON_NUMBER.fullmatch(text) else "null" if number != number else repr(number)
                )
            yield "{" + ", ".join(map(str.__add__, keys, values))

    def table(self) -> Any:
        import pyarrow

        columns: list[Any] = [list(column) for column in zip(*self.rows, strict=True)] or [[] for _ in self.columns]
        arrays = [pyarrow.array(column, pyarrow.string()) for column in columns]
        for position, degrees in zip(self._positions, self.latlon_deg.T, strict=True):
            arrays[position] = pyarrow.array(degrees, pyarrow.float64(), from_pandas=True)
        return pyarrow.table(dict(zip(self.columns, arrays, strict=True)))


class CsvReader:
    """Rows of a CSV file with a header; quoted as in RFC 4180, any line end. Blank lines are left out."""

    def __init__(self, path: Path, wanted: Wanted, *, delimiter: str = ",") -> None:
        self._path, self._lines = path, TextLines(path)
        # strict: a quote that is never closed would otherwise swallow the rest of the file in silence.
        self._csv = csv.reader(iter(self._lines), delimiter=delimiter, strict=True)
        try:
            self.columns = next((fields for fields in self._csv if fields), [])
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path}: header (line {self._lines.number}): {_problem(error)}") from error
        if not self.columns:
            raise ValueError(f"{path}: no header line; the file is empty.")
        self._check_delimiter(delimiter)
        self.coordinates = find_coordinates(str(path), self.columns, wanted)
        check_added(str(path), self.columns, wanted)
        if wanted.output != "csv":
            check_unique(str(path), self.columns)

    def _check_delimiter(self, delimiter: str) -> None:
        other = next((mark for mark in ",;\t|" if mark != delimiter and mark in self.columns[0]), None)
        if len(self.columns) == 1 and other is not None:
            hint = {",": "name it .csv", "\t": "name it .tsv"}.get(other, f"write it with {delimiter!r}")
            raise ValueError(f"{self._path}: the columns are separated by {other!r}, expected {delimiter!r}: {hint}.")

    def where(self, row: int, line: int) -> str:
        """File and row in words."""
        return f"{self._path}: row {row} (line {line})"

    def chunks(self, chunk_rows: int) -> Iterator[CsvChunk]:
        """All rows, `chunk_rows` at a time. Rows before a broken one come first; at least one chunk, maybe empty."""
        chunk = CsvChunk(self, [], [], first_row=1)
        line = self._csv.line_num + 1
        try:
            for fields in self._csv:
                if fields:
                    if len(fields) != len(self.columns):
                        raise ValueError(f"expected {len(self.columns)} fields as in the header, got {len(fields)}.")
                    chunk.rows.append(fields)
                    chunk.lines.append(line)
                line = self._csv.line_num + 1
                if len(chunk) == chunk_rows:
                    yield chunk
                    chunk = CsvChunk(self, [], [], first_row=chunk.first_row + chunk_rows)
        except (ValueError, csv.Error) as error:
            yield chunk
            raise ValueError(f"{self.where(chunk.first_row + len(chunk), line)}: {_problem(error)}") from error
        if len(chunk) or chunk.first_row == 1:
            yield chunk

    @property
    def num_bytes_read(self) -> int:
        """Of the file as it is on disk."""
        return self._lines.num_bytes_read

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def _problem(error: Exception) -> str:
    if not isinstance(error, csv.Error):
        return str(error)
    if "new-line" in str(error):
        return "a carriage return outside quotes. Are these old Mac line ends? Convert them: tr '\\r' '\\n'."
    return f"{error}. Is a quote not closed, or not doubled inside quotes?"


class CsvWriter:
    """CSV with a header; fields are quoted where they must be, lines end with a line feed."""

    def __init__(self, stream: BinaryIO, *, delimiter: str = ",") -> None:
        self._stream, self._delimiter, self._has_header = stream, delimiter, False

    def write(self, chunk: Chunk, added: dict[str, list[Any]]) -> None:
        """Rows with new columns. None becomes the empty field, a bool true or false."""
        if not self._has_header:
            self._stream.write(self._encoded([[*chunk.columns, *added]]))
            self._has_header = True
        extra = zip(*([_plain_text(value) for value in column] for column in added.values()), strict=True)
        rows = [[*fields, *values] for fields, values in zip(chunk.texts(), extra, strict=True)]
        try:
            self._stream.write(self._encoded(rows))
        except ValueError as error:
            row = next(i for i, fields in enumerate(rows) if not can_be_text("".join(fields)))
            raise ValueError(f"{chunk.where(row)}: holds {error}, which CSV cannot hold.") from error

    def _encoded(self, rows: list[list[str]]) -> bytes:
        text = self._text(rows, "\n")
        if "\r" in text:
            # Only with \r in the line end does Python quote a field that holds one.
            text = "".join(self._text([row], "\r\n").removesuffix("\r\n") + "\n" for row in rows)
        if not can_be_text(text):
            raise ValueError("a NUL character or half a surrogate pair")
        return text.encode()

    def _text(self, rows: list[list[str]], line_end: str) -> str:
        buffer = io.StringIO(newline="")
        csv.writer(buffer, delimiter=self._delimiter, lineterminator=line_end).writerows(rows)
        return buffer.getvalue()

    def close(self) -> None:
        """Nothing is left to write."""


def _plain_text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else value
