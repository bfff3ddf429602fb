"""Every published file in its own schema: three rows, and what is said of a bad one."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from data.published_files import (
    IM2GPS3K_HEADER,
    LIMA,
    LONDON,
    MP16_PRO_HEADER,
    OSV5M_TEST_HEADER,
    OSV5M_TRAIN_HEADER,
    TOKYO,
    at,
    csv_file,
    json_lines,
    pictures,
    png,
    zipped,
)

from geogrpo.config import DataConfig
from geogrpo.data import load_dataset, load_held_out
from geogrpo.data.geoseek import read_geoseek
from geogrpo.data.im2gps3k import read_im2gps3k
from geogrpo.data.mp16_pro import read_mp16_pro
from geogrpo.data.mp16_reason import read_mp16_reason
from geogrpo.data.osv5m import read_osv5m
from geogrpo.data.table import read_table
from geogrpo.data.vlm_r1 import read_vlm_r1
from geogrpo.data.yfcc4k import read_yfcc4k
from geogrpo.images import open_image
from geogrpo.types import Example

IM2GPS3K_IDS = ("311966217_0e0c9c5f93_100_57145185@N00.jpg", "104123223_7410c654ba_19_19355699@N00.jpg", "c@N01.jpg")


def shades(examples: list[Example]) -> list[int]:
    """Which picture each example opens: 1 for the first that was made, and so on."""
    return [open_image(example).getpixel((0, 0))[0] // 10 for example in examples]  # type: ignore[index]


def im2gps3k(folder: Path, header: str = IM2GPS3K_HEADER, names: tuple[str, str] = ("LAT", "LON")) -> Path:
    rows = [
        {"IMG_ID": name, "AUTHOR": "57145185@N00"} | at(place, *names)
        for name, place in zip(IM2GPS3K_IDS, (LONDON, LIMA, TOKYO), strict=True)
    ]
    return csv_file(folder / "im2gps3k_places365.csv", header, rows)


def test_im2gps3k_is_read_from_its_zip(tmp_path: Path) -> None:
    path = im2gps3k(tmp_path)
    images = zipped(
        tmp_path / "im2gps3ktest.zip", {f"im2gps3ktest/{n}": png(10 * i) for i, n in enumerate(IM2GPS3K_IDS)}
    )
    config = DataConfig(name="im2gps3k", test_path=str(path), images=str(images))
    examples = load_held_out(config, seed=0)
    assert [(e.id, e.latlon_deg, e.country) for e in examples] == [
        (IM2GPS3K_IDS[0], LONDON, "United Kingdom"),
        (IM2GPS3K_IDS[1], LIMA, "Peru"),
        (IM2GPS3K_IDS[2], TOKYO, "Japan"),
    ]
    assert examples[0].columns["author"] == "57145185@N00"
    assert shades(list(examples)) == [0, 1, 2]
    with pytest.raises(ValueError, match="has no training examples. Set data.path; data.test_path alone"):
        load_dataset(config, seed=0)


def test_the_copy_of_im2gps3k_with_exchanged_headers_is_refused_and_read_when_told(tmp_path: Path) -> None:
    path = im2gps3k(tmp_path, IM2GPS3K_HEADER.replace("LAT,LON", "LON,LAT"), ("LON", "LAT"))
    pictures(tmp_path, *IM2GPS3K_IDS)
    with pytest.raises(ValueError, match=r"csv: row 3: latitude must be .* got 139\.69.*data\.swap_coordinates: true"):
        list(read_im2gps3k(path))
    config = DataConfig(name="im2gps3k", swap_coordinates=True)
    assert [e.latlon_deg for e in read_im2gps3k(path, config)] == [LONDON, LIMA, TOKYO]
    with pytest.raises(ValueError, match="swap_coordinates is true: is the file in order after all"):
        list(read_im2gps3k(im2gps3k(tmp_path), config))


def test_a_known_point_tells_of_exchanged_headers_where_no_latitude_does(tmp_path: Path) -> None:
    rows = [{"IMG_ID": IM2GPS3K_IDS[0]} | at(LONDON, "LON", "LAT")]
    path = csv_file(tmp_path / "x.csv", IM2GPS3K_HEADER, rows)
    pictures(tmp_path, *IM2GPS3K_IDS)
    with pytest.raises(ValueError, match=r"x\.csv: the known point \(51\.501821, -0\.140655\) stands .*swap_coord"):
        list(read_im2gps3k(path))


def test_yfcc4k_is_read_from_both_files(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "11.jpg", "22.jpg", "33.jpg")
    places = dict(zip(("11", "22", "33"), (LONDON, LIMA, TOKYO), strict=True))
    rows = [{"IMG_ID": f"{name}.jpg", "more": 1} | at(place) for name, place in places.items()]
    table = csv_file(tmp_path / "yfcc4k_places365.csv", "IMG_ID,LON,LAT,more", rows)
    lines = [["0", name, *"2345678901"[:10], str(lon), str(lat), "16"] for name, (lat, lon) in places.items()]
    info = tmp_path / "info.txt"
    info.write_text("".join("\t".join(line) + "\n" for line in lines))
    for path, suffix in ((table, ".jpg"), (info, "")):
        examples = list(read_yfcc4k(path))
        assert [(e.id, e.latlon_deg) for e in examples] == [(name + suffix, place) for name, place in places.items()]
        assert shades(examples) == [1, 2, 3]
    info.write_text("\t".join(lines[0]) + "\n" + "\t".join(lines[1][:13]) + "\n")
    with pytest.raises(ValueError, match=r"info\.txt: line 2: expected 14 or more fields between tabs, got 13"):
        list(read_yfcc4k(info))
    with pytest.raises(ValueError, match=r"info\.txt has no named columns"):
        list(read_yfcc4k(info, DataConfig(columns={"lat": "y"})))


OSV_ROWS: list[dict[str, Any]] = [
    {"id": 3859149887465501, "country": "NA", "region": "Khomas", "city": "Windhoek"}
    | at((-22.56, 17.08), "latitude", "longitude"),
    {"id": 2, "country": "GB", "region": "England", "city": ""} | at(LONDON, "latitude", "longitude"),
    {"id": 3, "country": "", "region": "nan", "city": ""} | at(TOKYO, "latitude", "longitude"),
]


@pytest.mark.parametrize(
    "header", [OSV5M_TEST_HEADER, OSV5M_TRAIN_HEADER, ",".join(OSV5M_TEST_HEADER.split(",")[::-1])]
)
def test_osv5m_keeps_namibia_and_finds_images_in_numbered_zips(tmp_path: Path, header: str) -> None:
    path = csv_file(tmp_path / "test.csv", header, OSV_ROWS)
    (tmp_path / "images/test").mkdir(parents=True)
    zipped(tmp_path / "images/test/00.zip", {"00/3859149887465501.jpg": png(10), "00/2.jpg": png(20)})
    zipped(tmp_path / "images/test/01.zip", {"01/3.jpg": png(30)})
    assert [e.country for e in read_osv5m(path)] == ["Namibia", "United Kingdom", None]
    config = DataConfig(name="osv5m", test_path=str(path), test_images=str(tmp_path / "images"))
    examples = list(load_held_out(config, seed=0))
    assert [(e.id, e.country, e.state) for e in examples] == [
        ("3859149887465501", "Namibia", "Khomas"),
        ("2", "United Kingdom", "England"),
        ("3", "Japan", "Tokyo"),
    ]
    assert examples[0].city == "Windhoek"
    assert all(example.city for example in examples)
    assert shades(examples) == [1, 2, 3]


def test_a_country_code_that_is_none_is_told_and_named_by_coordinates(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = csv_file(tmp_path / "test.csv", OSV5M_TEST_HEADER, [OSV_ROWS[1] | {"country": "ZZ"}])
    pictures(tmp_path, "2.jpg")
    with caplog.at_level(logging.WARNING):
        (example,) = load_held_out(DataConfig(name="osv5m", test_path=str(path)), seed=0)
    assert example.country == "United Kingdom"
    assert re.search(r"1 rows with a country code .*test\.csv: row 1 \(ZZ\)", caplog.text)


def test_mp16_pro_finds_images_whose_slashes_became_underscores(tmp_path: Path) -> None:
    rows = [
        {"IMG_ID": "7e/c3/8163912402.jpg", "country": "Peru", "state": "", "city": "Lima"} | at(LIMA),
        {"IMG_ID": "7e/c4/8163912402.jpg", "country": "Japan", "state": "Tokyo", "city": "Tokyo"} | at(TOKYO),
    ]
    path = csv_file(tmp_path / "MP16_Pro_filtered.csv", MP16_PRO_HEADER, rows)
    pictures(tmp_path / "mp-16-images", "7e_c3_8163912402.jpg", "7e_c4_8163912402.jpg")
    examples = list(read_mp16_pro(path))
    assert [(e.id, e.country, e.state, e.city) for e in examples] == [
        ("7e/c3/8163912402.jpg", "Peru", None, "Lima"),
        ("7e/c4/8163912402.jpg", "Japan", "Tokyo", "Tokyo"),
    ]
    assert shades(examples) == [1, 2]


def reason_rows(*solutions: str) -> dict[str, list[Any]]:
    return {
        "images": [[{"bytes": png(10 * i), "path": None}] for i, _ in enumerate(solutions, start=1)],
        "response": ["I see a tower."] * len(solutions),
        "solution": list(solutions),
        "entities": [[{"text": "tower", "score": 0.5}]] * len(solutions),
    }


def test_mp16_reason_rows_lie_where_their_tagged_city_does(tmp_path: Path) -> None:
    path = tmp_path / "train-00000-of-00001.parquet"
    rows = reason_rows("<country>Peru</country><city>Lima</city>", "<country>Japan</country> <city> Tokyo </city>")
    pyarrow.parquet.write_table(pyarrow.table(rows), path)
    examples = list(read_mp16_reason(path))
    assert [(e.country, e.city) for e in examples] == [("Peru", "Lima"), ("Japan", "Tokyo")]
    for example, place in zip(examples, (LIMA, TOKYO), strict=True):
        assert example.latlon_deg == pytest.approx(place, abs=0.1)
        assert example.columns["entities"] == [{"text": "tower", "score": 0.5}]
        assert example.columns["response"] == "I see a tower."
    assert shades(examples) == [1, 2]
    assert len({e.id for e in examples}) == 2
    # As training gets them
    splits = load_dataset(DataConfig(name="mp16_reason", path=str(tmp_path), test_path=str(tmp_path)), seed=0)
    assert [e.columns for e in splits.train] == [e.columns for e in examples]
    assert shades(list(splits.train)) == [1, 2]


def test_a_mp16_reason_solution_without_tags_is_named_by_its_row(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.table(reason_rows("<country>Peru</country><city>Lima</city>", "Peru")), path)
    with pytest.raises(ValueError, match=r"train\.parquet: row 2: solution must hold <country>.*got 'Peru'"):
        list(read_mp16_reason(path))


def test_the_mp16_reason_test_set_is_a_csv(tmp_path: Path) -> None:
    rows = [{"IMG_ID": "7e_c3_8163912402.jpg", "city": "Lima", "country": "Peru"} | at(LIMA)]
    path = csv_file(tmp_path / "mp16-reason-test.csv", "IMG_ID,LAT,LON,city,country", rows)
    pictures(tmp_path / "eval_images", "7e_c3_8163912402.jpg")
    (example,) = read_mp16_reason(path)
    assert (example.latlon_deg, example.country, example.city) == (LIMA, "Peru", "Lima")


def test_geoseek_reads_a_json_list_with_any_of_its_keys(tmp_path: Path) -> None:
    thought = {"CountryIdentification": {"Clues": ["llama"], "Reasoning": "r", "Conclusion": "Peru", "Uncertainty": ""}}
    items = [
        {"image": "1.jpg", "ground_truth_lat": LIMA[0], "ground_truth_lon": LIMA[1], "label": "Peru; Lima; Lima"},
        {"image": "2.jpg", "latitude": TOKYO[0], "longitude": TOKYO[1], "ChainOfThought": thought, "FinalAnswer": "x"},
        {"image": "3.jpg", "label": "Japan; Tokyo; Tokyo"},
    ]
    path = tmp_path / "geoseek.json"
    path.write_text(json.dumps(items, indent=1))
    pictures(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    first, second, third = read_geoseek(path)
    assert (first.latlon_deg, first.country, first.state, first.city) == (LIMA, "Peru", "Lima", "Lima")
    assert (second.latlon_deg, second.columns["ChainOfThought"], second.country) == (TOKYO, thought, None)
    assert third.latlon_deg == pytest.approx(TOKYO, abs=0.1)
    path.write_text(json.dumps([*items[:1], items[1] | {"label": 5}]))
    with pytest.raises(ValueError, match=r"geoseek\.json: item 2: label must be 'Country; Region; Place', got 5"):
        list(read_geoseek(path))


def test_conversations_place_an_image_by_the_last_answer(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "<image>\nWhere was this taken?"},
        {"from": "gpt", "value": "Country: Peru\nCity: Lima\nCoordinates: (-12.05, -77.04)"},
    ]
    solution = "<answer>Country: Japan\nCoordinates: (35.68, 139.69)</answer>"
    path = json_lines(
        tmp_path / "train.jsonl",
        {"id": 1, "image": ["1.jpg"], "conversations": turns},
        {"image": "2.jpg", "problem": "Where?", "solution": solution},
        {"image": "3.jpg", "problem": "Where?", "solution": "London", "lat": LONDON[0], "lon": LONDON[1]},
    )
    pictures(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    first, second, third = read_vlm_r1(path)
    assert (first.id, first.latlon_deg, first.country, first.city) == ("1", LIMA, "Peru", "Lima")
    assert first.columns["problem"] == "Where was this taken?"
    assert (second.id, second.latlon_deg, second.country) == ("2.jpg", TOKYO, "Japan")
    assert second.columns == {"problem": "Where?", "solution": solution}
    assert third.latlon_deg == LONDON


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"image": ["1.jpg", "2.jpg"], "solution": "(1, 2)"}, "line 2: an example has one image, got 2"),
        ({"image": "2.jpg", "conversations": [{"role": "user"}]}, "line 2: conversations must be"),
        ({"image": "2.jpg", "conversations": []}, "line 2: conversations must be"),
        ({"image": "2.jpg", "solution": "somewhere"}, "1 rows without coordinates: .*line 2"),
    ],
)
def test_a_bad_conversation_is_named_by_its_line(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    path = json_lines(tmp_path / "x.jsonl", {"image": "1.jpg", "solution": "(-12.05, -77.04)"}, line)
    pictures(tmp_path, "1.jpg", "2.jpg")
    with pytest.raises(ValueError, match=message) as error:
        list(read_vlm_r1(path))
    assert str(error.value).startswith(str(path))


def places(folder: Path, suffix: str) -> Path:
    """The same three examples in one of the formats that a table may have."""
    records = [
        {"photo": f"{i}.jpg", "y": lat, "x": lon, "seen": f"thing {i}"}
        for i, (lat, lon) in enumerate((LONDON, LIMA, TOKYO), start=1)
    ]
    path = folder / f"places{suffix}"
    if suffix in (".csv", ".tsv"):
        return csv_file(path, "seen,photo,x,y", records, "," if suffix == ".csv" else "\t")
    if suffix == ".jsonl":
        return json_lines(path, *records)
    if suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_any_table_is_read_by_the_names_of_its_columns(tmp_path: Path, suffix: str) -> None:
    path = places(tmp_path, suffix)
    pictures(tmp_path / "pictures", "1.jpg", "2.jpg", "3.jpg")
    columns = {"image": "photo", "lat": "y", "lon": "x", "entities": "seen"}
    examples = list(read_table(path, DataConfig(name="table", columns=columns)))
    assert [(e.id, e.latlon_deg) for e in examples] == [("1.jpg", LONDON), ("2.jpg", LIMA), ("3.jpg", TOKYO)]
    assert [e.columns for e in examples] == [{"entities": f"thing {i}"} for i in (1, 2, 3)]
    assert shades(examples) == [1, 2, 3]
    with pytest.raises(ValueError, match=r"no column .* for the field 'image'\. Columns: .*data\.columns\.image"):
        list(read_table(path))


def test_a_table_with_pictures_in_a_column_needs_no_files(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    rows = {"image": [png(10), png(20)], "lat": [1.5, 2.5], "lon": [2.5, 3.5], "id": ["a", "b"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), path, row_group_size=1)
    examples = list(read_table(path))
    assert [e.id for e in examples] == ["a", "b"]
    assert shades(examples) == [1, 2]
    assert str(examples[1].image) == f"{path}: row 2, column 'image'"
