"""Files of answers as our own runs write them; those of others are in tests/test_evaluate.py."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from evaluation.answering import LIMA, PARIS, answer

from geogrpo.evaluation import read_held_out
from geogrpo.evaluation.foreign import match_predictions, read_foreign

OURS = [
    answer("a", PARIS, PARIS, LIMA, None, text="in Paris", country="France", city="Paris", problem="two countries"),
    answer("b", LIMA, None, None, None, text="no idea", problem="no coordinates"),
]


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_our_own_file_is_read_back_with_its_samples(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", *(p.to_json() for p in OURS))
    matched, missing, unknown = match_predictions(read_foreign(path), [("b", LIMA), ("c", LIMA), ("a", PARIS)])
    assert [p.id for p in matched] == ["b", "c", "a"]
    assert [(p.problem, p.text) for p in matched] == [
        ("no coordinates", "no idea"),
        ("no prediction", ""),
        ("two countries", "in Paris"),
    ]
    assert (missing, unknown) == (["c"], [])
    # What is missing has as many samples as the others, all of them misses
    assert [p.sampled_latlon_deg for p in matched] == [[None, None], [None, None], [LIMA, None]]
    assert [p.id for p in read_held_out(path)] == ["a", "b"]


def test_a_longitude_may_be_written_from_either_side(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", {"id": "a", "lat": 1, "lon": 2, "true_latlon_deg": [-17.0, 179.9999999]})
    match_predictions(read_foreign(path), [("a", (-17.0, -180.0))])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampled_latlon_deg": [[1, 2]]}, r"line 2: has 1 samples, line 1 has 2\. Give each image as many"),
        ({"sampled_latlon_deg": [[1], None]}, r"line 2: each of sampled_latlon_deg must be \[latitude, longitude\]"),
        ({"sampled_latlon_deg": [[100, 2], None]}, r"line 2: \(100\.0, 2\.0\) is no latitude .*swapped\?"),
        ({"sampled_latlon_deg": "x"}, r"line 2: sampled_latlon_deg must be a list of points, got 'x'"),
        ({"true_latlon_deg": 5}, r"line 2: true_latlon_deg must be \[latitude, longitude\] or null, got 5"),
        ({"predicted_latlon_deg": [12.5, None]}, "line 2: latitude and longitude must be numbers, got 12.5 and None"),
    ],
)
def test_a_bad_point_is_named_by_its_row(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = written(tmp_path / "x.jsonl", OURS[0].to_json(), OURS[1].to_json() | change)
    with pytest.raises(ValueError, match=message):
        read_foreign(path)


def test_a_damaged_or_truncated_gzip_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    content = gzip.compress(b"id,lat,lon\n" + b"".join(b"%d,%d,2\n" % (i, i % 90) for i in range(2000)))
    # Cut short; a block of a kind that there is not; no gzip at all
    for damaged in (content[: len(content) // 2], content[:10] + b"\x07" + content[11:], b"id,lat,lon\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.csv\.gz: "):
            read_foreign(path)
