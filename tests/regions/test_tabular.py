"""Tables in, tables with regions out: nothing else changes, memory is constant, and mistakes name file and row."""

import csv
import gzip
import json
import re
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from regions.test_index import box, layer, places_at

from geogrpo.regions import tabular_lines
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.tabular import ADDED, LookupReport, lookup_table


@pytest.fixture(autouse=True)
def usual_field_limit() -> Iterator[None]:
    """csv's limit belongs to the process, and reverse_geocoder raises it when it is imported."""
    limit = csv.field_size_limit(131_072)
    yield
    csv.field_size_limit(limit)


pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

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


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    """The western half of the world is west, the eastern one east; the far south is nowhere."""
    halves = layer("country", west=box(-60, -180, 90, 0), east=box(-60, 0, 90, 180))
    return RegionIndex.build([halves], places_at((10, -20), (10, 20)))


def write_csv(path: Path, rows: list[list[str]], header: list[str] = HEADER, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        # The default line end: only with it Python quotes every \r.
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return path


def read_csv(path: Path, delimiter: str = ",") -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter, strict=True))


def run(source: Path, target: Path, index: RegionIndex, **options: Any) -> LookupReport:
    return lookup_table(source, target, lambda: index, **options)


def error_of(source: Path, target: Path, index: RegionIndex, **options: Any) -> str:
    """The message, after which there is neither an output nor a temporary file."""
    before = sorted(source.parent.iterdir())
    with pytest.raises(ValueError, match=re.escape(str(source.parent))) as caught:
        run(source, target, index, **options)
    assert sorted(source.parent.iterdir()) == before
    return str(caught.value)


# ---- what comes out ------------------------------------------------------------------------------------------------


def test_every_row_gets_its_regions_and_is_counted(index: RegionIndex, tmp_path: Path) -> None:
    rows = [["5", "-5"], ["5", "5"], ["-60.01", "5"], ["-80", "5"], ["", "5"], ["5", " "], ["nan", "5"], ["5", "365"]]
    report = run(write_csv(tmp_path / "a.csv", rows, ["lat", "lon"]), tmp_path / "b.csv", index)
    written = read_csv(tmp_path / "b.csv")
    assert written[0] == ["lat", "lon", *ADDED]
    assert [row[2] for row in written[1:]] == ["west", "east", "east", "", "", "", "", "east"]
    assert [row[6] for row in written[1:]] == ["0", "1", "1", "", "", "", "", "1"]
    assert [row[7] for row in written[1:]] == ["false", "false", "true"] + ["false"] * 5
    counts = (report.num_rows, report.num_without_coordinates, report.num_near_coast, report.num_nowhere)
    assert counts == (8, 3, 1, 1)


def test_namibia_is_text_and_codes_follow_the_country(tmp_path: Path) -> None:
    places = places_at((-22.5, 17.1), country="NA")
    run(
        write_csv(tmp_path / "a.csv", [["-22", "17"]], ["lat", "lng"]),
        tmp_path / "b.parquet",
        RegionIndex.build((), places),
    )
    table = parquet.read_table(tmp_path / "b.parquet")
    assert table.column("country_code").to_pylist() == ["NA"]
    assert table.column("state").to_pylist() == [None]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
@pytest.mark.parametrize("start", [".csv", ".tsv.gz"])
def test_through_any_format_and_back_no_text_changes(
    index: RegionIndex, tmp_path: Path, start: str, suffix: str
) -> None:
    source = write_csv(tmp_path / "a.csv", HOSTILE)
    run(source, tmp_path / f"b{start}", index, prefix="1_")
    run(tmp_path / f"b{start}", tmp_path / f"c{suffix}", index, prefix="2_")
    run(tmp_path / f"c{suffix}", tmp_path / "d.csv", index, prefix="3_")
    header, *rows = read_csv(tmp_path / "d.csv")
    assert header == [*HEADER, *(f"{i}_{name}" for i in "123" for name in ADDED)]
    assert [[row[0], row[3]] for row in rows] == [[row[0], row[3]] for row in HOSTILE]
    if suffix == ".parquet":
        # Numbers there, so 48.10 comes back as 48.1
        np.testing.assert_array_equal(
            [[float(x or "nan") for x in row[1:3]] for row in rows],
            [[float(x or "nan") for x in row[1:3]] for row in HOSTILE],
        )
    else:
        assert [row[1:3] for row in rows] == [row[1:3] for row in HOSTILE]
    assert all(row[4:10] == row[10:16] == row[16:22] for row in rows)


