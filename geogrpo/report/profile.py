"""A trace of a stage's steps for chrome://tracing or Perfetto."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WAIT_STEPS, WARM_STEPS, TRACED_STEPS = 1, 1, 2
"""The first steps, of which nothing is kept, and those in the trace; a stage with fewer has none."""


@contextmanager
def traced_steps(path: Path | None) -> Iterator[Callable[[], None]]:
    """What to call after each step; it writes `path` (.json.gz) once its steps are done. None traces nothing."""
    if path is None:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    path.parent.mkdir(parents=True, exist_ok=True)
    with profile(
        activities=activities,
        schedule=schedule(wait=WAIT_STEPS, warmup=WARM_STEPS, active=TRACED_STEPS, repeat=1),
        on_trace_ready=lambda finished: finished.export_chrome_trace(str(path)),
    ) as profiler:
        yield profiler.step
