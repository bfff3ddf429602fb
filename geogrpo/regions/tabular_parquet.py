"""Parquet, read and written in chunks through pyarrow, which is imported here (and where rows become Arrow) only.

Memory holds a row group of the input at most. Other columns keep their types and the schema its metadata.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from geogrpo.regions.tabular_rows import Chunk, Wanted, check_added, check_unique, find_coordinates


def import_pyarrow(path: Path) -> ModuleType:
    """pyarrow with its Parquet module.

    Raises:
        ValueError: saying how to install it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: Parquet needs pyarrow. Install it: pip install 'geogrpo[tables]'") from error
    return pyarrow


@dataclass
class ParquetChunk(Chunk):
    """Rows of an Arrow table."""

    reader: "ParquetReader"
    rows: Any
    """pyarrow.Table."""
    first_row: int
    """Counted from 1."""

    def __post_init__(self) -> None:
        self.columns = self.rows.schema.names
        self.lat_column, self.lon_column = self.reader.coordinates

    def __len__(self) -> int:
        return self.rows.num_rows

    def where(self, row: int) -> str:
        return self.reader.where(self.first_row + row)

    def coordinate_values(self) -> tuple[Any, Any]:
        return self._coordinates(self.lat_column), self._coordinates(self.lon_column)

    def _coordinates(self, column: str) -> Any:
        values = self.rows.column(column)
        if is_text(self.reader.pyarrow.types, values.type):
            return values.to_pylist()
        # Without zero_copy, null comes out as NaN.
        return values.cast("float64", safe=False).to_numpy().astype(np.float64)

    def texts(self) -> Iterator[list[str]]:
        columns = [self._column(name, is_json=False) for name in self.columns]
        return ([value or "" for value in row] for row in zip(*columns, strict=True))

    def objects(self) -> Iterator[str]:
        keys = [f"{json.dumps(name, ensure_ascii=False)}: " for name in self.columns]
        columns = [self._column(name, is_json=True) for name in self.columns]
        for row in zip(*columns, strict=True):
            yield "{" + ", ".join(key + (value or "null") for key, value in zip(keys, row, strict=True))

    def table(self) -> Any:
        return self.rows

    def _column(self, name: str, *, is_json: bool) -> list[str | None]:
        """The values as CSV fields or as JSON, None for null."""
        values, types = self.rows.column(name), self.reader.pyarrow.types
        if types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        kind = values.type
        if types.is_floating(kind):
            number_type = kind.to_pandas_dtype()
            # Of its own width, so that float32 0.1 does not become 0.10000000149011612
            return [_float_text(number_type(x), is_json) if x is not None else None for x in values.to_pylist()]
        if types.is_nested(kind):
            return [None if x is None else json.dumps(x, ensure_ascii=False, default=str) for x in values.to_pylist()]
        if not is_text(types, kind):
            try:
                values = values.cast("string")
            except self.reader.pyarrow.ArrowException as error:
                raise ValueError(f"{self.where(0)}: column {name!r} ({kind}) cannot be text: {error}") from error
        is_bare = types.is_integer(kind) or types.is_boolean(kind)
        if not is_json or is_bare:
            return values.to_pylist()
        return [None if x is None else json.dumps(x, ensure_ascii=False) for x in values.to_pylist()]


def is_text(types: ModuleType, kind: Any) -> bool:
    """Whether an Arrow type holds strings; `types` is pyarrow.types."""
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _holds_bytes(types: ModuleType, kind: Any) -> bool:
    if types.is_nested(kind):
        return any(_holds_bytes(types, kind.field(i).type) for i in range(kind.num_fields))
    if types.is_dictionary(kind):
        return _holds_bytes(types, kind.value_type)
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _float_text(value: Any, is_json: bool) -> str | None:
    return str(value) if np.isfinite(value) or not is_json else None


class ParquetReader:
    """Rows of a Parquet file."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.pyarrow = import_pyarrow(path)
        self._path = path
        try:
            self._file = self.pyarrow.parquet.ParquetFile(path, memory_map=True, pre_buffer=False)
        except (self.pyarrow.ArrowException, OSError) as error:
            raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
        self._num_bytes, self._num_rows_read = path.stat().st_size, 0
        schema = self._file.schema_arrow
        self.coordinates = find_coordinates(str(path), schema.names, wanted)
        check_added(str(path), schema.names, wanted)
        check_unique(str(path), schema.names)
        for column in self.coordinates:
            self._check_number(schema.field(column))
        if wanted.output != "parquet":
            self._check_text(schema)

    def _check_number(self, field: Any) -> None:
        types = self.pyarrow.types
        is_number = types.is_floating(field.type) or types.is_integer(field.type) or types.is_decimal(field.type)
        if not (is_number or is_text(types, field.type)):
            raise ValueError(f"{self._path}: column {field.name!r} must hold numbers, got {field.type}.")

    def _check_text(self, schema: Any) -> None:
        for field in schema:
            if _holds_bytes(self.pyarrow.types, field.type):
                raise ValueError(
                    f"{self._path}: column {field.name!r} ({field.type}) holds bytes, which text formats cannot. "
                    "Write to a .parquet file."
                )

    def where(self, row: int) -> str:
        """File and row in words."""
        return f"{self._path}: row {row}"

    def chunks(self, chunk_rows: int) -> Iterator[ParquetChunk]:
        """All rows, at most `chunk_rows` at a time; at least one chunk, maybe empty."""
        # Threads would decode ahead, which costs memory and gains nothing: the text side is slower.
        batches = self._file.iter_batches(chunk_rows, use_threads=False)
        schema = self._file.schema_arrow
        while True:
            try:
                batch = next(batches, None)
                if batch is not None:
                    # Strings that are not UTF-8, offsets that lead elsewhere
                    batch.validate(full=True)
            except (self.pyarrow.ArrowException, OSError) as error:
                where = self.where(self._num_rows_read + 1)
                raise ValueError(f"{where}: cannot be read further: {error}") from error
            if batch is None:
                break
            first_row = self._num_rows_read + 1
            self._num_rows_read += len(batch)
            yield ParquetChunk(self, self.pyarrow.Table.from_batches([batch]).cast(schema), first_row)
        if not self._num_rows_read:
            yield ParquetChunk(self, schema.empty_table(), 1)

    @property
    def num_bytes_read(self) -> int:
        """Estimated from the rows."""
        return self._num_bytes * self._num_rows_read // max(self._file.metadata.num_rows, 1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ParquetWriter:
    """A row group a chunk, compressed by snappy."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._writer: Any = None

    def write(self, chunk: Chunk, added: dict[str, list[Any]]) -> None:
        """Rows with new columns, strings or bools. None becomes null."""
        import pyarrow
        import pyarrow.parquet

        table = chunk.table()
        for name, values in added.items():
            kind = pyarrow.bool_() if name.endswith("is_near_coast") else pyarrow.string()
            table = table.append_column(name, pyarrow.array(values, kind))
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._stream, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer."""
        if self._writer is not None:
            self._writer.close()