def test_coordinates_become_numbers_that_json_knows(index: RegionIndex, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [["+48.5", " .5"], ["007", "-1e1"], ["nan", ""]], ["lat", "lon"])
    run(source, tmp_path / "b.jsonl", index)
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [(row["lat"], row["lon"]) for row in rows] == [(48.5, 0.5), (7, -10), (None, None)]


def test_a_jsonl_line_keeps_its_bytes(index: RegionIndex, tmp_path: Path) -> None:
    lines = [
        '{"lat":1.10, "lon": 2e0, "x": {"deep": [1.0, null, "\\ud800"]}, "x": 1}',
        '  { "lat" : null ,"n": 123456789012345678901234567890.10 }  ',
        "",
        "{}",
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    report = run(tmp_path / "a.jsonl", tmp_path / "b.jsonl", index)
    written = (tmp_path / "b.jsonl").read_text().split("\n")
    assert [
        new.startswith(old.strip()[:-1].rstrip()) for new, old in zip(written, [*lines[:2], "{}"], strict=False)
    ] == [True] * 3
    assert json.loads(written[0])["country"] == "east"
    assert json.loads(written[2]) == dict.fromkeys(ADDED[:-1]) | {"is_near_coast": False}
    assert (report.num_rows, report.num_without_coordinates) == (3, 2)


def test_types_of_jsonl_become_those_of_parquet_where_every_value_fits(index: RegionIndex, tmp_path: Path) -> None:
    rows = [
        {
            "lat": 1,
            "lon": "2.5",
            "int": 1,
            "big": 2**63,
            "mixed": 1,
            "number": 1,
            "flag": True,
            "nested": {"a": [1.50]},
        },
        {"lat": None, "lon": 2, "int": -(2**63), "big": 1, "mixed": "a", "number": 0.5, "flag": None, "late": "x"},
        {"number": -3, "nothing": None, "wide": 2**53 + 1},
        {"wide": 0.5},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows).replace("1.5]", "1.50]"))
    run(tmp_path / "a.jsonl", tmp_path / "b.parquet", index)
    columns = parquet.read_table(tmp_path / "b.parquet").to_pydict()
    assert columns["lat"] == [1.0, None, None, None]
    assert columns["lon"] == [2.5, 2.0, None, None]
    assert columns["int"] == [1, -(2**63), None, None]
    assert columns["big"] == [str(2**63), "1", None, None]
    assert columns["mixed"] == ["1", "a", None, None]
    assert columns["number"] == [1.0, 0.5, -3.0, None]
    assert columns["flag"] == [True, None, None, None]
    assert columns["nested"] == ['{"a": [1.50]}', None, None, None]
    assert columns["late"] == [None, "x", None, None]
    assert columns["nothing"] == [None] * 4
    # As a float64 it would be another number.
    assert columns["wide"] == [None, None, str(2**53 + 1), "0.5"]


