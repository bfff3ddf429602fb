"""A run tells its trackers what its own files hold, and says alerts."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from geogrpo.config import LoggingConfig, RunConfig
from geogrpo.report.run_log import read_metrics
from geogrpo.report.trackers import TRACKERS
from geogrpo.run import Run, validate


class Recorder:
    errors = (OSError,)

    def __init__(self, run: Any) -> None:
        self.run, self.values, self.alerts, self.is_closed = run, [], [], False
        made.append(self)

    def log(self, values: Mapping[str, float]) -> None:
        self.values.append(dict(values))

    def alert(self, title: str, text: str) -> None:
        self.alerts.append(text)

    def close(self) -> None:
        self.is_closed = True


made: list[Any] = []


def test_a_run_tells_its_trackers_and_says_its_alerts(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(TRACKERS, "trackio", Recorder)
    monkeypatch.setattr("geogrpo.report.trackers.find_spec", lambda name: name)
    logging = LoggingConfig(trackers=["trackio"], project="places", alert_window=4, alert_entropy=1e9)
    supervised = dataclasses.replace(config.supervised, steps=1)
    run = Run(dataclasses.replace(config, logging=logging, supervised=supervised), device, resume=False)
    run.train()
    (tracker,) = made
    assert (tracker.run.project, tracker.run.folder, tracker.run.is_resumed) == ("places", run.folder, False)
    assert tracker.run.options["logging"]["alert_window"] == 4
    # What is not finite is null in metrics.jsonl.
    assert tracker.values == [
        {f"{record['stage']}/{name}": value for name, value in record.items() if isinstance(value, int | float)}
        for record in [{k: v for k, v in record.items() if k != "time_s"} for record in read_metrics(run.folder)]
    ]
    assert tracker.is_closed
    alerts = [json.loads(line) for line in (run.folder / "alerts.jsonl").read_text().splitlines()]
    (entropy,) = [alert for alert in alerts if alert["rule"] == "entropy"]
    line = f"alert, step 4: {entropy['message']}"
    assert line in capsys.readouterr().out.splitlines()
    assert line in tracker.alerts


def test_a_missing_tracker_is_refused_before_data_is_read(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geogrpo.report.trackers.find_spec", lambda name: None)
    without = dataclasses.replace(config.data, path="nowhere.jsonl")
    with pytest.raises(ValueError, match=r"pip install 'geogrpo\[wandb\]'"):
        validate(dataclasses.replace(config, data=without, logging=LoggingConfig(trackers=["wandb"])))
