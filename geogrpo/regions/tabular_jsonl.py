"""JSONL in chunks of rows.

Towards JSONL every line keeps its bytes and grows at its end. Towards CSV numbers keep their text and nested values
become JSON text; towards Parquet a column is int64, float64 or bool where every value fits, else such text.
Untrusted input: whatever the bytes are, the result is rows or a ValueError that names file and line.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from geogrpo.regions.tabular_lines import TextLines, can_be_text
from geogrpo.regions.tabular_rows import (
    LAT_NAMES,
    LON_NAMES,
    Chunk,
    Wanted,
    candidates,
    check_added,
    find_coordinates,
)

MAX_COLUMNS = 10_000
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode


class _Number(str):
    """A number of a JSON file, as its text: 48.10 stays 48.10."""

    __slots__ = ()


_DECODE = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_Number).decode


@dataclass
class JsonlChunk(Chunk):
    """Objects, and the lines they were read from."""

    reader: "JsonlReader"
    rows: list[dict[str, Any]]
    raw: list[str]
    lines: list[int]

    def __post_init__(self) -> None:
        self.columns = list(self.reader.kinds)
        self.lat_column, self.lon_column = self.reader.coordinates

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, row: int) -> str:
        return self.reader.where(self.lines[row])

    def coordinate_values(self) -> tuple[list[Any], list[Any]]:
        return [row.get(self.lat_column) for row in self.rows], [row.get(self.lon_column) for row in self.rows]

    def texts(self) -> Iterator[list[str]]:
        return ([_json_as_text(row.get(column)) or "" for column in self.columns] for row in self.rows)

    def objects(self) -> Iterator[str]:
        return (line.strip()[:-1].rstrip() for line in self.raw)

    def table(self) -> Any:
        import pyarrow

        degrees = dict(zip(self.reader.coordinates, self.latlon_deg.T, strict=True))
        arrays = {}
        for column in self.columns:
            if column in degrees:
                arrays[column] = pyarrow.array(degrees[column], pyarrow.float64(), from_pandas=True)
                continue
            convert, kind = _ARROW_KINDS[self.reader.kind(column)]
            values = [None if row.get(column) is None else convert(row[column]) for row in self.rows]
            try:
                arrays[column] = pyarrow.array(values, getattr(pyarrow, kind)())
            except UnicodeEncodeError as error:
                row = next(i for i, value in enumerate(values) if isinstance(value, str) and not can_be_text(value))
                raise ValueError(f"{self.where(row)}: {column!r} holds half a surrogate pair.") from error
        return pyarrow.table(arrays)


def _json_as_text(value: Any) -> str | None:
    """Text as it is, anything else as JSON."""
    if value is None:
        return None
    return str(value) if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_ENCODE(key)}: {_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return str(value) if isinstance(value, _Number) else _ENCODE(value)


_ARROW_KINDS: dict[str, tuple[Any, str]] = {
    "bool": (bool, "bool_"),
    "int": (int, "int64"),
    "float": (float, "float64"),
    "text": (_json_as_text, "string"),
}


def _kind(value: Any) -> str:
    """What Arrow type can hold a JSON value: a key of _ARROW_KINDS, or "exact" for an int that is also a float64."""
    if isinstance(value, bool):
        return "bool"
    if not isinstance(value, _Number):
        return "text"
    if not value.lstrip("-").isdigit():
        return "float"
    if len(value) > 20 or not -(2**63) <= int(value) < 2**63:
        return "text"
    return "exact" if abs(int(value)) <= 2**53 else "int"


class JsonlReader:
    """Objects of a JSONL file, one a line. Blank lines are left out.

    The columns of other formats are known only once every line was seen, so towards them the file is read twice.
    """

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path, self._wanted = path, wanted
        self.kinds: dict[str, set[str]] = {}
        """Kinds of values by column, in order of appearance."""
        self._scan()
        self._check()
        self._lines = TextLines(path)

    def _scan(self) -> None:
        lines = TextLines(self._path)
        try:
            for _, row in self._objects(lines):
                for column, value in row.items():
                    kinds = self.kinds.setdefault(column, set())
                    if value is not None:
                        kinds.add(_kind(value))
                if len(self.kinds) > MAX_COLUMNS:
                    raise ValueError(f"{self.where(lines.number)}: more than {MAX_COLUMNS:,} different keys so far.")
                if self._wanted.output == "jsonl" and self._has_coordinates():
                    return
        finally:
            lines.close()

    def _has_coordinates(self) -> bool:
        columns, wanted = list(self.kinds), self._wanted
        return bool(candidates(columns, wanted.lat, LAT_NAMES) and candidates(columns, wanted.lon, LON_NAMES))

    def _check(self) -> None:
        if not self.kinds:
            raise ValueError(f"{self._path}: no rows; expected one JSON object a line.")
        self.coordinates = find_coordinates(str(self._path), list(self.kinds), self._wanted)

    def where(self, line: int) -> str:
        """File and line in words."""
        return f"{self._path}: line {line}"

    def kind(self, column: str) -> str:
        """The key of _ARROW_KINDS that holds every value of a column."""
        kinds = self.kinds[column]
        if kinds in ({"bool"}, {"float"}):
            return next(iter(kinds))
        if kinds and kinds <= {"exact", "int"}:
            return "int"
        return "float" if kinds == {"exact", "float"} else "text"

    def _objects(self, lines: TextLines) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every line that is not blank, and the object in it."""
        try:
            for line in lines:
                if line.isspace():
                    continue
                row = _DECODE(line)
                if not isinstance(row, dict):
                    raise ValueError(f"expected a JSON object, got {_json(row):.60}")
                yield line, row
        except json.JSONDecodeError as error:
            problem = f"not valid JSON ({error.msg} at column {error.colno})."
            raise ValueError(f"{self.where(lines.number)}: {problem}") from error
        except RecursionError as error:
            raise ValueError(f"{self.where(lines.number)}: the JSON is nested too deeply.") from error
        except ValueError as error:
            raise ValueError(f"{self.where(lines.number)}: {error}") from error

    def chunks(self, chunk_rows: int) -> Iterator[JsonlChunk]:
        """All rows, `chunk_rows` at a time. Rows before a broken one come first."""
        chunk = JsonlChunk(self, [], [], [])
        try:
            for line, row in self._objects(self._lines):
                check_added(self.where(self._lines.number), row, self._wanted)
                chunk.rows.append(row)
                chunk.raw.append(line)
                chunk.lines.append(self._lines.number)
                if len(chunk) == chunk_rows:
                    yield chunk
                    chunk = JsonlChunk(self, [], [], [])
        except ValueError:
            yield chunk
            raise
        if len(chunk):
            yield chunk

    @property
    def num_bytes_read(self) -> int:
        """Of the file as it is on disk."""
        return self._lines.num_bytes_read

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


class JsonlWriter:
    """One JSON object a line; what is not ASCII stays readable."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, chunk: Chunk, added: dict[str, list[Any]]) -> None:
        """Rows with new columns. None becomes null."""
        extra = (_ENCODE(dict(zip(added, values, strict=True)))[1:] for values in zip(*added.values(), strict=True))
        lines = (
            f"{start}{', ' if start != '{' else ''}{end}\n" for start, end in zip(chunk.objects(), extra, strict=True)
        )
        self._stream.write("".join(lines).encode())

    def close(self) -> None:
        """Nothing is left to write."""
