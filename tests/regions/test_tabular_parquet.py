"""Parquet tables: types are kept, a bad file is named with its row, and without pyarrow it says what to install."""

import json
import sys
from pathlib import Path

import pytest
from regions.table_files import error_of, read_csv, run, write_csv

from geogrpo.regions.index import RegionIndex

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


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


def test_without_pyarrow_parquet_says_what_to_install(
    index: RegionIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"])
    run(source, tmp_path / "a.parquet", index)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'geogrpo[tables]'" in error_of(source, tmp_path / "b.parquet", index)
    assert "pip install 'geogrpo[tables]'" in error_of(tmp_path / "a.parquet", tmp_path / "b.csv", index)
