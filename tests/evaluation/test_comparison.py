"""Two evaluations on the same images: which are compared, and which way the difference points."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation.answering import LIMA, LYON, NAIROBI, PARIS, TOKYO, answer

from geogrpo.evaluation import HeldOutPrediction
from geogrpo.evaluation.comparison import Comparison, compare, read_other
from geogrpo.regions.index import default_index

HERE = [
    answer("a", PARIS, PARIS),
    answer("b", LIMA, LIMA),
    answer("c", TOKYO, TOKYO),
    answer("d", NAIROBI, None),
]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def compared(path: Path, here: list[HeldOutPrediction] = HERE, **options: Any) -> Comparison:
    settings = {"allow_missing": False, "num_samples": 200, "num_flips": 200, "index": default_index()} | options
    return compare(here, read_other(path), name=str(path), **settings)


def row(example_id: str, point: tuple[float, float] | None) -> dict[str, Any]:
    return {"id": example_id, "lat": None if point is None else point[0], "lon": None if point is None else point[1]}


def test_the_difference_is_this_one_minus_the_other(tmp_path: Path) -> None:
    other = written(tmp_path / "x.jsonl", row("d", NAIROBI), row("c", TOKYO), row("b", None), row("a", LYON))
    found = compared(other)
    assert (found.num_images, found.num_only_here, found.num_only_there) == (4, 0, 0)
    (track,) = found.tracks.values()
    within = track["within_25_km"]
    assert (within.before, within.after, within.value) == (0.5, 0.75, 0.25)
    assert (track["unparseable"].before, track["unparseable"].after) == (0.25, 0.25)
    assert (track["country_accuracy"].before, track["country_accuracy"].after) == (0.75, 0.75)
    assert track["median_km"].before == pytest.approx(392 / 2, rel=0.01)


def test_images_that_the_other_lacks_stop_it_or_are_left_out_on_both_sides(tmp_path: Path) -> None:
    other = written(tmp_path / "x.jsonl", row("a", LYON), row("b", LIMA), row("elsewhere", LIMA))
    with pytest.raises(
        ValueError, match=r"x\.jsonl: has no answer to 2 of 4 images, such as 'c', 'd'\. --allow-missing"
    ):
        compared(other)
    found = compared(other, allow_missing=True)
    assert (found.num_images, found.num_only_here, found.num_only_there) == (2, 2, 1)
    assert found.tracks["coordinates"]["within_25_km"].after == 1.0
    # An image for which this one has no row either is not missed
    found = compared(other, unanswered={"c", "d"})
    assert (found.num_images, found.num_only_here) == (2, 0)
    with pytest.raises(ValueError, match=r"none of its 1 ids is one of this evaluation's"):
        compared(written(tmp_path / "y.jsonl", row("z", LIMA)))


def test_rows_of_other_data_under_the_same_ids_are_refused_by_their_row(tmp_path: Path) -> None:
    rows = [p.to_json() for p in HERE]
    assert compared(written(tmp_path / "x.jsonl", *rows)).tracks["coordinates"]["mean_km"].value == 0
    rows[2]["true_latlon_deg"] = LYON
    message = r"x\.jsonl: line 3: true_latlon_deg of 'c' is \(45\.76, 4\.84\), but \(35\.68, 139\.69\) in the data"
    with pytest.raises(ValueError, match=message):
        compared(written(tmp_path / "x.jsonl", *rows))


def test_tracks_are_compared_that_both_have(tmp_path: Path) -> None:
    here = [
        answer("a", PARIS, PARIS, PARIS, PARIS, country="France", city="Paris"),
        answer("b", LIMA, LIMA, LIMA, LYON, country="Peru", city="Lima"),
    ]
    other = written(tmp_path / "x.jsonl", *(p.to_json() | {"country": None, "city": None} for p in here))
    assert list(compared(other, here).tracks) == ["coordinates", "consensus"]
    named = written(tmp_path / "y.jsonl", *({"id": p.id, "country": "Peru", "city": "Lima"} for p in here))
    assert list(compared(named, here).tracks) == ["names"]
    with pytest.raises(ValueError, match="has answers as names only, this evaluation as coordinates"):
        compared(named, HERE[:2])


def test_labels_of_osv5m_stay_with_their_images(tmp_path: Path) -> None:
    pytest.importorskip("reverse_geocoder", reason="reverse_geocoder is not installed")
    from geogrpo.metrics import osv_index

    other = written(tmp_path / "x.jsonl", row("c", TOKYO), row("b", LIMA))
    labels = {f"unique_{level}": ["x", "XX", "JP", "x"] for level in ("country", "region", "sub-region", "city")}
    found = compared(other, allow_missing=True, osv_index=osv_index(), osv_labels=labels)
    # Lima is in another country than its label says
    assert found.tracks["coordinates"]["osv_country"].after == 0.5


def test_a_folder_is_read_by_its_predictions(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"--compare .*: has no predictions\.jsonl\. Of an evaluation of --predictions"
    ):
        read_other(tmp_path)
    written(tmp_path / "predictions.jsonl", *(p.to_json() for p in HERE))
    assert compared(tmp_path).num_images == 4
    with pytest.raises(ValueError, match=r"none\.csv: no such file\. --compare names a file"):
        read_other(tmp_path / "none.csv")
