"""What is wrong with a table or a row of it is said with its file and row; what is right takes little memory."""

import json
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from data.published_files import LIMA, LONDON, TOKYO, at, csv_file, json_lines, pictures, png

from geogrpo.config import DataConfig
from geogrpo.data import load_dataset, load_held_out, rows
from geogrpo.data.compact import CompactExamples
from geogrpo.data.holdout import is_held_out
from geogrpo.data.table import read_table
from geogrpo.images import open_image
from geogrpo.types import Example

GOOD = [{"image": f"{i}.png"} | at(place, "lat", "lon") for i, place in enumerate((LONDON, LIMA, TOKYO), start=1)]
HEADER = "image,lat,lon"


def table(folder: Path, *changes: dict[str, Any], header: str = HEADER) -> Path:
    """Three good rows, then one for each change of the first; and the pictures 1 to 3."""
    pictures(folder, "1.png", "2.png", "3.png")
    return csv_file(folder / "x.csv", header, [*GOOD, *(GOOD[0] | change for change in changes)])


def assert_refused(path: Path, message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        list(read_table(path, DataConfig(name="table", **options)))
    assert str(error.value).startswith(f"{path}: ")


def test_missing_images_are_counted_and_the_first_ten_listed(tmp_path: Path) -> None:
    path = table(tmp_path, *({"image": f"none{i}.png"} for i in range(12)), {"image": ""})
    listed = "; ".join(rf"[^;]*x\.csv: row {4 + i} \(none{i}\.png\)" for i in range(10))
    assert_refused(
        path, rf": 13 rows without an image in [^;]*: {listed}; \.\.\.\. Add the images.*allow_missing: true"
    )


def test_missing_images_and_coordinates_are_left_out_when_allowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = table(tmp_path, {"image": "none.png"}, {"lat": ""}, {"image": "", "lon": " "})
    with caplog.at_level(logging.WARNING):
        examples = list(read_table(path, DataConfig(name="table", allow_missing=True)))
    assert [example.id for example in examples] == ["1.png", "2.png", "3.png"]
    assert [record.getMessage().split(", left out")[0] for record in caplog.records] == [
        f"{path}: 1 rows without coordinates",
        f"{path}: 2 rows without an image in {tmp_path}",
    ]
    path = csv_file(tmp_path / "y.csv", HEADER, [GOOD[0] | {"image": "none.png"}])
    with pytest.raises(ValueError, match=r"y\.csv holds no examples"):
        list(read_table(path, DataConfig(name="table", allow_missing=True)))


def test_absent_coordinates_are_named_by_their_row(tmp_path: Path) -> None:
    path = table(tmp_path, {"lat": ""})
    assert_refused(path, r"1 rows without coordinates: .*x\.csv: row 4\. Complete them")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lat": 139.69, "lon": 35.68}, r"latitude must be from -90 to 90, got 139\.69\. Are .* swapped\?"),
        ({"lat": 95, "lon": 100}, r"latitude must be from -90 to 90, got 95\.$"),
        ({"lon": 181}, r"longitude must be from -180 to 180, got 181\.$"),
        ({"lat": "north"}, "latitude must be a number in decimal degrees, got 'north'"),
        ({"lat": "1_0"}, "latitude must be a number in decimal degrees, got '1_0'"),
        ({"lat": "१"}, "latitude must be a number in decimal degrees, got '१'"),
        ({"lon": "inf"}, "longitude must be a number in decimal degrees, got 'inf'"),
        ({"lon": "1e999"}, "longitude must be a number in decimal degrees"),
    ],
)
def test_a_bad_coordinate_is_named_by_its_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = table(tmp_path, change)
    assert_refused(path, r"x\.csv: row 4: " + message)


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, "x"])
def test_a_json_coordinate_that_is_no_number_is_named_by_its_line(tmp_path: Path, value: object) -> None:
    pictures(tmp_path, "1.png", "2.png")
    path = json_lines(tmp_path / "x.jsonl", GOOD[0] | {"lat": 0, "lon": 0}, GOOD[1] | {"lat": value})
    assert_refused(path, r"x\.jsonl: line 2: latitude must be a number in decimal degrees, got ")


def test_the_equator_is_a_latitude(tmp_path: Path) -> None:
    pictures(tmp_path, "1.png")
    (example,) = read_table(json_lines(tmp_path / "x.jsonl", GOOD[0] | {"lat": 0, "lon": 0.0}))
    assert example.latlon_deg == (0, 0)


