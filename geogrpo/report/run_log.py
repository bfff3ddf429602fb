"""The folder of a run: metrics, TensorBoard events, alerts, every completion, held-out predictions. Logs only grow."""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from geogrpo.evaluation import HeldOutPrediction, read_held_out
from geogrpo.report.alerts import Alert
from geogrpo.report.trackers import Trackers


class RunLog:
    """Writes a run's records as they come. Only the main rank makes one.

    Args:
        folder: runs/<name>; made when missing.
        trackers: that get metrics and alerts, too; closed with the log.
    """

    def __init__(self, folder: Path, trackers: Trackers | None = None) -> None:
        self.folder = folder
        self._trackers = trackers or Trackers({})
        folder.mkdir(parents=True, exist_ok=True)
        self._tensorboard = SummaryWriter(str(folder / "tensorboard"))

    def close(self) -> None:
        """Flush the TensorBoard events, and tell the trackers that the run has ended."""
        self._tensorboard.close()
        self._trackers.close()

    def log_step(self, stage: str, step: int, metrics: dict[str, float]) -> None:
        """One line of metrics.jsonl, one point of every TensorBoard curve, one step of every tracker."""
        record = {"stage": stage, "step": step, "time_s": round(time.time(), 3)}
        _append(self.folder / "metrics.jsonl", [{**record, **metrics}])
        for name, value in metrics.items():
            self._tensorboard.add_scalar(f"{stage}/{name}", value, step)
        self._trackers.log_step(stage, step, metrics)

    def log_alert(self, alert: Alert) -> None:
        """One line of alerts.jsonl; trackers get it, too."""
        _append(self.folder / "alerts.jsonl", [alert.to_json()])
        self._trackers.alert(alert)

    def log_completions(self, records: Iterable[dict[str, Any]]) -> None:
        """Append sampled completions with their reward components."""
        _append(self.folder / "completions.jsonl", records)

    def write_predictions(self, stage: str, predictions: Sequence[HeldOutPrediction]) -> None:
        """predictions_<stage>.jsonl, complete or not at all."""
        path = predictions_path(self.folder, stage)
        temporary = path.with_suffix(".writing")
        temporary.unlink(missing_ok=True)
        _append(temporary, (prediction.to_json() for prediction in predictions))
        temporary.rename(path)


def predictions_path(folder: Path, stage: str) -> Path:
    """Where a stage's held-out predictions are."""
    return folder / f"predictions_{stage}.jsonl"


def read_predictions(folder: Path, stage: str) -> list[HeldOutPrediction]:
    """The held-out predictions of a stage."""
    return read_held_out(predictions_path(folder, stage))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Every step's metrics, in order. A step repeated after a resume counts once: the last one."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    steps: dict[tuple[str, int], dict[str, Any]] = {}
    for record in map(json.loads, lines):
        steps[record["stage"], record["step"]] = record
    return list(steps.values())


def _append(path: Path, records: Iterable[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        # allow_nan=False: NaN is not JSON, and other readers would fail on the line
        file.writelines(json.dumps(_finite(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and value != value else value for key, value in record.items()}
