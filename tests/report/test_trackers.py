"""What trackers are told, with the real libraries offline; that none of them ends a run."""

import json
import logging
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from geogrpo.config import LoggingConfig
from geogrpo.config.run import TRACKERS as NAMED
from geogrpo.report.alerts import Alert
from geogrpo.report.run_log import RunLog
from geogrpo.report.trackers import TRACKERS, Trackers, check_trackers, start_trackers

ALERT = Alert("entropy", 3, False, "it is low", {"entropy": 0.01})


class Recorder:
    """A tracker that keeps what it is told, or fails."""

    errors = (OSError,)

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.told: list[Any] = []

    def log(self, values: Mapping[str, float]) -> None:
        self._take(dict(values))

    def alert(self, title: str, text: str) -> None:
        self._take((title, text))

    def close(self) -> None:
        self._take("closed")

    def _take(self, what: Any) -> None:
        self.told.append(what)
        if self.failure is not None:
            raise self.failure


def train(log: RunLog) -> None:
    """Two stages whose steps begin at 1 each."""
    for stage, name in (("supervised", "loss"), ("grpo", "reward")):
        for step in (1, 2):
            log.log_step(stage, step, {name: step / 2, "kl": float("nan")})
    log.log_alert(ALERT)
    log.close()


LOGGED = [
    {"supervised/loss": 0.5, "supervised/step": 1},
    {"supervised/loss": 1.0, "supervised/step": 2},
    {"grpo/reward": 0.5, "grpo/step": 1},
    {"grpo/reward": 1.0, "grpo/step": 2},
]


def test_a_tracker_is_told_steps_by_stage_alerts_and_the_end(tmp_path: Path) -> None:
    tracker = Recorder()
    train(RunLog(tmp_path, Trackers({"mine": tracker})))
    assert tracker.told == [*LOGGED, ("entropy", "alert, step 3: it is low"), "closed"]
    (line,) = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "rule": "entropy",
        "step": 3,
        "is_over": False,
        "message": "it is low",
        "numbers": {"entropy": 0.01},
    }


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken, other = Recorder(ConnectionError("no route")), Recorder()
    with caplog.at_level(logging.WARNING):
        train(RunLog(tmp_path, Trackers({"mine": broken, "other": other})))
    (record,) = caplog.records
    assert "logging.trackers: mine failed (ConnectionError: no route)" in record.getMessage()
    assert broken.told == [LOGGED[0], "closed"]
    assert other.told[:4] == LOGGED
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_an_error_that_is_not_the_trackers_own_is_not_swallowed(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="a bug"):
        train(RunLog(tmp_path, Trackers({"mine": Recorder(KeyError("a bug"))})))


def test_a_log_without_trackers_works(tmp_path: Path) -> None:
    train(RunLog(tmp_path))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_library_is_refused_with_its_extra(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geogrpo.report.trackers.find_spec", lambda name: None)
    for refused in (check_trackers, lambda config: start_trackers(config, tmp_path / "run")):
        with pytest.raises(
            ValueError, match=rf"logging\.trackers: {name} is not installed: pip install 'geogrpo\[{name}\]'"
        ):
            refused(LoggingConfig(trackers=[name]))
    assert not (tmp_path / "run").exists()
    check_trackers(LoggingConfig())


def test_the_options_name_the_trackers_there_are() -> None:
    assert tuple(TRACKERS) == NAMED


def test_real_trackio_keeps_every_step_and_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for module in ("trackio.utils", "trackio.sqlite_storage"):
        monkeypatch.setattr(f"{module}.TRACKIO_DIR", tmp_path / "trackio")
    config = LoggingConfig(trackers=["trackio"], project="places")
    for is_resumed in (False, True):
        trackers = start_trackers(config, tmp_path / "a-run", {"seed": 3}, is_resumed=is_resumed)
        train(RunLog(tmp_path / "a-run", trackers))
    with sqlite3.connect(tmp_path / "trackio" / "places.db") as database:
        rows = database.execute("SELECT run_id, run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        alerts = database.execute("SELECT title, text FROM alerts").fetchall()
    assert [json.loads(row[3]) for row in rows] == LOGGED * 2
    assert [row[2] for row in rows] == list(range(8))
    assert {row[1] for row in rows} == {"a-run"}
    assert len({row[0] for row in rows}) == 1
    assert alerts == [("entropy", "alert, step 3: it is low")] * 2


def test_real_wandb_writes_an_offline_run_and_goes_on_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    config = LoggingConfig(trackers=["wandb"], project="places")
    for is_resumed in (False, True):
        trackers = start_trackers(config, tmp_path / "a-run", {"seed": 3}, is_resumed=is_resumed)
        run = wandb.run
        assert (run.project, run.name, dict(run.config)) == ("places", "a-run", {"seed": 3})
        assert run.id == (tmp_path / "a-run" / "wandb_id").read_text()
        for values in LOGGED:
            (stage, name), _ = (key.split("/") for key in values)
            trackers.log_step(stage, int(values[f"{stage}/step"]), {name: values[f"{stage}/{name}"]})
        # No step was dropped although the second stage begins at 1 again.
        assert run.step == len(LOGGED)
        assert {name: run.summary[name] for name in LOGGED[1] | LOGGED[3]} == LOGGED[1] | LOGGED[3]
        trackers.alert(ALERT)
        trackers.close()
    files = sorted((tmp_path / "a-run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len({file.name for file in files}) == 1
    assert b"it is low" in files[0].read_bytes()


def test_wandb_that_cannot_begin_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = ModuleType("wandb")

    class Error(Exception):
        """As wandb.Error."""

    def init(**_: Any) -> None:
        raise Error("no API key configured.")

    wandb.Error, wandb.init, wandb.Settings = Error, init, dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr("geogrpo.report.trackers.find_spec", lambda name: wandb)
    with pytest.raises(ValueError, match=r"logging\.trackers: wandb cannot begin: no API key.* WANDB_MODE=offline"):
        start_trackers(LoggingConfig(trackers=["wandb"]), tmp_path)