def test_exchanged_headers_are_found_by_where_places_are(tmp_path: Path) -> None:
    """Europe, where every latitude could be a longitude."""
    cities = [(48.86, 2.35), (51.5, -0.13), (52.37, 4.9), (53.48, -2.24), (50.85, 4.35), (53.35, -6.26), (38.72, -9.14)]
    names = [f"{i}.png" for i in range(len(cities))]
    pictures(tmp_path, *names)
    lines = [{"image": name} | at(place, "lon", "lat") for name, place in zip(names, cities, strict=True)]
    path = csv_file(tmp_path / "x.csv", HEADER, lines)
    assert_refused(path, r"of 7 points 0 lie within 100 km of a place only as read, and 6 only with .*swap_coord")
    examples = read_table(path, DataConfig(name="table", swap_coordinates=True))
    assert [example.latlon_deg for example in examples] == cities
    straight = csv_file(tmp_path / "y.csv", "image,lon,lat", lines)
    assert [e.latlon_deg for e in read_table(straight, DataConfig(swap_coordinates=True))] == cities


def test_an_id_that_occurs_twice_is_named_with_both_rows(tmp_path: Path) -> None:
    path = table(tmp_path, {"image": "2.png"}, {"image": "3.png"})
    assert_refused(path, r"x\.csv: row 4: the id is that of .*x\.csv: row 2 \(.*; 2 rows repeat one\)\. Give each row")
    with_ids = [row | {"id": i} for i, row in enumerate(GOOD)]
    pictures(tmp_path, "1.png")
    path = csv_file(tmp_path / "y.csv", f"id,{HEADER}", [*with_ids, with_ids[0] | {"id": 3}])
    assert [e.id for e in read_table(path)] == ["0", "1", "2", "3"]


def test_ids_of_different_chunks_and_files_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 2)
    assert_refused(table(tmp_path, {}), r"x\.csv: row 4: the id is that of .*x\.csv: row 1 ")
    for name in ("a", "b"):
        column = {"image": [png()], "lat": [1.5], "lon": [2.5], "id": ["same"]}
        pyarrow.parquet.write_table(pyarrow.table(column), tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match=r"b\.parquet: row 1: the id is that of .*a\.parquet: row 1 "):
        list(read_table(tmp_path))


def test_a_truncated_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    column = {"image": [png(i) for i in range(40)], "lat": [1.5] * 40, "lon": [2.5] * 40}
    pyarrow.parquet.write_table(pyarrow.table(column), path)
    content = path.read_bytes()
    for part in (content[: len(content) // 2], content[:-4], b""):
        path.write_bytes(part)
        assert_refused(path, "cannot be read as Parquet: .*cut short")


def test_parquet_rows_without_a_picture_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    cells = [[{"bytes": png(10), "path": "a"}], [{"bytes": None, "path": "b"}], [], None]
    column = {"image": cells, "lat": [1.5] * 4, "lon": [2.5] * 4}
    pyarrow.parquet.write_table(pyarrow.table(column), path, row_group_size=3)
    assert_refused(path, r"3 rows without an image in .*x\.parquet: row 2 .*row 3 .*row 4 ")
    (example,) = read_table(path, DataConfig(allow_missing=True))
    assert open_image(example).getpixel((0, 0)) == (10, 10, 10)


def test_a_parquet_picture_is_found_in_any_row_group(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    column = {"image": [png(i) for i in range(50)], "lat": [1.5] * 50, "lon": [2.5] * 50}
    pyarrow.parquet.write_table(pyarrow.table(column), path, row_group_size=20)
    examples = list(read_table(path))
    assert [open_image(e).getpixel((0, 0))[0] for e in examples] == list(range(50))  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,lat,lon\n1.png,1.5,2.5\ncafé.png,1.5,2.5\n".encode("latin-1"), r"row 2 .*not UTF-8 text.*iconv"),
        ("image,lat,lon\n1.png,1.5,2.5\n".encode("utf-16"), r"header .*UTF"),
        (b"image,lat,lon\n1.png,1.5,2.5\n2.png,1.5\n", "row 2 .*expected 3 fields as in the header, got 2"),
        (b'image,lat,lon\n1.png,1.5,2.5\n"2.png,1.5,2.5\n', "row 2 .*Is a quote not closed"),
        (b"image;lat;lon\n1.png;1.5;2.5\n", "separated by ';', expected ','"),
        (b"", "no header line; the file is empty"),
        (b"image,lat,lon\n", "holds no examples"),
        (b"image,lat\n1.png,1.5\n", r"no column 'lon' or .* for the field 'lon'\. Columns: image, lat\. Say which"),
    ],
)
def test_a_broken_csv_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    pictures(tmp_path, "1.png")
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(read_table(path))
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b'{"image": "1.png"', "line 1: not valid JSON"),
        ("x.jsonl", b"[1]\n", "line 1: expected an object, got list"),
        ("x.jsonl", b'{"image": "\xe9"}\n', "line 1: not UTF-8"),
        ("x.jsonl", b'{"x": ' + b"[" * 100_000, "line 1|nested too deeply"),
        ("x.json", b'{"image": "1.png"}', "expected a list"),
        (
            "x.json",
            b'[{"image": "1.png", "lat": 1, "lon": 2}, {"im',
            "item 2: not valid JSON, or the file is cut short",
        ),
        ("x.json", b"[1]", "item 1: expected an object, got int"),
        ("x.json", b'[{"a": "\xe9"}]', "not UTF-8 text"),
        ("x.jsonl", b'{"image": ["a"], "lat": 1, "lon": 2}', r"line 1: image must be a text, got \['a'\]"),
        ("x.jsonl", b'{"image": "\\ud800.png", "lat": 1, "lon": 2}', "line 1: image must be a text"),
        ("x.xlsx", b"", r"the name must end in \.csv"),
    ],
)
def test_a_broken_json_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    pictures(tmp_path, "1.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(read_table(tmp_path / name))
    assert str(error.value).startswith(str(tmp_path / name))


def test_a_json_list_is_read_whatever_its_blocks_cut(tmp_path: Path) -> None:
    items = [{"n": i, "text": "é" * (i * 700)} for i in range(200)]
    for indent in (None, 2):
        path = tmp_path / "x.json"
        path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert [value for _, _, value in rows.read_objects(path)] == items
        assert [number for number, _, _ in rows.read_objects(path)] == list(range(1, 201))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'none.csv'}: no such file. Set data.path")):
        list(read_table(tmp_path / "none.csv"))
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: a folder without .parquet files")):
        list(read_table(tmp_path))
    with pytest.raises(ValueError, match=r"data\.path must be set when data\.name is table; .*test_path alone"):
        load_dataset(DataConfig(name="table"), seed=0)


