"""CSV and TSV tables: text passes through as it is, and a bad file is named with its row."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from regions.table_files import error_of, read_csv, run, write_csv

from geogrpo.regions import tabular_lines
from geogrpo.regions.index import RegionIndex


@pytest.fixture(autouse=True)
def usual_field_limit() -> Iterator[None]:
    """csv's limit belongs to the process, and reverse_geocoder raises it when it is imported."""
    limit = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(limit)


def test_coordinates_become_numbers_that_json_knows(index: RegionIndex, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [["+48.5", " .5"], ["007", "-1e1"], ["nan", ""]], ["lat", "lon"])
    run(source, tmp_path / "b.jsonl", index)
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [(row["lat"], row["lon"]) for row in rows] == [(48.5, 0.5), (7, -10), (None, None)]


def test_two_columns_of_one_name_stay_two_in_csv_only(index: RegionIndex, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [["1", "2", "a", "b"]], ["lat", "lon", "x", "x"])
    assert "there are two columns 'x'" in error_of(source, tmp_path / "b.jsonl", index)
    run(source, tmp_path / "b.csv", index)
    assert [row[:4] for row in read_csv(tmp_path / "b.csv")] == [["lat", "lon", "x", "x"], ["1", "2", "a", "b"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.csv: no header line; the file is empty"),
        (b"lat;lon\n1;2\n", "the columns are separated by ';', expected ','"),
        (b"lat,name\n1,2\n", "no longitude column (lon, lng, long, longitude). Name it with --lon. Columns: lat, name"),
        (b"lat,lon,Latitude\n", "2 latitude columns: lat, Latitude. Name one with --lat. Columns: lat, lon, Latitude."),
        (b"lat,lon,city\n", "a.csv: there is a column 'city' already. Give the new columns a --prefix"),
        (b"lat,lon\n1,2\n\n1,2,3\n", "a.csv: row 2 (line 4): expected 2 fields as in the header, got 3"),
        (b"lat,lon\n1,2\n1\n", "a.csv: row 2 (line 3): expected 2 fields as in the header, got 1"),
        (b'lat,lon,x\n1,2,"a\nb"\n1,east,"c\nd"\n', "row 2 (line 4): 'lon' must be a number in decimal degrees"),
        (b'lat,lon\n"48,85",2\n', "row 1 (line 2): 'lat' must be a number in decimal degrees, got '48,85'"),
        (b"lat,lon\n1_0,2\n", "must be a number in decimal degrees, got '1_0'"),
        ("lat,lon\n١,2\n".encode(), "must be a number in decimal degrees"),
        (b"lat,lon\n1,inf\n", "'lon' must be a number in decimal degrees, got 'inf'"),
        (b"lat,lon\n1,NA\n", "'lon' must be a number in decimal degrees, got 'NA'"),
        (b"lat,lon\n1,2\n151.2,-33.9\n", "row 2 (line 3): latitude must be from -90 to 90, got 151.2. Are lat"),
        (b"lat,lon\n1,2\nx,2\n1,2,3\n", "row 2 (line 3): 'lat' must be"),
        (b'lat,lon,x\n1,2,"a\n1,2,b\n', "row 1 (line 2): unexpected end of data. Is a quote not closed"),
        (b'lat,lon,x\n1,2,"a"b\n', "row 1 (line 2): ',' expected after '\"'"),
        (b"lat,lon,x\n1,2," + b"y" * 140_000 + b"\n", "row 1 (line 2): field larger than field limit (131072)"),
        (b"lat,lon\n1,2\n1\0,2\n", "row 2 (line 3): a NUL byte"),
        ("lat,lon\n1,2\n".encode("utf-16"), "a.csv: header (line 1): a NUL byte"),
        (b"lat,lon,x\n1,2,a\n1,2,caf\xe9\n", "row 2 (line 3): not UTF-8 text (invalid continuation byte: byte 0xe9)"),
        (b"lat,lon\r1,2\r", "a carriage return outside quotes"),
    ],
)  # fmt: skip
def test_a_bad_csv_is_named_with_its_row(index: RegionIndex, tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    for chunk_rows in (1, 2, 100):
        assert message in error_of(tmp_path / "a.csv", tmp_path / "b.csv", index, chunk_rows=chunk_rows)


def test_beyond_the_pole_with_a_longitude_beyond_90_nothing_is_said_of_swapping(
    index: RegionIndex, tmp_path: Path
) -> None:
    write_csv(tmp_path / "a.csv", [["95", "-120"]], ["lat", "lon"])
    message = error_of(tmp_path / "a.csv", tmp_path / "b.csv", index)
    assert "got 95." in message
    assert "swapped" not in message


def test_a_line_without_end_is_not_read_whole(
    index: RegionIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular_lines, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.csv").write_bytes(b"lat,lon\n" + b"1" * 101)
    assert "row 1 (line 2): a line of more than 100 bytes" in error_of(tmp_path / "a.csv", tmp_path / "b.csv", index)
