"""JSONL tables: a line keeps its bytes, values get types in Parquet, and a bad file is named with its line."""

import json
from pathlib import Path

import pytest
from regions.table_files import error_of, run

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.tabular import ADDED

pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


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
