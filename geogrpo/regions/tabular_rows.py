"""What the readers of every table format hand over: chunks of rows, their coordinates, and the name of each row.

Shapes: N rows of a chunk.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

LAT_NAMES = ("lat", "latitude")
LON_NAMES = ("lon", "lng", "long", "longitude")
MAX_COLUMNS_SHOWN = 40


@dataclass(frozen=True)
class Wanted:
    """What a reader is to look for and to prepare."""

    lat: str | None
    """Name of the latitude column, None for the one whose name says so."""
    lon: str | None
    added: tuple[str, ...]
    """Names of the columns that will be added, which must not be there yet."""
    output: str
    """Format that the rows will be written in: csv, jsonl or parquet."""


class Chunk(ABC):
    """Some consecutive rows of a table. Each kind knows how to become text, JSON or Arrow."""

    columns: Sequence[str]
    lat_column: str
    lon_column: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def where(self, row: int) -> str:
        """File and row in words, to start a message with."""

    @abstractmethod
    def coordinate_values(self) -> tuple[Any, Any]:
        """Latitudes and longitudes as the file has them: text, numbers, None, or (N,) float64 arrays."""

    @abstractmethod
    def texts(self) -> Iterator[list[str]]:
        """Every row as the fields of a CSV file."""

    @abstractmethod
    def objects(self) -> Iterator[str]:
        """Every row as a JSON object without its last brace."""

    @abstractmethod
    def table(self) -> Any:
        """The rows as a pyarrow.Table, of one schema for all chunks of a file."""

    @cached_property
    def latlon_deg(self) -> np.ndarray:
        """(N, 2) float64, NaN where a coordinate is missing.

        Raises:
            ValueError: naming the first row with a coordinate that is no number or lies beyond a pole.
        """
        values = self.coordinate_values()
        fast = [_degrees(column) for column in values]
        if fast[0] is not None and fast[1] is not None:
            points = np.stack([fast[0], fast[1]], axis=-1)
            if not (np.isinf(points).any() or (np.abs(points[:, 0]) > 90).any()):
                return points
        rows = zip(values[0], values[1], strict=True)
        checked = [self._checked(row, lat, lon) for row, (lat, lon) in enumerate(rows)]
        return np.array(checked, dtype=np.float64).reshape(-1, 2)

    def _checked(self, row: int, lat_value: Any, lon_value: Any) -> tuple[float, float]:
        lat = self._number(row, self.lat_column, lat_value)
        lon = self._number(row, self.lon_column, lon_value)
        if abs(lat) > 90:
            hint = " Are latitude and longitude swapped?" if abs(lon) <= 90 else ""
            raise ValueError(f"{self.where(row)}: latitude must be from -90 to 90, got {lat:g}.{hint}")
        return lat, lon

    def _number(self, row: int, column: str, value: Any) -> float:
        if value is None or (isinstance(value, str) and not value.strip()):
            return math.nan
        number = math.inf
        # Python alone would also read 1_0 and Arabic digits.
        if isinstance(value, float) or (isinstance(value, str) and value.isascii() and "_" not in value):
            try:
                number = float(value)
            except ValueError:
                number = math.inf
        if math.isinf(number):
            shown = f"{value!r:.60}" if isinstance(value, str | float | bool) else type(value).__name__
            raise ValueError(f"{self.where(row)}: {column!r} must be a number in decimal degrees, got {shown}.")
        return number


def _degrees(values: Any) -> np.ndarray | None:
    """(N,) float64, or None where the values need a look one by one."""
    if isinstance(values, np.ndarray):
        return values
    try:
        texts = [value or "nan" for value in values]
        joined = "".join(texts)
        if not joined.isascii() or "_" in joined:
            return None
        return np.array([float(text) for text in texts], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def find_coordinates(file: str, columns: Sequence[str], wanted: Wanted) -> tuple[str, str]:
    """The names of the latitude and the longitude column.

    Raises:
        ValueError: listing the columns, where there is none or more than one.
    """
    lat = _find(file, columns, wanted.lat, LAT_NAMES, "latitude", "--lat")
    return lat, _find(file, columns, wanted.lon, LON_NAMES, "longitude", "--lon")


def candidates(columns: Sequence[str], given: str | None, names: Sequence[str]) -> list[str]:
    """The columns that may be the one looked for."""
    return [x for x in columns if (x == given if given is not None else x.strip().lower() in names)]


def _find(file: str, columns: Sequence[str], given: str | None, names: Sequence[str], what: str, option: str) -> str:
    found = candidates(columns, given, names)
    if len(found) == 1:
        return found[0]
    if found:
        problem = f"{len(found)} {what} columns: {_listed(found)}. Name one with {option}"
    elif given is not None:
        problem = f"no column {given!r}"
    else:
        problem = f"no {what} column ({', '.join(names)}). Name it with {option}"
    raise ValueError(f"{file}: {problem}. Columns: {_listed(columns)}.")


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(f"{column:.60}" for column in columns[:MAX_COLUMNS_SHOWN]) or "none"
    more = len(columns) - MAX_COLUMNS_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def check_added(where: str, columns: Any, wanted: Wanted) -> None:
    """Raise ValueError if a column that will be added is there already."""
    taken = next((name for name in wanted.added if name in columns), None)
    if taken is not None:
        raise ValueError(f"{where}: there is a column {taken!r} already. Give the new columns a --prefix.")


def check_unique(file: str, columns: Sequence[str]) -> None:
    """Raise ValueError if two columns have one name, which only CSV can hold."""
    twice = next((name for i, name in enumerate(columns) if name in columns[:i]), None)
    if twice is not None:
        raise ValueError(f"{file}: there are two columns {twice!r}. Rename one; only CSV to CSV keeps both.")
