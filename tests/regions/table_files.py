"""Tables for the tests of looked-up tables: written, read, and looked up."""

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.tabular import LookupReport, lookup_table

NOTES = [
    "",
    "NA",
    "007",
    "1e5",
    ' "quoted", ',
    "two\nlines",
    "carriage\rreturn",
    "both\r\n",
    "ü 中 \u2028",
    "null",
    "-",
    "\ufeff",
]
HOSTILE = [["00", "48.10", "2.35", "first"]] + [
    [f"{i:05d}", "" if i % 5 == 3 else f"{-80 + 7 * i}.50", f"{i * 14 - 170}", note] for i, note in enumerate(NOTES)
]
HEADER = ["id", "Lat", "LONGITUDE", "note, with comma"]


def write_csv(path: Path, rows: list[list[str]], header: list[str] = HEADER, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        # The default line end: only with it Python quotes every \r.
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def read_csv(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter, strict=True))


def run(source: Path, target: Path, index: RegionIndex, **options: Any) -> LookupReport:
    """lookup_table with an index that is there already."""
    return lookup_table(source, target, lambda: index, **options)


def error_of(source: Path, target: Path, index: RegionIndex, **options: Any) -> str:
    """The message, after which there is neither an output nor a temporary file."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(ValueError, match=re.escape(str(source.parent))) as caught:
        run(source, target, index, **options)
    assert sorted(source.parent.iterdir()) == before
    return str(caught.value)
