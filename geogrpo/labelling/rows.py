"""What the sources of labels hand over: batches of rows, and why a row becomes no example."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

BATCH_ROWS = 16_384
"""Rows worked on at once, some 40 MB; also what a killed run has to do again at most."""


class Reason(StrEnum):
    """Why a row is skipped, as it is reported."""

    NO_GPS = "no GPS in EXIF"
    MALFORMED_GPS = "malformed GPS in EXIF"
    BROKEN_IMAGE = "broken image"
    MISSING_IMAGE = "image file missing"
    NO_IMAGE_NAME = "no image path in the row"
    NOT_UTF8_NAME = "file name that is not UTF-8"
    MISSING_COORDINATES = "missing coordinates"
    NO_NUMBER = "coordinate that is no number"
    OUT_OF_RANGE = "GPS out of range"
    ZERO_ISLAND = "latitude and longitude both 0"
    NOWHERE = "in no region"
    NEAR_SOLVED = "too near to a solved place"
    UNREADABLE_CHAIN = "names that the parser does not read back"
    DUPLICATE_ID = "duplicate id"


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row."""

    reason: Reason
    detail: str = ""
    """More than the reason says: a value, a file, a distance."""


@dataclass(frozen=True)
class Batch:
    """N consecutive rows of a source."""

    first_row: int
    """Counted from 1."""
    where: Callable[[int], str]
    """A row within the batch in words: the file and the row or line in it."""
    ids: list[str]
    """(N,)."""
    images: list[str]
    """(N,) image paths as they are written, relative to the output's folder or absolute; "" where there is none."""
    latlon_deg: np.ndarray
    """(N, 2) float64, NaN where missing; not yet checked for range."""
    problems: dict[int, Problem] = field(default_factory=dict)
    """By row within the batch: what the source itself found."""

    def __len__(self) -> int:
        return len(self.ids)


class Source(Protocol):
    """Photographs or a table."""

    identity: dict[str, object]
    """What tells whether it is still the same: a run goes on only where this has not changed."""
    size: int
    """Total of `done`."""

    def batches(self, num_rows_done: int) -> Iterator[Batch]:
        """All rows after the first `num_rows_done`, which must be a number of rows after some batch."""

    @property
    def done(self) -> int:
        """How far it is, of `size`."""

    def close(self) -> None:
        """Let go of files."""


def joined(folder: str, names: Sequence[str]) -> list[str]:
    """Paths below a folder as they are written in the output; absolute ones and "" stay."""
    prefix = "" if folder == "." else f"{folder}/"
    return [name if not name or name.startswith("/") else prefix + name for name in names]
