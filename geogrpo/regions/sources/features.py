"""What a reader hands over: the features of one vector file, their wanted attributes and their rings.

Shapes: F features, K rings, V vertices. Features are counted from 1 in messages.
"""

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geogrpo.regions.sources.rings import Rings

# Latitude and longitude in degrees on WGS84. NAD83 (EPSG:4269, CRS83) counts as WGS84: they differ by less than 2 m,
# borders by more. EPSG:4326 has latitude first by its definition, but vector files and GDAL keep longitude first.
_WGS84_NAME = re.compile(r"(.*[:/])?(CRS8[34]H?|CRS:84|WGS ?84)|(.*[:/])?EPSG[:/]([\d.]*[:/])?(4326|4979|4269)")


@dataclass(frozen=True)
class Columns:
    """Names of the attribute columns a layer is made from."""

    key: str
    name: str
    code: str | None
    parent: str | None
    pov: str | None
    """Point of view on disputed borders: the end of a column KEY_POV; None for the file's own view."""

    def wanted(self, file: str, available: Sequence[str]) -> list[str]:
        """The columns to read; with a pov, every KEY_* column, so that an unknown one can be answered with a list.

        Raises:
            ValueError: for a missing column, with the available ones, the nearest match first.
        """
        wanted = [column for column in (self.key, self.name, self.code, self.parent) if column is not None]
        for column in wanted:
            if column not in available:
                names = ", ".join(_nearest_first(column, available))
                raise ValueError(f"{file}: no column {column!r}, expected one of: {names}.")
        if self.pov is not None:
            wanted += [column for column in available if column.startswith(f"{self.key}_")]
        return list(dict.fromkeys(wanted))


def _nearest_first(column: str, available: Sequence[str]) -> list[str]:
    def similarity(other: str) -> float:
        return difflib.SequenceMatcher(None, column.lower(), other.lower()).ratio()

    return sorted(available, key=similarity, reverse=True) or ["no columns at all"]


@dataclass(frozen=True)
class Features:
    """The features of one file."""

    file: str
    """File name, for messages."""
    columns: Columns
    attributes: dict[str, list]
    """F values of each wanted column, as they are in the file."""
    has_geometry: np.ndarray
    """(F,) bool, False where the geometry is null."""
    rings: Rings
    notes: list[str]
    """What the reader had to assume, one line each, for the repairs of the layer."""

    def label(self, feature: int) -> str:
        """File and feature in words, to start a message with."""
        return feature_label(self.file, feature, self.attributes[self.columns.name][feature])

    def text(self, column: str | None, feature: int) -> str | None:
        """An attribute as text; None where there is none, also for Natural Earth's -99.

        Raises:
            ValueError: naming file and feature, where the value is neither text nor a number.
        """
        value = None if column is None else self.attributes[column][feature]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(f"{self.label(feature)}: {column} must be text or a number, got {shown(value)}.")
        # FIPS and ISO numbers that may be missing are read as floats.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip(" \t\r\n\0")
        if not _is_unicode(text):
            raise ValueError(f"{self.label(feature)}: {column} is not valid Unicode, got {shown(text)}.")
        return None if text in ("", "-99") else text


def feature_label(file: str, feature: int, name: object) -> str:
    """File and feature in words. `feature` counts from 0, the message from 1."""
    return f"{file}: feature {feature + 1}" + (f" ({shown(name)})" if isinstance(name, str) and name else "")


def shown(value: object) -> str:
    """A value of a file for a message: short, and for nested values the type alone, as repr may recurse too deep."""
    return f"{value!r:.60}" if isinstance(value, (str, int, float)) or value is None else type(value).__name__


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_wgs84_name(crs: str) -> bool:
    """Whether a CRS name such as EPSG:4326 or urn:ogc:def:crs:OGC:1.3:CRS84 means degrees on WGS84 (or NAD83)."""
    return len(crs) <= 200 and _WGS84_NAME.fullmatch(crs.strip().upper()) is not None


def crs_error(file: str, crs: str) -> ValueError:
    """The error for coordinates that are not degrees on WGS84."""
    return ValueError(
        f"{file}: coordinates must be WGS84 degrees, got the reference system {crs!r:.120}. "
        "Reproject the file first: ogr2ogr -t_srs EPSG:4326 OUT IN."
    )
