"""Checks of hand-made layers and places: native code takes what it is given.

Shapes: N points or texts.
"""

from collections.abc import Sequence

import numpy as np


def check_latlon_deg(what: str, latlon_deg: object) -> None:
    """Raise ValueError naming the first row, unless this is an (N, 2) array of degrees within +-90 and +-180."""
    if not isinstance(latlon_deg, np.ndarray) or latlon_deg.ndim != 2 or latlon_deg.shape[1] != 2:
        got = latlon_deg.shape if isinstance(latlon_deg, np.ndarray) else type(latlon_deg).__name__
        raise ValueError(f"{what} must be an (N, 2) array, got {got}.")
    if not (np.issubdtype(latlon_deg.dtype, np.floating) or np.issubdtype(latlon_deg.dtype, np.integer)):
        raise ValueError(f"{what} must be numbers, got {latlon_deg.dtype}.")
    # Written so that NaN, which compares false, is bad.
    bad = ~(np.abs(latlon_deg) <= (90, 180)).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        lat, lon = latlon_deg[row].tolist()
        raise ValueError(
            f"{what} must be latitudes within +-90 and longitudes within +-180, got ({lat}, {lon}) in row {row}."
        )


def check_texts(what: str, texts: Sequence[object], num_texts: int, *, may_be_none: bool = False) -> None:
    """Raise ValueError naming the first row, unless these are so many strings that UTF-8 can hold."""
    if len(texts) != num_texts:
        raise ValueError(f"{what} must have {num_texts} rows, got {len(texts)}.")
    for row, text in enumerate(texts):
        if not (isinstance(text, str) or (text is None and may_be_none)):
            raise ValueError(f"{what} must be text, got {type(text).__name__} in row {row}.")
    try:
        "".join(text for text in texts if isinstance(text, str)).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} must be valid Unicode: {error.reason}.") from error


def check_integers(what: str, values: object, low: int, high: int) -> None:
    """Raise ValueError naming the first row, unless this is an (N,) array of integers in [low, high]."""
    if not isinstance(values, np.ndarray) or values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        got = f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"{what} must be an (N,) array of integers, got {got}.")
    bad = (values < low) | (values > high)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"{what} must be from {low} to {high}, got {int(values[row])} in row {row}.")