def test_parquet_keeps_types_and_becomes_readable_text(index: RegionIndex, tmp_path: Path) -> None:
    table = pyarrow.table(
        {
            "lat": pyarrow.array([1.5, None, float("nan")], "float32"),
            "lon": pyarrow.array([2, 3, 4], "int8"),
            "day": pyarrow.array([0, None, 1], "date32"),
            "f": pyarrow.array([0.1, float("nan"), None], "float32"),
            "word": pyarrow.array(["NA", "", None]).dictionary_encode(),
            "list": pyarrow.array([[1, None], [], None]),
            "flag": pyarrow.array([True, False, None]),
            "blob": pyarrow.array([b"\xff", None, b""]),
        }
    ).replace_schema_metadata({"made by": "us"})
    parquet.write_table(table, tmp_path / "a.parquet")
    report = run(tmp_path / "a.parquet", tmp_path / "b.parquet", index)
    written = parquet.read_table(tmp_path / "b.parquet")
    assert written.select(table.column_names).cast(table.schema).drop(["lat", "f"]).equals(table.drop(["lat", "f"]))
    assert [written.schema.field(name).type for name in table.column_names] == [field.type for field in table.schema]
    assert written.schema.metadata[b"made by"] == b"us"
    assert report.num_without_coordinates == 2
    parquet.write_table(table.drop(["blob"]), tmp_path / "c.parquet")
    run(tmp_path / "c.parquet", tmp_path / "d.csv", index)
    assert [row[:7] for row in read_csv(tmp_path / "d.csv")[1:]] == [
        ["1.5", "2", "1970-01-01", "0.1", "NA", "[1, null]", "true"],
        ["", "3", "", "nan", "", "[]", "false"],
        ["nan", "4", "1970-01-02", "", "", "", ""],
    ]
    run(tmp_path / "c.parquet", tmp_path / "e.jsonl", index)
    first, second, _ = map(json.loads, (tmp_path / "e.jsonl").read_text().splitlines())
    assert [*first.values()][:7] == [1.5, 2, "1970-01-01", 0.1, "NA", [1, None], True]
    assert [*second.values()][:7] == [None, 3, None, None, "", [], False]
    assert "holds bytes" in error_of(tmp_path / "a.parquet", tmp_path / "f.csv", index)


@pytest.mark.parametrize("suffix", [".csv.gz", ".jsonl", ".parquet"])
@pytest.mark.parametrize("start", [".csv", ".jsonl", ".parquet"])
def test_chunk_size_does_not_change_the_output(index: RegionIndex, tmp_path: Path, start: str, suffix: str) -> None:
    run(write_csv(tmp_path / "a.csv", HOSTILE), tmp_path / f"b{start}", index, prefix="1_")
    source = tmp_path / f"b{start}"
    whole = run(source, tmp_path / f"whole{suffix}", index)
    for chunk_rows in (1, 3, len(HOSTILE)):
        target = tmp_path / f"{chunk_rows}{suffix}"
        split = run(source, target, index, chunk_rows=chunk_rows)
        if suffix == ".parquet":
            assert parquet.read_table(target).equals(parquet.read_table(tmp_path / "whole.parquet"))
        else:
            assert target.read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
        assert (split.num_rows, split.num_nowhere) == (whole.num_rows, whole.num_nowhere)


def peak_bytes(folder: Path, index: RegionIndex, num_rows: int, start: str, suffix: str) -> int:
    source = write_csv(folder / f"{num_rows}.csv", [["48", "2", "x" * 50]] * num_rows, ["lat", "lon", "note"])
    if start != ".csv":
        run(source, folder / f"{num_rows}{start}", index, prefix="1_")
    tracemalloc.start()
    arrow_before = pyarrow.default_memory_pool().max_memory()
    run(folder / f"{num_rows}{start}", folder / f"{num_rows}.out{suffix}", index, chunk_rows=1000)
    grown = pyarrow.default_memory_pool().max_memory() - arrow_before
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak + grown


@pytest.mark.parametrize(("start", "suffix"), [(".csv", ".csv"), (".jsonl", ".parquet"), (".parquet", ".jsonl.gz")])
def test_memory_does_not_grow_with_the_file(index: RegionIndex, tmp_path: Path, start: str, suffix: str) -> None:
    # Imports and caches
    peak_bytes(tmp_path, index, 500, start, suffix)
    few, many = (peak_bytes(tmp_path, index, num_rows, start, suffix) for num_rows in (2000, 20_000))
    # All the rows at once would take more than eight times as much.
    assert many < 1.5 * few


