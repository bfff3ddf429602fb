"""What the user sees while a run trains: a live display on a terminal, plain lines elsewhere."""

import math
import sys
import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHOWN = {
    "supervised": {"loss": "loss", "entropy": "entropy", "tokens_per_s": "tokens/s"},
    "grpo": {
        "reward": "reward",
        "kl": "KL",
        "entropy": "entropy",
        "frac_reward_zero_std": "zero-variance",
        "parse_rate": "parsed",
        "tokens_per_s": "tokens/s",
    },
}
"""Metric -> label, per stage."""
SMOOTHING_STEPS = 20
PLAIN_LINE_EVERY_S = 15.0


class StageDisplay:
    """Progress of one stage. Use as a context manager; call `step` after every step.

    Args:
        stage: a key of SHOWN.
        title: what the stage does.
        total: steps of the stage.
        done: steps done before, in a resumed run.
        console: where to write; lines instead of a live display when it is no terminal.
    """

    def __init__(self, stage: str, title: str, total: int, done: int, console: Console) -> None:
        self._labels, self._total, self._done, self._console = SHOWN[stage], total, done, console
        self._title = title
        self._recent: deque[dict[str, float]] = deque(maxlen=SMOOTHING_STEPS)
        self._started = self._last_line = time.monotonic()
        self._steps_here = 0
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[numbers]}"),
                console=console,
            )
            self._task = self._live.add_task(title, total=total, completed=done, numbers="")

    def __enter__(self) -> "StageDisplay":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def step(self, metrics: dict[str, float]) -> None:
        """Show one more step; numbers are means over the last SMOOTHING_STEPS."""
        self._recent.append(metrics)
        self._done, self._steps_here = self._done + 1, self._steps_here + 1
        numbers = "  ".join(f"{label} {self._mean(name)}" for name, label in self._labels.items())
        skipped = metrics.get("num_skipped_images", 0)
        if skipped:
            numbers += f"  skipped images {skipped:.0f}"
        if self._live:
            self._live.update(self._task, completed=self._done, numbers=numbers)
            return
        now = time.monotonic()
        if self._done == self._total or now - self._last_line >= PLAIN_LINE_EVERY_S:
            self._last_line = now
            left_s = (now - self._started) / self._steps_here * (self._total - self._done)
            line = f"{self._title} {self._done}/{self._total}  {numbers}  {_clock(left_s)} left"
            self._console.print(line, highlight=False, soft_wrap=True)

    def _mean(self, name: str) -> str:
        values = [step[name] for step in self._recent if math.isfinite(step.get(name, math.nan))]
        if not values:
            return "-"
        mean = sum(values) / len(values)
        return f"{mean:,.0f}" if abs(mean) >= 100 else f"{mean:.3f}"


def make_console() -> Console:
    """Standard output, as wide as needed where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
