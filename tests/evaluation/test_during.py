"""Evaluations while training: what is measured, when one is due, which is the best, when to stop."""

import json
import math
from pathlib import Path

import pytest

from geogrpo.config import EvaluationConfig
from geogrpo.evaluation import HeldOutPrediction
from geogrpo.evaluation.during import METRICS, SAMPLED_METRICS, EvaluationHistory, check_best_metric, measure
from geogrpo.regions.index import RegionIndex, default_index

PARIS, LONDON = (48.8566, 2.3522), (51.5074, -0.1278)
PARIS_TO_LONDON_KM = 343.56


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    return default_index()


def prediction(
    point: tuple[float, float] | None, samples: list[tuple[float, float] | None], truth: tuple[float, float] = PARIS
) -> HeldOutPrediction:
    return HeldOutPrediction("a", truth, point, samples, text="")


def multiscale(distance_km: float) -> float:
    return sum(math.exp(-distance_km / scale) for scale in (1, 25, 200, 750, 2500)) / 5


def test_measured_by_hand(index: RegionIndex) -> None:
    found = measure(
        [
            prediction(PARIS, [PARIS, None]),
            prediction(LONDON, [LONDON, PARIS]),
            prediction(None, [None, None]),
        ],
        index,
    )
    near = multiscale(PARIS_TO_LONDON_KM)
    assert found.keys() == METRICS.keys()
    assert found["greedy_reward"] == pytest.approx((1 + near) / 3, rel=1e-4)
    assert found["sampled_reward"] == pytest.approx((0.5 + (near + 1) / 2) / 3, rel=1e-4)
    assert found["best_sample_reward"] == pytest.approx(2 / 3)
    assert found["within_1_km"] == found["within_200_km"] == found["country_accuracy"] == pytest.approx(1 / 3)
    assert found["within_750_km"] == pytest.approx(2 / 3)
    assert found["median_km"] == pytest.approx(PARIS_TO_LONDON_KM, rel=1e-3)
    assert found["mean_km"] == pytest.approx((PARIS_TO_LONDON_KM + math.pi * 6371.0088) / 3, rel=1e-3)
    assert found["unparseable"] == pytest.approx(1 / 3)


def test_without_samples_there_is_nothing_of_samples(index: RegionIndex) -> None:
    assert measure([prediction(PARIS, [])], index).keys() == METRICS.keys() - set(SAMPLED_METRICS)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def history(path: Path, *, step: int = 0, now: Clock | None = None, **options: object) -> EvaluationHistory:
    config = EvaluationConfig(**options)  # type: ignore[arg-type]
    return EvaluationHistory(config, path / "evaluations.json", step=step, now=now or Clock())


def values(name: str, value: float) -> dict[str, float]:
    return {"greedy_reward": 0.5, name: value}


def test_none_is_due_unless_asked_for(tmp_path: Path) -> None:
    assert not any(history(tmp_path).is_due(step) for step in range(5))


def test_due_before_the_first_step_and_every_few_steps_once(tmp_path: Path) -> None:
    evaluations = history(tmp_path, every_steps=3)
    assert [step for step in range(8) if evaluations.is_due(step)] == [0, 3, 6]
    evaluations.add(3, values("geoscore", 1.0))
    assert not evaluations.is_due(3)


def test_due_when_minutes_have_passed_since_the_last(tmp_path: Path) -> None:
    clock = Clock()
    evaluations = history(tmp_path, every_minutes=2.0, now=clock)
    due = []
    for step in range(1, 8):
        clock.now += 50.0
        if evaluations.is_due(step):
            due.append(step)
            evaluations.add(step, values("geoscore", 1.0))
    assert due == [3, 6]


@pytest.mark.parametrize(("metric", "best_value"), [("geoscore", 3.0), ("median_km", 1.0)])
def test_the_best_is_the_first_of_the_best(tmp_path: Path, metric: str, best_value: float) -> None:
    evaluations = history(tmp_path, every_steps=1, best_metric=metric)
    assert evaluations.best is None
    improved = [evaluations.add(step, values(metric, value)) for step, value in enumerate([2.0, 1.0, 3.0, 3.0, 1.0])]
    assert improved == [True, *((False, True) if metric == "geoscore" else (True, False)), False, False]
    assert evaluations.best is not None
    assert evaluations.best.metrics[metric] == best_value
    assert evaluations.best.step == {"geoscore": 2, "median_km": 1}[metric]


def test_stalled_after_as_many_evaluations_as_patience_without_a_better_one(tmp_path: Path) -> None:
    evaluations = history(tmp_path, every_steps=1, best_metric="geoscore", patience=2)
    stalled = []
    for step, value in enumerate([1.0, 0.5, 2.0, 2.0, 1.0]):
        evaluations.add(step, values("geoscore", value))
        stalled.append(evaluations.has_stalled)
    assert stalled == [False, False, False, False, True]
    assert not history(tmp_path, step=9, every_steps=1, best_metric="geoscore", patience=0).has_stalled


def test_a_resumed_run_forgets_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    first = history(tmp_path, every_steps=2, best_metric="geoscore")
    for step, value in ((0, 1.0), (2, 3.0), (4, 5.0)):
        first.add(step, values("geoscore", value))
    resumed = history(tmp_path, step=3, every_steps=2, best_metric="geoscore")
    assert resumed.best is not None
    assert resumed.best.step == 2
    assert resumed.is_due(4)
    assert not resumed.is_due(2)
    resumed.add(4, values("geoscore", 2.0))
    record = json.loads((tmp_path / "evaluations.json").read_text())
    assert [evaluated["step"] for evaluated in record["evaluations"]] == [0, 2, 4]
    assert record["evaluations"][2]["metrics"]["geoscore"] == 2.0
    assert history(tmp_path, every_steps=2).best is None


@pytest.mark.parametrize("content", ["{", "{}", '{"evaluations": [{"step": 1}]}'])
def test_a_damaged_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "evaluations.json").write_text(content)
    with pytest.raises(ValueError, match=r"evaluations\.json: not a history of evaluations"):
        history(tmp_path, step=1, every_steps=2)


def test_a_metric_that_cannot_decide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.best_metric 'accuracy' is unknown\. Known: greedy_reward"):
        check_best_metric(EvaluationConfig(best_metric="accuracy"))
    for name in SAMPLED_METRICS:
        with pytest.raises(ValueError, match=rf"evaluation\.best_metric: {name} needs evaluation\.num_samples above 0"):
            check_best_metric(EvaluationConfig(best_metric=name, num_samples=0))
        check_best_metric(EvaluationConfig(best_metric=name))
    evaluations = history(tmp_path, every_steps=1, best_metric="country_accuracy")
    with pytest.raises(
        ValueError, match=r"country_accuracy cannot be measured on these held-out images\. Take another"
    ):
        evaluations.add(0, {"greedy_reward": 1.0})
