"""Image files read by several processes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from geogrpo.data.photos import gps_latlon_deg
from geogrpo.images import open_image
from geogrpo.labelling.rows import Problem, Reason
from geogrpo.types import Example

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MIN_FILES = 2_000
"""Fewer are read before the first worker has imported PyTorch: some 4 s, against 0.3 ms a header."""
FILES_AT_ONCE = 64
"""Sent to a worker together."""


class Workers:
    """A pool of processes, started when there is enough to do for them.

    Args:
        num_workers: 1 reads in this process.
        num_files: how many files there will be in all; with fewer than MIN_FILES this process reads them. None where
            that is not known.
    """

    def __init__(self, num_workers: int, num_files: int | None) -> None:
        is_worth_it = num_workers > 1 and (num_files is None or num_files >= MIN_FILES)
        # Spawned: a forked child would inherit the threads' locks of PyTorch and of the region index.
        self._pool = ProcessPoolExecutor(num_workers, get_context("spawn")) if is_worth_it else None

    def map(self, function: Callable[[ItemT], ResultT], items: Sequence[ItemT]) -> list[ResultT]:
        """The function of each item, in their order; it must be importable.

        Raises:
            ValueError: when a worker was killed.
        """
        if self._pool is None:
            return [function(item) for item in items]
        try:
            return list(self._pool.map(function, items, chunksize=FILES_AT_ONCE))
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker process was killed. Is memory short? The same command goes on; --workers 1 uses the least."
            ) from error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def photo_position(path: str) -> tuple[float, float] | Problem:
    """(lat, lon) degrees of a photograph's EXIF data, or why there is none. Only headers are read."""
    try:
        latlon_deg = gps_latlon_deg(path)
    except ValueError as error:
        return Problem(_reason(str(error)), str(error))
    return latlon_deg if latlon_deg is not None else Problem(Reason.NO_GPS, path)


def _reason(message: str) -> Reason:
    """Which of gps_latlon_deg's errors it is; tests hold the wording."""
    if "cannot be read as an image" in message:
        return Reason.BROKEN_IMAGE
    return Reason.OUT_OF_RANGE if "must be a number in [" in message else Reason.MALFORMED_GPS


def image_problem(path: str) -> Problem | None:
    """What is wrong with an image file, which is read to its end; None where nothing is."""
    if not Path(path).is_file():
        return Problem(Reason.MISSING_IMAGE, path)
    try:
        open_image(Example("", path, (0.0, 0.0)))
    except ValueError as error:
        return Problem(Reason.BROKEN_IMAGE, f"{path}: {error.__cause__}")
    return None