def many(folder: Path, num_rows: int) -> Path:
    places = [{"lat": -40 + i / 7, "lon": i / 5} for i in range(num_rows)]
    lines = [{"image": f"{i}.png", "country": "NA", "seen": i} | place for i, place in enumerate(places)]
    pictures(folder, *(line["image"] for line in lines))
    return csv_file(folder / "x.csv", f"{HEADER},country,seen", lines)


def test_examples_in_little_memory_are_those_that_were_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "CHUNK_ROWS", 7)
    config = DataConfig(name="table", path=str(many(tmp_path, 60)), columns={"entities": "seen"}, test_fraction=0.5)
    streamed = list(read_table(str(config.path), config))
    splits = load_dataset(config, seed=0)
    assert isinstance(splits.train, CompactExamples)
    held_out = is_held_out(np.array([e.latlon_deg for e in streamed]), 0.5)
    assert 0 < held_out.sum() < 60
    for part, expected in ((splits.train, ~held_out), (splits.test, held_out)):
        wanted: list[Example] = [streamed[i] for i in np.flatnonzero(expected)]
        # A country that is not the index's keeps state and city from being filled
        assert list(part) == wanted
        assert [part[i] for i in range(-1, -len(part), -1)] == wanted[:0:-1]
    assert list(splits.train[3:9:2]) == list(splits.train)[3:9:2]
    assert list(pickle.loads(pickle.dumps(splits.train))) == list(splits.train)
    with pytest.raises(IndexError):
        splits.train[len(splits.train)]


def test_levels_without_a_name_are_filled(tmp_path: Path) -> None:
    (london, *_) = load_held_out(DataConfig(name="table", test_path=str(table(tmp_path))), seed=0)
    assert (london.country, london.state) == ("United Kingdom", "England")
    assert london.city


def test_stage_2_and_the_test_set_may_have_tables_of_their_own(tmp_path: Path) -> None:
    paths = {}
    for key, num_rows in (("path", 4), ("grpo_path", 3), ("test_path", 2)):
        (tmp_path / key).mkdir()
        paths[key] = str(many(tmp_path / key, num_rows))
    splits = load_dataset(DataConfig(name="table", **paths), seed=0)
    assert [len(part) for part in (splits.train, splits.grpo_train, splits.test)] == [4, 3, 2]
    assert str(splits.test[0].image) == f"{tmp_path}/test_path/0.png"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_pixel_limit_is_that_of_the_configuration(tmp_path: Path) -> None:
    path = str(table(tmp_path))
    try:
        examples = load_held_out(DataConfig(name="table", test_path=path, max_image_pixels=15), seed=0)
        with pytest.raises(ValueError, match=r"1\.png: 16 pixels, more than 15.*data\.max_image_pixels"):
            open_image(examples[0])
    finally:
        examples = load_held_out(DataConfig(name="table", test_path=path), seed=0)
    assert open_image(examples[0]).size == (4, 4)


@pytest.mark.parametrize("options", [{"max_image_pixels": 0}, {"columns": {"lat": ""}}])
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"data\.{next(iter(options))}"):
        DataConfig(**options)
