"""Rows from a folder of photographs, placed by the GPS position in their EXIF data."""

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from geogrpo.data.photos import SUFFIXES
from geogrpo.labelling.rows import BATCH_ROWS, Batch, Problem, Reason, joined
from geogrpo.labelling.workers import Workers, photo_position


class Photographs:
    """The photographs below a folder, by path.

    Args:
        output_folder: what the written paths are relative to.
    Raises:
        ValueError: when there is none.
    """

    def __init__(self, folder: Path, output_folder: Path, workers: Workers, *, batch_rows: int = BATCH_ROWS) -> None:
        self._folder, self._workers, self._batch_rows = folder, workers, batch_rows
        self.names = find_photographs(folder)
        if not self.names:
            raise ValueError(f"{folder}: no photograph below it; looked for {', '.join(SUFFIXES)}.")
        self._relative = os.path.relpath(folder.resolve(), output_folder.resolve())
        listing = sha256("\n".join(self.names).encode("utf-8", "surrogateescape"))
        self.identity = {"photographs": len(self.names), "sha256 of their names": listing.hexdigest()}
        self.size, self.done = len(self.names), 0

    def batches(self, num_rows_done: int) -> Iterator[Batch]:
        """The photographs after the first `num_rows_done`."""
        for start in range(num_rows_done, len(self.names), self._batch_rows):
            names = self.names[start : start + self._batch_rows]
            paths = [str(self._folder / name) for name in names]
            points, problems = np.full((len(names), 2), np.nan), {}
            for row, found in enumerate(self._workers.map(photo_position, paths)):
                if isinstance(found, Problem):
                    problems[row] = found
                else:
                    points[row] = found
            images = joined(self._relative, names)
            for row, image in enumerate(images):
                if not _is_utf8(image):
                    problems[row] = Problem(Reason.NOT_UTF8_NAME, ascii(image))
            self.done = start + len(names)
            yield Batch(start + 1, paths.__getitem__, names, images, points, problems)

    def close(self) -> None:
        """Nothing is open between batches."""


def find_photographs(folder: Path) -> list[str]:
    """Paths relative to the folder of every file that is a photograph by its suffix, sorted."""
    names: list[str] = []
    for parent, _, files in os.walk(folder):
        relative = os.path.relpath(parent, folder)
        here = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]
        names += here if relative == "." else [f"{relative}/{name}" for name in here]
    return sorted(names)


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
