"""The closing tables by hand: what the files of a run say, and what stage 2 changed."""

import io
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from geogrpo.evaluation import HeldOutPrediction
from geogrpo.report.run_log import RunLog
from geogrpo.report.summary import skipped_lines, stage_change, write_report

DEGREE_KM = 6371.0088 * math.pi / 180
HIT, MISS = (0.0, 0.0), None


class Hemispheres:
    """A region index of two countries: west (0) and east (1) of Greenwich."""

    def lookup(self, latlon_deg: np.ndarray) -> SimpleNamespace:
        lon_deg = latlon_deg[:, 1]
        return SimpleNamespace(country=np.where(np.isnan(lon_deg), -1, lon_deg >= 0))


def answer(greedy: tuple | None, sampled: list[tuple | None], name: str = "a") -> HeldOutPrediction:
    """An image at (0, 0) and what was answered."""
    return HeldOutPrediction(name, HIT, greedy, sampled, "")


def report(folder: Path, stages: dict[str, list[HeldOutPrediction]], **metrics: Any) -> tuple[dict[str, Any], str]:
    """summary.json, and what was printed with every gap one space wide."""
    log = RunLog(folder)
    for stage, predictions in stages.items():
        log.write_predictions(stage, predictions)
    for stage in stages:
        log.log_step(stage, 1, metrics)
    log.close()
    console = Console(file=io.StringIO(), width=200)
    returned = write_report(
        folder,
        constant_latlon_deg=np.array([0.0, 1.0]),
        index=Hemispheres(),
        num_samples=100,
        world=None,
        console=console,
    )
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary == returned
    return summary, " ".join(console.file.getvalue().split())


def test_the_closing_table_is_that_computed_by_hand(tmp_path: Path) -> None:
    answers = [answer(point, []) for point in ((0.0, 0.0), (0.0, 1.0), None, (0.0, -90.0))]
    summary, printed = report(tmp_path, {"supervised": answers}, loss=1.0)
    assert summary["num_images"] == 4
    rows = {row: {name: cell["value"] for name, cell in cells.items()} for row, cells in summary["rows"].items()}
    points = [5000 * math.exp(-degrees * DEGREE_KM / 1492.7) for degrees in (0, 1, 90)]
    assert rows["supervised"] == pytest.approx(
        {
            "within_1_km": 0.25,
            "within_25_km": 0.25,
            "within_200_km": 0.5,
            "within_750_km": 0.5,
            "within_2500_km": 0.5,
            # 0, 1, 90 and, without coordinates, 180 degrees away
            "median_km": 45.5 * DEGREE_KM,
            "geoscore": sum(points) / 4,
            "country_accuracy": 0.5,
            "unparseable": 0.25,
        }
    )
    assert rows["constant"] == pytest.approx(
        {
            **dict.fromkeys(("within_1_km", "within_25_km", "unparseable"), 0.0),
            **dict.fromkeys(("within_200_km", "within_750_km", "within_2500_km", "country_accuracy"), 1.0),
            "median_km": DEGREE_KM,
            "geoscore": points[1],
        }
    )
    assert "Greedy answers on 4 held-out images (95 % bootstrap interval below)" in printed
    assert "25.0% │ 25.0% │ 50.0% │ 50.0% │ 50.0% │ 5,059 │ 2,412 │ 50.0% │ 25.0%" in printed
    assert "0.0% │ 0.0% │ 100.0% │ 100.0% │ 100.0% │ 111 │ 4,641 │ 100.0% │ 0.0%" in printed
    assert "stage 2" not in printed