def test_no_rows_are_no_error_where_there_is_a_header(index: RegionIndex, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [], ["lat", "lon"])
    assert run(tmp_path / "a.csv", tmp_path / "b.parquet", index).num_rows == 0
    assert run(tmp_path / "b.parquet", tmp_path / "c.csv", index, prefix="x").num_rows == 0
    assert read_csv(tmp_path / "c.csv") == [["lat", "lon", *ADDED, *(f"x{name}" for name in ADDED)]]


# ---- errors --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a.jsonl: no rows; expected one JSON object a line"),
        (b'{"lat": 1, "name": 2}\n', "no longitude column (lon, lng, long, longitude). Name it with --lon. Col"),
        (b'{"lat": 1, "lon": 2}\n\n{"lat": 1, "lon": 2\n', "a.jsonl: line 3: not valid JSON (Expecting ',' delimiter"),
        (b'{"lat": 1, "lon": 2}\n[1, 2]\n', "a.jsonl: line 2: expected a JSON object, got [1, 2]"),
        (b'{"lat": 1, "lon": 2}\n3\n', "a.jsonl: line 2: expected a JSON object, got 3"),
        (b'{"lat": 1, "lon": 2}\n{"lat": 1, "lon": true}\n', "line 2: 'lon' must be a number in decimal deg"),
        (b'{"lat": 1, "lon": 2}\n{"lat": [1], "lon": 2}\n', "'lat' must be a number in decimal degrees, got list"),
        (b'{"lat": 1, "lon": 2}\n{"lat": -91, "lon": 2}\n', "line 2: latitude must be from -90 to 90, got -91. Are"),
        (b'{"lat": 1, "lon": 2}\n{"lat": 1e999, "lon": 2}\n', "a.jsonl: line 2: 'lat' must be a number"),
        (b'{"lat": 1, "lon": 2}\n{"county": ""}\n', "line 2: there is a column 'county' already. Give the"),
        (b'{"lat": 1, "lon": 2}\n{"x": ' + b"[" * 100_000 + b"\n", "a.jsonl: line 2: the JSON is nested too deeply"),
        (b'{"lat": 1, "lon": 2}\n{"x": "\xff"}\n', "a.jsonl: line 2: not UTF-8 text"),
        (b'{"lat": 1, "lon": 2}\n{"x": "\0"}\n', "a.jsonl: line 2: a NUL byte"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_bad_jsonl_is_named_with_its_line(
    index: RegionIndex, tmp_path: Path, content: bytes, message: str, suffix: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    for chunk_rows in (1, 100):
        assert message in error_of(tmp_path / "a.jsonl", tmp_path / f"b{suffix}", index, chunk_rows=chunk_rows)


def test_of_two_bad_lines_the_first_is_named(index: RegionIndex, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"lat": 1, "lon": 2}\n{"lat": "x"}\n3\n')
    for chunk_rows in (1, 2, 100):
        message = error_of(tmp_path / "a.jsonl", tmp_path / "b.jsonl", index, chunk_rows=chunk_rows)
        assert "line 2: 'lat' must be a number" in message


def test_gzipped_output_does_not_hold_the_time(index: RegionIndex, tmp_path: Path) -> None:
    run(write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"]), tmp_path / "b.csv.gz", index)
    # RFC 1952: four bytes of time after magic number, method and flags
    assert (tmp_path / "b.csv.gz").read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize(("text", "suffix"), [("\\ud800", ".csv"), ("\\u0000", ".csv"), ("\\ud800", ".parquet")])
def test_text_that_the_output_cannot_hold_is_named(index: RegionIndex, tmp_path: Path, text: str, suffix: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"lat": 1, "lon": 2, "x": "a"}\n{"x": "' + text + '"}\n')
    message = error_of(tmp_path / "a.jsonl", tmp_path / f"b{suffix}", index)
    assert message.startswith(f"{tmp_path / 'a.jsonl'}: line 2: ")
    assert "half a surrogate pair" in message


def test_a_jsonl_file_of_endless_new_keys_ends(
    index: RegionIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geogrpo.regions.tabular_jsonl.MAX_COLUMNS", 10)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({f"{i}": 1}) + "\n" for i in range(20)))
    assert "line 11: more than 10 different keys" in error_of(tmp_path / "a.jsonl", tmp_path / "b.csv", index)


def test_a_line_without_end_is_not_read_whole(
    index: RegionIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular_lines, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.csv").write_bytes(b"lat,lon\n" + b"1" * 101)
    assert "row 1 (line 2): a line of more than 100 bytes" in error_of(tmp_path / "a.csv", tmp_path / "b.csv", index)


def test_a_cut_or_false_gzip_file_is_named(index: RegionIndex, tmp_path: Path) -> None:
    whole = gzip.compress(b"lat,lon\n" + b"1,2\n" * 1000)
    for content, message in ((whole[:-10], "cannot be read further"), (b"lat,lon\n", "Not a gzipped file")):
        (tmp_path / "a.csv.gz").write_bytes(content)
        assert message in error_of(tmp_path / "a.csv.gz", tmp_path / "b.csv", index)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"lat": [1.0], "name": ["a"]}, "no longitude column"),
        ({"lat": [1.0], "lon": [2.0], "state": ["a"]}, "there is a column 'state' already"),
        ({"lat": [1.0, 99.0], "lon": [2.0, 2.0]}, "a.parquet: row 2: latitude must be from -90 to 90, got 99. Are"),
        ({"lat": [1.0, 1.0], "lon": ["2", "x"]}, "row 2: 'lon' must be a number in decimal degrees, got 'x'"),
        ({"lat": [1.0, float("inf")], "lon": [2, 2]}, "a.parquet: row 2: 'lat' must be a number"),
        ({"lat": [[1.0]], "lon": [2]}, "a.parquet: column 'lat' must hold numbers, got list<"),
        ({"lat": [True], "lon": [2]}, "a.parquet: column 'lat' must hold numbers, got bool"),
    ],
)  # fmt: skip
def test_a_bad_parquet_is_named_with_its_row(index: RegionIndex, tmp_path: Path, columns: dict, message: str) -> None:
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    for chunk_rows in (1, 100):
        for suffix in (".csv", ".parquet"):
            assert message in error_of(tmp_path / "a.parquet", tmp_path / f"b{suffix}", index, chunk_rows=chunk_rows)


def test_a_cut_parquet_or_one_of_broken_text_is_named(index: RegionIndex, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    # Bytes that claim to be UTF-8
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff"]).buffers())
    parquet.write_table(pyarrow.table({"lat": [1.0], "lon": [1.0], "x": broken}), path)
    assert "a.parquet: row 1: cannot be read further" in error_of(path, tmp_path / "b.csv", index)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a.parquet: cannot be read as Parquet" in error_of(path, tmp_path / "b.csv", index)


def test_two_columns_of_one_name_stay_two_in_csv_only(index: RegionIndex, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [["1", "2", "a", "b"]], ["lat", "lon", "x", "x"])
    assert "there are two columns 'x'" in error_of(source, tmp_path / "b.jsonl", index)
    run(source, tmp_path / "b.csv", index)
    assert [row[:4] for row in read_csv(tmp_path / "b.csv")] == [["lat", "lon", "x", "x"], ["1", "2", "a", "b"]]


def test_without_pyarrow_parquet_says_what_to_install(
    index: RegionIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"])
    run(source, tmp_path / "a.parquet", index)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'geogrpo[tables]'" in error_of(source, tmp_path / "b.parquet", index)
    assert "pip install 'geogrpo[tables]'" in error_of(tmp_path / "a.parquet", tmp_path / "b.csv", index)


def test_paths_are_checked_before_the_index_is_loaded(tmp_path: Path) -> None:
    def load_index() -> RegionIndex:
        raise AssertionError

    source = write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"])
    (tmp_path / "there.csv").write_text("precious")
    (tmp_path / "folder.csv").mkdir()
    for given, target, message in (
        ("a.csv", "b.xlsx", "b.xlsx: the name must end in .csv, .tsv, .jsonl, .parquet"),
        ("a.csv", "b.parquet.gz", "the name must end in"),
        ("a.csv", "there.csv", "there.csv exists. --overwrite replaces it"),
        ("a.csv", "folder.csv", "is a folder"),
        ("a.csv", "gone/b.csv", "there is no folder"),
        ("gone.csv", "b.csv", "gone.csv: no such file"),
    ):
        with pytest.raises(ValueError, match=message):
            lookup_table(tmp_path / given, tmp_path / target, load_index)
    with pytest.raises(ValueError, match="no column 'LAT'. Columns: lat, lon"):
        lookup_table(source, tmp_path / "b.csv", load_index, lat="LAT")


def test_an_output_is_replaced_only_when_asked_and_only_by_a_whole_one(index: RegionIndex, tmp_path: Path) -> None:
    source, target = tmp_path / "a.csv", tmp_path / "b.csv"
    target.write_text("precious")
    write_csv(source, [["1", "2"], ["x", "2"]], ["lat", "lon"])
    error_of(source, target, index, overwrite=True, chunk_rows=1)
    assert target.read_text() == "precious"
    write_csv(source, [["1", "2"]], ["lat", "lon"])
    run(source, target, index, overwrite=True)
    assert read_csv(target)[1][:3] == ["1", "2", "east"]
    # Also in place
    run(source, source, index, overwrite=True)
    assert read_csv(source) == read_csv(target)


def test_an_output_that_appears_meanwhile_is_kept(index: RegionIndex, tmp_path: Path) -> None:
    source, target = write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"]), tmp_path / "b.csv"
    with pytest.raises(ValueError, match="b.csv exists"):
        run(source, target, index, on_progress=lambda num_rows, num_bytes: target.write_text("precious"))
    assert target.read_text() == "precious"
    assert not (tmp_path / "b.csv.tmp").exists()


def test_another_run_on_the_same_output_is_not_disturbed(index: RegionIndex, tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"])
    (tmp_path / "b.csv.tmp").write_text("half")
    assert "b.csv.tmp exists: another run is writing it" in error_of(source, tmp_path / "b.csv", index)
    assert (tmp_path / "b.csv.tmp").read_text() == "half"


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_ctrl_c_leaves_nothing(index: RegionIndex, tmp_path: Path, suffix: str) -> None:
    def interrupt(num_rows: int, num_bytes: int) -> None:
        assert (tmp_path / f"b{suffix}.tmp").exists()
        raise KeyboardInterrupt

    source = write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"])
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / f"b{suffix}", index, on_progress=interrupt)
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("start", [".csv", ".csv.gz", ".jsonl", ".parquet"])
def test_progress_rises_to_the_size_of_the_file(index: RegionIndex, tmp_path: Path, start: str) -> None:
    run(write_csv(tmp_path / "a.csv", [["1", "2"]] * 50, ["lat", "lon"]), tmp_path / f"b{start}", index, prefix="1_")
    seen: list[tuple[int, int]] = []
    run(tmp_path / f"b{start}", tmp_path / "c.csv", index, chunk_rows=20, on_progress=lambda *now: seen.append(now))
    assert [num_rows for num_rows, _ in seen] == [20, 40, 50]
    assert [num_bytes for _, num_bytes in seen] == sorted(num_bytes for _, num_bytes in seen)
    assert seen[-1][1] == (tmp_path / f"b{start}").stat().st_size
