"""JSONL lines, good and bad; every error says where to look."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geogrpo.config import DataConfig
from geogrpo.data import load_dataset
from geogrpo.data.holdout import is_held_out
from geogrpo.data.jsonl import load_jsonl, read_jsonl
from geogrpo.images import open_image
from geogrpo.types import Example

GOOD = '{"image": "a.png", "lat": 1.5, "lon": 2.5}'


def write(folder: Path, *lines: str) -> Path:
    """A JSONL file, and the picture its good lines name."""
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    path = folder / "examples.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_records(folder: Path, records: list[dict[str, Any]]) -> Path:
    for record in records:
        Image.new("RGB", (4, 4), "red").save(folder / record["image"])
    return write(folder, *(json.dumps(record) for record in records))


def test_lines_become_examples_in_order(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("photos/paris.jpg", "b.jpg"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    elsewhere = str(tmp_path / "b.jpg")
    path = write(
        tmp_path,
        '{"image": "photos/paris.jpg", "lat": 48.8584, "lon": 2.2945, "country": "France", "state": "Île-de-France",'
        ' "city": "Paris", "id": 17, "hint": "tower", "score": [1, 2]}',
        "",
        "   ",
        json.dumps({"image": elsewhere, "lat": -90, "lon": 180}),
    )
    assert read_jsonl(path) == [
        Example(
            "17",
            tmp_path / "photos/paris.jpg",
            (48.8584, 2.2945),
            "France",
            "Île-de-France",
            "Paris",
            {"hint": "tower", "score": [1, 2]},
        ),
        Example(elsewhere, Path(elsewhere), (-90.0, 180.0)),
    ]


@pytest.mark.parametrize("lat_key", ["lat", "latitude", "LAT", "Latitude"])
@pytest.mark.parametrize("lon_key", ["lon", "longitude", "lng", "LON", "Longitude"])
def test_coordinates_go_by_several_names(tmp_path: Path, lat_key: str, lon_key: str) -> None:
    (example,) = read_jsonl(write(tmp_path, json.dumps({"image": "a.png", lon_key: 2.5, lat_key: 1.5})))
    assert example.latlon_deg == (1.5, 2.5)
    assert example.columns == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"not valid JSON \(.+ at column \d+\)"),
        ('{"image": "a.png", "lat": 1.5, "lon": 2.5', r"not valid JSON \(.+ at column 42\)"),
        ("[1, 2]", "expected an object with image, lat, lon, got list"),
        ('"a.png"', "expected an object with image, lat, lon, got str"),
        ("null", "expected an object with image, lat, lon, got NoneType"),
        ('{"lat": 1.5, "lon": 2.5}', "key 'image' must be a path, got None"),
        ('{"image": 5, "lat": 1.5, "lon": 2.5}', "key 'image' must be a path, got 5"),
        ('{"image": "a.png", "lon": 2.5}', r"key 'lat' is missing \(also accepted: latitude, LAT, Latitude\)"),
        ('{"image": "a.png", "lat": 1.5}', r"key 'lon' is missing \(also accepted: longitude, lng, LON, Longitude\)"),
        ('{"image": "a.png", "lat": "1.5", "lon": 2.5}', "key 'lat' must be a number in degrees, got '1.5'"),
        ('{"image": "a.png", "lat": 1.5, "lng": [2.5]}', r"key 'lng' must be a number in degrees, got \[2\.5\]"),
        ('{"image": "a.png", "lat": null, "lon": 2.5}', "key 'lat' must be a number in degrees, got None"),
        ('{"image": "a.png", "lat": true, "lon": 2.5}', "key 'lat' must be a number in degrees, got True"),
        ('{"image": "a.png", "lat": NaN, "lon": 2.5}', r"latitude must be a number in \[-90, 90\], got nan"),
        ('{"image": "a.png", "lat": 1.5, "lon": NaN}', r"longitude must be a number in \[-180, 180\], got nan"),
        ('{"image": "a.png", "lat": 1.5, "lon": 1e999}', r"longitude must be a number in \[-180, 180\], got inf"),
        ('{"image": "a.png", "lat": 1.5, "lon": 181}', r"longitude must be a number in \[-180, 180\], got 181\.0\."),
        ('{"image": "a.png", "lat": 91, "lon": 100}', r"latitude must be a number in \[-90, 90\], got 91\.0\.$"),
        (
            '{"image": "a.png", "lat": 91, "lon": 2.5}',
            r"latitude must be a number in \[-90, 90\], got 91\.0\. Are latitude and longitude swapped\?",
        ),
        (f'{{"image": "a.png", "lat": 1{"0" * 400}, "lon": 2.5}}', "lat.* must be a number"),
        # Python refuses to read integers of more than 4300 digits, and more than a thousand brackets.
        (f'{{"image": "a.png", "lat": {"1" * 5000}, "lon": 2.5}}', r"not valid JSON \(.*4300"),
        (f'{{"image": "a.png", "lat": 1.5, "lon": 2.5, "x": {"[" * 100_000}', r"not valid JSON \("),
        ('{"image": "a.png", "lat": 1.5, "lon": 2.5, "country": 33}', "key 'country' must be a name, got 33"),
        ('{"image": "a.png", "lat": 1.5, "lon": 2.5, "state": ["x"]}', r"key 'state' must be a name, got \['x'\]"),
        ('{"image": "a.png", "lat": 1.5, "lon": 2.5, "city": false}', "key 'city' must be a name, got False"),
    ],
)
def test_a_bad_line_is_named_with_file_and_number(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path, GOOD, "", line, GOOD.replace("{", '{"id": "another", '))
    with pytest.raises(ValueError, match=message) as error:
        read_jsonl(path)
    assert str(error.value).startswith(f"{path}:3: ")


@pytest.mark.parametrize("key", ["country", "state", "city", "id"])
def test_null_is_the_same_as_a_missing_key(tmp_path: Path, key: str) -> None:
    (example,) = read_jsonl(write(tmp_path, json.dumps({"image": "a.png", "lat": 1.5, "lon": 2.5, key: None})))
    assert example == Example("a.png", tmp_path / "a.png", (1.5, 2.5))


@pytest.mark.parametrize(("first", "second"), [({}, {}), ({"id": 7}, {"id": "7"}), ({}, {"id": "a.png"})])
def test_two_lines_of_one_id_are_both_named(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    place = {"image": "a.png", "lat": 1.5, "lon": 2.5}
    path = write(tmp_path, json.dumps(place | first), "", json.dumps(place | {"id": "x"}), json.dumps(place | second))
    named = re.escape(str(first.get("id", "a.png")))
    with pytest.raises(ValueError, match=rf"id '{named}' is that of line 1 .*Give each line an 'id'") as error:
        read_jsonl(path)
    assert str(error.value).startswith(f"{path}:4: ")


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "latin.jsonl"
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    path.write_bytes(f'{GOOD}\n{{"image": "é.png", "lat": 1, "lon": 2}}\n'.encode("latin-1"))
    with pytest.raises(ValueError, match=re.escape(f"{path}:2: ")):
        read_jsonl(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'none.jsonl'}: no such file")):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(
        ValueError, match=re.escape(f"{tmp_path}: no such file") + r".* data\.path .*data\.test_path, data\.grpo_path"
    ):
        read_jsonl(tmp_path)


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_an_empty_file_is_rejected(tmp_path: Path, lines: tuple[str, ...]) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(ValueError, match=re.escape(f"{path} holds no examples: expected one JSON object per line")):
        read_jsonl(path)


@pytest.mark.parametrize("content", [None, b"", b"this is text"])
def test_a_missing_or_broken_image_is_found_before_training(tmp_path: Path, content: bytes | None) -> None:
    path = write_records(tmp_path, [{"image": f"{i}.png", "lat": 0.0, "lon": float(i)} for i in range(3)])
    (tmp_path / "1.png").unlink()
    if content is not None:
        (tmp_path / "1.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"example '1\.png': cannot read image ") as error:
        load_jsonl(DataConfig(name="jsonl", path=str(path)), seed=0)
    assert str(tmp_path / "1.png") in str(error.value)
    assert str(error.value).startswith(f"{path}:2: ")


def test_cells_of_the_file_are_held_out_and_regions_filled(tmp_path: Path) -> None:
    # Every second longitude along one line through France: 20 cells
    records = [{"image": f"{i}.png", "lat": 47.5, "lon": -2 + i / 4} for i in range(40)]
    records[0] |= {"country": "Elsewhere"}
    records[1] |= {"country": "France", "city": "Carnac"}
    path = write_records(tmp_path, records)
    splits = load_jsonl(DataConfig(name="jsonl", path=str(path), test_fraction=0.5), seed=0)
    points = [(record["lat"], record["lon"]) for record in records]
    expected = [f"{i}.png" for i, out in enumerate(is_held_out(points, 0.5)) if out]
    assert [example.id for example in splits.test] == expected
    assert 0 < len(splits.test) < 40
    assert len(splits.train) + len(splits.test) == 40
    countries = {e.id: e.country for e in [*splits.train, *splits.test]}
    assert countries.pop("0.png") == "Elsewhere"
    assert set(countries.values()) == {"France", "Switzerland"}
    (carnac,) = (e for e in [*splits.train, *splits.test] if e.id == "1.png")
    assert (carnac.state, carnac.city) == ("Pays de la Loire", "Carnac")
    assert open_image(splits.train[0]).getpixel((0, 0)) == (255, 0, 0)


def test_a_test_file_is_used_whole(tmp_path: Path) -> None:
    paths = []
    for name, count in (("train", 5), ("test", 3)):
        (tmp_path / name).mkdir()
        records = [{"image": f"{i}.png", "lat": 10.0 * i, "lon": 0.0} for i in range(count)]
        paths.append(str(write_records(tmp_path / name, records)))
    splits = load_dataset(DataConfig(name="jsonl", path=paths[0], test_path=paths[1]), seed=0)
    assert [example.image for example in splits.train] == [tmp_path / f"train/{i}.png" for i in range(5)]
    assert [example.image for example in splits.test] == [tmp_path / f"test/{i}.png" for i in range(3)]
    assert all(example.country for example in splits.test)


@pytest.mark.parametrize("use_test_path", [False, True])
def test_num_test_draws_from_the_held_out_examples(tmp_path: Path, use_test_path: bool) -> None:
    path = str(write_records(tmp_path, [{"image": f"{i}.png", "lat": 47.5, "lon": -20.0 + i} for i in range(40)]))
    options = {"name": "jsonl", "path": path, "test_fraction": 0.5} | ({"test_path": path} if use_test_path else {})
    whole = load_dataset(DataConfig(num_test=0, **options), seed=0)
    few, again, other = (load_dataset(DataConfig(num_test=8, **options), seed=seed) for seed in (0, 0, 1))
    ids = [e.id for e in few.test]
    assert len(ids) == 8
    assert set(ids) < {e.id for e in whole.test}
    assert ids == [e.id for e in again.test]
    assert ids != [e.id for e in other.test]
    assert few.train == whole.train


def write_lines(folder: Path, name: str, lons: range) -> str:
    """A file in a folder of its own, with an example on the equator every quarter of a degree."""
    (folder / name).mkdir()
    records = [{"image": f"{i}.png", "lat": 0.0, "lon": i / 4} for i in lons]
    return str(write_records(folder / name, records))


def test_stage_2_has_examples_of_its_own_outside_the_held_out_cells(tmp_path: Path) -> None:
    path, grpo_path = write_lines(tmp_path, "easy", range(40)), write_lines(tmp_path, "hard", range(-20, 80))
    splits = load_dataset(DataConfig(name="jsonl", path=path, grpo_path=grpo_path, test_fraction=0.5, num_test=0), 0)
    lons = np.arange(-20, 80) / 4
    is_in_test_cell = is_held_out(np.stack([np.zeros(100), lons], axis=1), 0.5)
    assert [example.latlon_deg[1] for example in splits.grpo_train] == lons[~is_in_test_cell].tolist()
    assert 20 < len(splits.grpo_train) < 80
    test_cells = {math.floor(example.latlon_deg[1]) for example in splits.test}
    assert not test_cells & {math.floor(example.latlon_deg[1]) for example in [*splits.train, *splits.grpo_train]}
    for part in (splits.train, splits.test):
        assert {example.image.parent.name for example in part} == {"easy"}
    assert all(example.country for example in splits.grpo_train if 10 <= example.latlon_deg[1] <= 13)


def test_with_a_test_file_all_examples_of_both_stages_are_trained_on(tmp_path: Path) -> None:
    paths = [write_lines(tmp_path, name, range(40)) for name in ("easy", "hard", "test")]
    config = DataConfig(name="jsonl", path=paths[0], grpo_path=paths[1], test_path=paths[2], test_fraction=0.5)
    splits = load_dataset(config, seed=0)
    for part, name in ((splits.train, "easy"), (splits.grpo_train, "hard"), (splits.test, "test")):
        assert [example.image for example in part] == [tmp_path / name / f"{i}.png" for i in range(40)]


def test_without_examples_of_its_own_stage_2_has_those_of_stage_1(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "easy", range(40))
    splits = load_dataset(DataConfig(name="jsonl", path=path, test_fraction=0.5), seed=0)
    assert splits.only_grpo is None
    assert splits.grpo_train is splits.train


def test_stage_2_examples_that_are_all_held_out_or_missing_are_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "easy", range(40))
    held_out = next(lon for lon in range(180) if is_held_out([(0.0, lon)], 0.5)[0])
    hard = write_lines(tmp_path, "hard", range(4 * held_out, 4 * held_out + 4))
    with pytest.raises(
        ValueError, match=r"no stage-2 training \(data\.grpo_path\) examples. Set data\.test_path, or lower"
    ):
        load_dataset(DataConfig(name="jsonl", path=path, grpo_path=hard, test_fraction=0.5), seed=0)
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file.*data\.grpo_path"):
        load_dataset(DataConfig(name="jsonl", path=path, grpo_path=str(tmp_path / "none.jsonl")), seed=0)


def test_a_dataset_without_a_path_says_so() -> None:
    with pytest.raises(ValueError, match=r"data\.path must name a JSONL file when data\.name is jsonl"):
        load_dataset(DataConfig(name="jsonl"), seed=0)


def test_an_unknown_dataset_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"data\.name 'json' is unknown\. Known: blue_marble, jsonl, photos"):
        load_dataset(DataConfig(name="json"), seed=0)


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (False, "no held-out examples. Set data.test_path"),
        (True, "no training examples. Set data.test_path, or lower data.test_fraction"),
    ],
)
def test_an_empty_split_says_which_and_what_to_do(tmp_path: Path, held_out: bool, message: str) -> None:
    lons = [float(lon) for lon in range(-180, 180) if bool(is_held_out([(0.0, lon)], 0.5)[0]) == held_out][:3]
    path = write_records(tmp_path, [{"image": f"{lon}.png", "lat": 0.0, "lon": lon} for lon in lons])
    with pytest.raises(ValueError, match=re.escape(f"dataset 'jsonl' has {message}")):
        load_dataset(DataConfig(name="jsonl", path=str(path), test_fraction=0.5), seed=0)