def test_what_stage_2_changed_is_that_computed_by_hand() -> None:
    far = (0.0, 1.0)
    reward_far = sum(math.exp(-DEGREE_KM / km) for km in (1, 25, 200, 750, 2500)) / 5
    before = [answer(HIT, [HIT, MISS]), answer(MISS, [MISS, MISS], "b")]
    after = [answer(HIT, [HIT, HIT]), answer(far, [HIT, far], "b")]
    change = stage_change(before, after, num_samples=100)
    assert {name: estimate.value for name, estimate in change.items()} == pytest.approx(
        {
            "sampled_reward_stage_1": (0.5 + 0) / 2,
            "sampled_reward_stage_2": (1 + (1 + reward_far) / 2) / 2,
            "sampled_reward_change": (0.5 + (1 + reward_far) / 2) / 2,
            "greedy_reward_stage_1": 0.5,
            "greedy_reward_stage_2": (1 + reward_far) / 2,
            "greedy_reward_change": reward_far / 2,
        }
    )
    # Two images change by 0.5 and by (1 + reward_far) / 2: every resample lies between.
    assert change["sampled_reward_change"].low >= 0.5
    assert change["sampled_reward_change"].high <= (1 + reward_far) / 2


def test_images_of_one_id_are_paired_by_their_position() -> None:
    before, after = [answer(HIT, [HIT]), answer(MISS, [MISS])], [answer(HIT, [HIT]), answer(HIT, [HIT])]
    change = stage_change(before, after, num_samples=100)
    assert change["greedy_reward_stage_1"].value == 0.5
    assert change["greedy_reward_change"].value == 0.5


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ([answer(HIT, [HIT])], "got 2 and 1 answers"),
        ([answer(HIT, [HIT], "b"), answer(HIT, [HIT])], "at position 0 'a' with 1 samples and 'b' with 1"),
        ([answer(HIT, [HIT]), answer(HIT, [HIT, HIT], "b")], "at position 1 'b' with 1 samples and 'b' with 2"),
    ],
)
def test_answers_to_other_images_are_not_compared(after: list[HeldOutPrediction], message: str) -> None:
    with pytest.raises(ValueError, match=f"both stages must answer the same images.*{message}"):
        stage_change([answer(HIT, [HIT]), answer(HIT, [HIT], "b")], after, num_samples=100)


def test_the_reward_is_named_in_the_table_and_in_the_summary(tmp_path: Path) -> None:
    summary, printed = report(
        tmp_path, {"supervised": [answer(MISS, [MISS])], "grpo": [answer(HIT, [HIT])]}, reward=1.0
    )
    assert summary["reward"] == "multiscale"
    assert "Mean multiscale reward per held-out image, paired" in printed
    assert "sampled answers │ 0.0000 │ 1.0000 │ +1.0000" in printed
    assert summary["stage_2_minus_stage_1"]["sampled_reward_change"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_without_samples_there_is_no_row_of_sampled_answers(tmp_path: Path) -> None:
    summary, printed = report(tmp_path, {"supervised": [answer(MISS, [])], "grpo": [answer(HIT, [])]}, reward=1.0)
    assert list(summary["stage_2_minus_stage_1"]) == [f"greedy_reward_{x}" for x in ("stage_1", "stage_2", "change")]
    assert "greedy answers │ 0.0000 │ 1.0000 │ +1.0000" in printed
    assert "sampled answers" not in printed


def test_a_run_whose_steps_had_no_entropy_gets_its_report(tmp_path: Path) -> None:
    report(tmp_path, {"supervised": [answer(HIT, [])], "grpo": [answer(HIT, [])]}, reward=0.5, frac_reward_zero_std=1.0)
    assert (tmp_path / "report" / "reward_curve.png").stat().st_size > 0


def test_skipped_images_are_listed_once_each_and_not_without_end() -> None:
    assert skipped_lines({}) == []
    assert skipped_lines({"a.png is broken": 7, "b.png is gone": 1}) == [
        "2 training image(s) could not be read and were skipped:",
        "  a.png is broken (met 7x)",
        "  b.png is gone (met 1x)",
    ]
    lines = skipped_lines({f"image {i}": 1 for i in range(23)})
    assert len(lines) == 22
    assert lines[20] == "  image 19 (met 1x)"
    assert lines[21] == "  and 3 more"
