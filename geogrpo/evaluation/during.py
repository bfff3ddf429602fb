"""Held-out evaluation while stage 2 trains: when one is due, which was the best, when to stop.

Shapes: N images, K samples.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from geogrpo.config import EvaluationConfig
from geogrpo.distributed import all_gather_list, is_main
from geogrpo.evaluation.answers import HeldOutPrediction, greedy_points, true_points
from geogrpo.evaluation.closing import answer_rewards
from geogrpo.metrics import THRESHOLDS_KM, image_columns
from geogrpo.regions.index import RegionIndex

SAMPLED_METRICS = ("sampled_reward", "best_sample_reward")
"""Mean over an image's samples, and the best of them."""
METRICS = {
    "greedy_reward": True,
    **dict.fromkeys(SAMPLED_METRICS, True),
    "geoscore": True,
    **{f"within_{km:g}_km": True for km in THRESHOLDS_KM},
    "country_accuracy": True,
    "mean_km": False,
    "median_km": False,
    "unparseable": False,
}
"""Metric -> whether more of it is better. Rewards are the closing table's, whatever GRPO is paid for; all others are of
greedy answers."""


def check_best_metric(config: EvaluationConfig) -> None:
    """Raise ValueError, naming evaluation.best_metric, when it is unknown or needs samples that there are none of."""
    name = config.best_metric
    if name not in METRICS:
        raise ValueError(f"evaluation.best_metric {name!r} is unknown. Known: {', '.join(METRICS)}.")
    if name in SAMPLED_METRICS and config.num_samples == 0:
        raise ValueError(f"evaluation.best_metric: {name} needs evaluation.num_samples above 0.")


def measure(predictions: Sequence[HeldOutPrediction], index: RegionIndex) -> dict[str, float]:
    """METRICS of at least one image's answers; without those that no image counts in, as of samples."""
    rewards = answer_rewards(predictions)
    points, truth = greedy_points(predictions).numpy(), true_points(predictions).numpy()
    columns, distance_km = image_columns(points, truth, index=index)
    found = {name: float(values.mean()) for name, values in rewards.items()}
    found |= {
        name: float(column.scored().mean()) for name, column in columns.items() if name in METRICS and column.num_scored
    }
    return found | {"median_km": float(np.median(distance_km))}


@dataclass(frozen=True)
class Evaluated:
    """One evaluation."""

    step: int
    """Steps of stage 2 done before it."""
    metrics: dict[str, float]


class EvaluationHistory:
    """The evaluations of a stage, also as a file that a resumed run goes on with. Every rank has one.

    Args:
        config: when, and by which metric.
        path: JSON, written anew by the main rank after each evaluation, complete or not at all.
        step: steps done so far; evaluations after it, of an attempt that was killed, are forgotten.
        now: seconds.
    """

    def __init__(
        self, config: EvaluationConfig, path: Path, *, step: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._config, self._path, self._now = config, path, now
        self._found = [evaluated for evaluated in (_read(path) if step else []) if evaluated.step <= step]
        self._last_s = now()

    @property
    def is_wanted(self) -> bool:
        """Whether there are evaluations while training at all."""
        return self._config.every_steps > 0 or self._config.every_minutes > 0

    def is_due(self, step: int) -> bool:
        """Whether to evaluate after so many steps; 0: before the first. Every rank must call this, and the main rank's
        clock decides.
        """
        if not self.is_wanted or any(evaluated.step == step for evaluated in self._found):
            return False
        if step == 0 or (self._config.every_steps and step % self._config.every_steps == 0):
            return True
        is_late = self._config.every_minutes > 0 and self._now() - self._last_s >= 60 * self._config.every_minutes
        return self._config.every_minutes > 0 and all_gather_list([is_late])[0]

    def add(self, step: int, metrics: dict[str, float]) -> bool:
        """Keep an evaluation; whether it is the best one so far. The main rank's numbers count.

        Raises:
            ValueError: when config.best_metric is not among the metrics.
        """
        if self._config.best_metric not in metrics:
            raise ValueError(
                f"evaluation.best_metric: {self._config.best_metric} cannot be measured on these held-out images."
                f" Take another: {', '.join(metrics)}."
            )
        self._found.append(Evaluated(step, all_gather_list([metrics])[0]))
        self._last_s = self._now()
        if is_main():
            _write(self._path, self._found, self._config.best_metric)
        return self.best is self.newest

    @property
    def newest(self) -> Evaluated:
        """The last one; there must be one."""
        return self._found[-1]

    @property
    def best(self) -> Evaluated | None:
        """The best evaluation by config.best_metric, the first of equals; None before the first."""
        name = self._config.best_metric
        sign = 1 if METRICS[name] else -1
        return max(self._found, key=lambda evaluated: sign * evaluated.metrics[name], default=None)

    @property
    def has_stalled(self) -> bool:
        """Whether config.patience evaluations have passed without a better one."""
        best = self.best
        if best is None or not self._config.patience:
            return False
        return len(self._found) - 1 - self._found.index(best) >= self._config.patience


def _read(path: Path) -> list[Evaluated]:
    if not path.exists():
        return []
    try:
        return [Evaluated(**record) for record in json.loads(path.read_text(encoding="utf-8"))["evaluations"]]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: not a history of evaluations: {error}. Delete it to go on without.") from error


def _write(path: Path, evaluations: Sequence[Evaluated], best_metric: str) -> None:
    record = {"best_metric": best_metric, "evaluations": [asdict(evaluated) for evaluated in evaluations]}
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


__all__ = ["METRICS", "Evaluated", "EvaluationHistory", "check_best_metric", "measure"]
