"""The files of an evaluation for readers, of a handful of answers."""

import json
import re
from pathlib import Path
from typing import Any

from evaluation.answering import LIMA, LYON, NAIROBI, PARIS, answer, by_id

from geogrpo.config import RunConfig
from geogrpo.config_files import config_to_dict
from geogrpo.evaluation import HeldOutPrediction
from geogrpo.evaluation.comparison import Comparison
from geogrpo.evaluation.floors import measure_floors
from geogrpo.evaluation.scores import score_tracks
from geogrpo.metrics import Difference
from geogrpo.regions.index import default_index
from geogrpo.report.evaluated import write_evaluation

ANSWERS = [
    answer("a", PARIS, PARIS, PARIS, PARIS, PARIS),
    answer("b", LIMA, None, LIMA, LYON, None),
    answer("c", NAIROBI, LYON, LYON, LYON, LYON),
]


def written(folder: Path, predictions: list[HeldOutPrediction], **found: Any) -> list[dict[str, Any]]:
    """Writes the files; the examples as the page has them."""
    write_evaluation(
        folder,
        predictions=predictions,
        examples=by_id(predictions),
        scored=score_tracks(predictions, index=default_index(), num_samples=100),
        config=config_to_dict(RunConfig()),
        index=default_index(),
        world=None,
        **found,
    )
    page = (folder / "report.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert data is not None
    return json.loads(data[1])["examples"]


def test_everything_that_was_found_is_in_each_of_the_files(tmp_path: Path) -> None:
    floors = measure_floors([PARIS, LIMA, NAIROBI], default_index())  # type: ignore[arg-type]
    comparison = Comparison("runs/x", 3, 0, 0, {"coordinates": {"mean_km": Difference(1, 2, 1, 0, 2, 0.5)}})
    rewards = [{"multiscale": 1.0}, {}, {"multiscale": 0.25}]
    shown = written(tmp_path, ANSWERS, comparator="<", floors=floors, comparison=comparison, rewards=rewards)
    assert [example["rewards"] for example in shown] == [[["multiscale", 1.0]], [], [["multiscale", 0.25]]]
    for name, special in (("report.html", "&lt;25 km"), ("metrics.md", r"\<25 km"), ("metrics.tex", "{}25 km")):
        text = (tmp_path / name).read_text(encoding="utf-8")
        for part in (special, "floor: best constant", "consensus of the samples", "Compared with runs/x", "Radii"):
            assert part in text, (name, part)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "flatters" in page
    assert "≤25 km" not in page


def test_the_page_says_of_each_image_what_its_samples_say(tmp_path: Path) -> None:
    facts = [dict(example["facts"]) for example in written(tmp_path, ANSWERS)]
    assert facts[0]["Consensus of the samples"] == "48.860, 2.350"
    assert facts[0]["Clusters"] == "1, largest 100%"
    assert facts[1]["Clusters"] == "2, largest 33%"


def test_answers_without_samples_have_neither_facts_nor_calibration(tmp_path: Path) -> None:
    shown = written(tmp_path, [answer("a", PARIS, PARIS)])
    assert (shown[0]["facts"], shown[0]["radius_50_km"]) == ([], None)
    assert not (tmp_path / "figures" / "reliability.png").exists()
    assert "Radii" not in (tmp_path / "metrics.md").read_text(encoding="utf-8")


def test_samples_that_all_say_nothing_make_a_page(tmp_path: Path) -> None:
    shown = written(tmp_path, [answer(name, PARIS, None, None, None) for name in "abcdef"])
    assert dict(shown[0]["facts"])["Consensus of the samples"] == "none"
    assert dict(shown[0]["facts"])["Clusters"] == "0"
    assert not (tmp_path / "figures" / "reliability.png").exists()
