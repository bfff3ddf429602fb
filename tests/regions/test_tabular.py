"""Tables in, tables with regions out: nothing else changes, memory is constant, and no failure leaves or loses a file.

test_tabular_csv.py, test_tabular_jsonl.py and test_tabular_parquet.py: what is particular to a format.
"""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from regions.samples import places_at
from regions.table_files import HEADER, HOSTILE, error_of, read_csv, run, write_csv

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.tabular import ADDED, lookup_table

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


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


def test_gzipped_output_does_not_hold_the_time(index: RegionIndex, tmp_path: Path) -> None:
    run(write_csv(tmp_path / "a.csv", [["1", "2"]], ["lat", "lon"]), tmp_path / "b.csv.gz", index)
    # RFC 1952: four bytes of time after magic number, method and flags
    assert (tmp_path / "b.csv.gz").read_bytes()[4:8] == bytes(4)


def test_a_cut_or_false_gzip_file_is_named(index: RegionIndex, tmp_path: Path) -> None:
    whole = gzip.compress(b"lat,lon\n" + b"1,2\n" * 1000)
    for content, message in ((whole[:-10], "cannot be read further"), (b"lat,lon\n", "Not a gzipped file")):
        (tmp_path / "a.csv.gz").write_bytes(content)
        assert message in error_of(tmp_path / "a.csv.gz", tmp_path / "b.csv", index)


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
