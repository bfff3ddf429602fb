"""Coordinates as files have them: checked, and looked at for a header that calls latitudes longitudes.

Shapes: N points.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from geogrpo.regions.index import default_index

NEAR_KM = 100.0
"""Photographs are taken near some place: of GeoNames' own places all are, of random points on Earth 26 %."""
MIN_SWAPPED = 5
"""Points that only the exchanged reading puts near a place, for it to count; fewer may be photographs at sea."""
SWAP_HINT = " Are latitude and longitude swapped? If so, set data.swap_coordinates: true."
UNSWAP_HINT = " data.swap_coordinates is true: is the file in order after all? Then set it to false."


def read_latlon(
    lat_values: Sequence[Any], lon_values: Sequence[Any], where: Callable[[int], str], *, is_swapped: bool
) -> np.ndarray:
    """(N, 2) float64 degrees, NaN where one of the two is absent.

    Args:
        where: file and row in words, of a row's place among the values.
        is_swapped: whether the file's columns were exchanged on purpose, for the message.
    Raises:
        ValueError: naming the first row with a coordinate that is no number or out of range.
    """
    points = np.stack([_column(lat_values, where, "latitude"), _column(lon_values, where, "longitude")], axis=-1)
    points[np.isnan(points).any(axis=1)] = np.nan
    bad = np.flatnonzero((np.abs(points) > (90, 180)).any(axis=1))
    if len(bad):
        lat, lon = points[bad[0]].tolist()
        hint = (UNSWAP_HINT if is_swapped else SWAP_HINT) if abs(lat) > 90 and abs(lon) <= 90 else ""
        what, value = ("latitude must be from -90 to 90", lat)
        if abs(lat) <= 90:
            what, value = ("longitude must be from -180 to 180", lon)
        raise ValueError(f"{where(int(bad[0]))}: {what}, got {value:g}.{hint}")
    return points


def _column(values: Sequence[Any], where: Callable[[int], str], what: str) -> np.ndarray:
    # float() of a text also takes 1_0 and other scripts' digits
    if all(type(value) is str and value.isascii() and "_" not in value for value in values):
        try:
            numbers = np.array([float(value or "nan") for value in values], np.float64)
            if not np.isinf(numbers).any():
                return numbers
        except ValueError:
            # Some row is bad: which is told row by row
            pass
    return np.array([_number(value, partial(where, row), what) for row, value in enumerate(values)], np.float64)


def _number(value: Any, where: Callable[[], str], what: str) -> float:
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    is_plain = isinstance(value, str) and value.isascii() and "_" not in value
    if is_plain or (isinstance(value, int | float) and not isinstance(value, bool)):
        try:
            number = float(value)
            if not math.isinf(number):
                return number
        except (ValueError, OverflowError):
            # Said below
            pass
    raise ValueError(f"{where()}: {what} must be a number in decimal degrees, got {value!r:.60}.")


class OrderCheck:
    """Whether a file's latitudes are its longitudes, as in one stored copy of im2gps3k_places365.csv.

    A latitude beyond 90 tells, and is refused where it is read. What is left are files of points that may be read both
    ways: those whose exchanged reading puts far more of them near a place, or one at a known point.

    Args:
        known_latlon_deg: a point that the published file has.
    """

    def __init__(self, *, is_swapped: bool, known_latlon_deg: tuple[float, float] | None = None) -> None:
        self._is_swapped, self._known = is_swapped, known_latlon_deg
        self._samples: list[np.ndarray] = []
        self._is_known_swapped = False

    def add(self, latlon_deg: np.ndarray) -> None:
        """Look at (N, 2) more points; NaN is passed over."""
        points = latlon_deg[~np.isnan(latlon_deg).any(axis=1)]
        # A part of each chunk: 200 of 16,384 tell as well
        self._samples.append(points[:: max(1, len(points) // 200)])
        if self._known is not None:
            self._is_known_swapped |= bool((np.abs(points[:, ::-1] - self._known) < 1e-6).all(axis=1).any())

    def finish(self, file: object) -> None:
        """Raise ValueError, naming the file, if its coordinates are in the other order."""
        hint = UNSWAP_HINT if self._is_swapped else SWAP_HINT
        if self._is_known_swapped:
            raise ValueError(f"{file}: the known point {self._known} stands there the other way round.{hint}")
        points = np.concatenate([np.empty((0, 2)), *self._samples])
        if not len(points) or (np.abs(points[:, 1]) > 90).any():
            # No latitude is so large: the order is right
            return
        points = points[:: max(1, len(points) // 2000)]
        as_read, exchanged = (self._is_near(p) for p in (points, points[:, ::-1]))
        num_for, num_against = int((as_read & ~exchanged).sum()), int((exchanged & ~as_read).sum())
        if num_against >= MIN_SWAPPED and num_against > 3 * num_for:
            raise ValueError(
                f"{file}: of {len(points)} points {num_for} lie within {NEAR_KM:g} km of a place only as read, and "
                f"{num_against} only with latitude and longitude exchanged.{hint}"
            )

    @staticmethod
    def _is_near(points: np.ndarray) -> np.ndarray:
        return default_index().nearest_with_distance(np.ascontiguousarray(points))[1] < NEAR_KM
