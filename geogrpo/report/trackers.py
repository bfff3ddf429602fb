"""Experiment trackers besides metrics.jsonl and TensorBoard. To add one: a class here, a line in TRACKERS, an extra of
its name, and its name in config.run.TRACKERS.

A tracker gets `<stage>/<metric>` and `<stage>/step`, on a count of its own that only grows: stages begin at step 1
again, and a resumed run repeats steps since its last checkpoint.
"""

import logging
import math
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from geogrpo.config import LoggingConfig
from geogrpo.report.alerts import Alert

logger = logging.getLogger(__name__)

FINISH_TIMEOUT_S = 300.0
"""What is not uploaded so long after the end of a run stays in its folder, for `wandb sync`."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run."""

    project: str
    folder: Path
    """Its name is the run's."""
    options: Mapping[str, Any]
    """The configuration, plain nested values."""
    is_resumed: bool


class Tracker(Protocol):
    """Takes what a run reports. Made with a TrackedRun, it may raise ValueError when it cannot begin."""

    errors: tuple[type[Exception], ...]
    """What may go wrong with it while a run trains and must not end the run."""

    def log(self, values: Mapping[str, float]) -> None:
        """One step's finite numbers, by `<stage>/<name>`."""

    def alert(self, title: str, text: str) -> None:
        """Something worth a look."""

    def close(self) -> None:
        """The run has ended."""


class WandbTracker:
    """Weights & Biases; WANDB_MODE=offline needs no network."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.errors: tuple[type[Exception], ...] = (wandb.Error, OSError)
        id_file = run.folder / "wandb_id"
        try:
            self._run = wandb.init(
                project=run.project,
                name=run.folder.name,
                dir=str(run.folder),
                config=dict(run.options),
                id=id_file.read_text(encoding="utf-8") if run.is_resumed and id_file.exists() else None,
                resume="allow",
                # A live display is no log.
                settings=wandb.Settings(console="off", finish_timeout=FINISH_TIMEOUT_S),
            )
        except wandb.Error as error:
            raise ValueError(
                f"logging.trackers: wandb cannot begin: {error} `wandb login`, or WANDB_MODE=offline for `wandb sync`"
                " later."
            ) from error
        id_file.write_text(self._run.id, encoding="utf-8")
        self._stages: set[str] = set()

    def log(self, values: Mapping[str, float]) -> None:
        """As in Tracker. A stage's curves are over its own steps."""
        for stage in {name.partition("/")[0] for name in values} - self._stages:
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._stages.add(stage)
        self._run.log(dict(values))

    def alert(self, title: str, text: str) -> None:
        """As in Tracker."""
        self._run.alert(title, text)

    def close(self) -> None:
        """As in Tracker."""
        self._run.finish()


class TrackioTracker:
    """Trackio: a local database (TRACKIO_DIR), or a Space or server that its own environment variables name."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio
        from trackio.exceptions import TrackioAPIError

        self.errors: tuple[type[Exception], ...] = (TrackioAPIError, sqlite3.Error, OSError)
        resume = "allow" if run.is_resumed else "never"
        self._run = trackio.init(project=run.project, name=run.folder.name, config=dict(run.options), resume=resume)

    def log(self, values: Mapping[str, float]) -> None:
        """As in Tracker."""
        self._run.log(dict(values))

    def alert(self, title: str, text: str) -> None:
        """As in Tracker."""
        self._run.alert(title, text)

    def close(self) -> None:
        """As in Tracker."""
        self._run.finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {"wandb": WandbTracker, "trackio": TrackioTracker}
"""What logging.trackers can name."""


class Trackers:
    """All of a run's trackers. One that fails is left out from there on, with one warning: the run goes on."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def log_step(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """A step's metrics; what is not finite is left out."""
        values = {f"{stage}/{name}": value for name, value in metrics.items() if math.isfinite(value)}
        self._tell("log", {**values, f"{stage}/step": step})

    def alert(self, alert: Alert) -> None:
        """An alert that begins or ends."""
        self._tell("alert", f"{alert.rule}{' over' if alert.is_over else ''}", alert.line())

    def close(self) -> None:
        """The run has ended."""
        self._tell("close")

    def _tell(self, method: str, *values: Any) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                getattr(tracker, method)(*values)
            except tracker.errors as error:
                logger.warning(
                    "logging.trackers: %s failed (%s: %s) and gets nothing more; metrics.jsonl has every step.",
                    name,
                    type(error).__name__,
                    error,
                )
                del self._trackers[name]
                with suppress(*tracker.errors):
                    tracker.close()


def check_trackers(config: LoggingConfig) -> None:
    """Raise ValueError, naming the extra, unless the libraries of all trackers are installed."""
    for name in config.trackers:
        if find_spec(name) is None:
            raise ValueError(f"logging.trackers: {name} is not installed: pip install 'geogrpo[{name}]'.")


def start_trackers(
    config: LoggingConfig, folder: Path, options: Mapping[str, Any] | None = None, *, is_resumed: bool = False
) -> Trackers:
    """The trackers that the options name. Only the main rank starts any.

    Args:
        folder: of the run.
        options: of the run, as plain nested values.
    Raises:
        ValueError: naming the extra of one that is not installed, or saying why one cannot begin.
    """
    check_trackers(config)
    if config.trackers:
        folder.mkdir(parents=True, exist_ok=True)
    run = TrackedRun(config.project, folder, options or {}, is_resumed)
    return Trackers({name: TRACKERS[name](run) for name in config.trackers})
