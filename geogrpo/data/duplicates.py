"""Ids that occur twice in a file.

Shapes: N ids.
"""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from geogrpo.data.rows import Chunk


class DuplicateCheck:
    """Looks for equal ids by their 64-bit hashes: 16 bytes each. Of 5 million, two differ with one hash once in a
    million files.
    """

    def __init__(self) -> None:
        self._hashes, self._numbers = array("q"), array("q")
        self._files: list[tuple[int, Path, str]] = []
        """How many ids there were before each file, the file, and what its rows are called."""

    def add(self, chunk: Chunk, rows: Sequence[int], ids: Sequence[str]) -> None:
        """Take note of the ids of some rows of a chunk."""
        if not self._files or self._files[-1][1] != chunk.file:
            self._files.append((len(self._hashes), chunk.file, chunk.unit))
        self._hashes.extend(map(hash, ids))
        self._numbers.extend(chunk.numbers[row] for row in rows)

    def finish(self) -> None:
        """Raise ValueError naming the first row whose id an earlier one has, and that one."""
        hashes = np.frombuffer(self._hashes, np.int64)
        order = np.argsort(hashes, kind="stable")
        repeats = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        if len(repeats):
            first = repeats[np.argmin(order[repeats + 1])]
            earlier, later = order[first], order[first + 1]
            raise ValueError(
                f"{self._where(later)}: the id is that of {self._where(earlier)} (an id not given is the image's name;"
                f" {len(repeats):,} rows repeat one). Give each row an id of its own, or remove one of the two."
            )

    def _where(self, row: int) -> str:
        file, unit = next((file, unit) for start, file, unit in reversed(self._files) if start <= row)
        return f"{file}: {unit} {self._numbers[row]}"
