"""Rewards of greedy answers for the page: those of training, and never the end of a report."""

import math
from typing import Any

import pytest
from evaluation.answering import LYON, PARIS, answer, by_id

from geogrpo.config import JudgeConfig, RewardConfig
from geogrpo.evaluation import HeldOutPrediction, held_out_prediction
from geogrpo.evaluation.example_rewards import greedy_rewards
from geogrpo.rewards import REWARDS
from geogrpo.types import Example

TEXT = "Country: France\nCity: Paris\nCoordinates: (48.86, 2.35)"


def answered(text: str, example_id: str = "a") -> HeldOutPrediction:
    return held_out_prediction(Example(example_id, "", PARIS), text, [])


def rewards_of(
    predictions: list[HeldOutPrediction], config: RewardConfig, **columns: Any
) -> tuple[list[dict[str, float]], list[str]]:
    return greedy_rewards(predictions, by_id(predictions, **columns), config, "Where?")


def test_components_are_those_of_the_reward_functions() -> None:
    config = RewardConfig(weights={"multiscale": 2.0, "format": 0.5})
    (found, missed), notes = rewards_of([answered(TEXT), answered("no idea", "b")], config)
    # Not weighted, and the gate is there once
    assert found == {"multiscale": 1.0, "format": 1.0}
    assert missed == {"multiscale": 0.0, "format": 0.0}
    assert notes == []


def test_points_read_from_a_file_are_lists_and_count_all_the_same() -> None:
    record = answered(TEXT).to_json() | {"predicted_latlon_deg": [48.86, 2.35]}
    (found,), _ = rewards_of([HeldOutPrediction(**record)], RewardConfig(preset="multiscale"))
    assert found["multiscale"] == 1.0


def test_an_answer_beside_its_text_earns_nothing_that_could_mislead() -> None:
    beside = [answer("a", PARIS, PARIS), answer("b", PARIS, LYON, text=TEXT, country="France", city="Paris")]
    assert rewards_of([*beside, answered(TEXT, "c")], RewardConfig(preset="multiscale"))[0][:2] == [{}, {}]
    assert rewards_of(beside, RewardConfig(preset="multiscale")) == ([{}, {}], [])


def test_rewards_that_cannot_be_asked_are_left_out_with_a_line() -> None:
    weights = {"multiscale": 1.0, "localizability": 1.0, "my_own": 1.0, "visual_recall": 1.0}
    config = RewardConfig(weights=weights, judge=JudgeConfig(url="http://localhost:1"))
    (found,), notes = rewards_of([answered(TEXT)], config)
    assert list(found) == ["multiscale", "format"]
    assert [note.split(" is left out of the report: ")[0] for note in notes] == [
        "reward 'localizability'",
        "reward 'my_own'",
        "reward 'visual_recall'",
    ]
    assert "asks a judge" in notes[0]
    assert "needs the column 'entities', which example 'a' does not have" in notes[2]
    (found,), notes = rewards_of([answered(TEXT)], config, entities=["sea"])
    assert "visual_recall" in found


def test_a_reward_that_fails_is_left_out_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        raise KeyError("x")

    monkeypatch.setitem(REWARDS, "broken", broken)
    monkeypatch.setitem(REWARDS, "absent", lambda prompts, completions, **_: [None] * len(prompts))
    config = RewardConfig(weights={"broken": 1.0, "absent": 1.0, "multiscale": 1.0}, gates=[])
    (found,), (note,) = rewards_of([answered(TEXT)], config)
    assert list(found) == ["absent", "multiscale"]
    assert math.isnan(found["absent"])
    assert "reward 'broken' is left out of the report: reward 'broken' failed for a completion of example 'a'" in note
