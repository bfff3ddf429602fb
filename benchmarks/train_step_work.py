"""The work that every contender of bench_train_step.py does, and what is reported of it.

Read by two Python environments, ours and TRL's: nothing here imports torch. Every contender is a process of its own,
`python benchmarks/train_step_<name>.py WORK RESULT`, that reads a list of Work and writes one result for each.
"""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

POLL_S = 0.005
LEARNING_RATE, BETA2, MAX_GRAD_NORM = 1e-6, 0.95, 1.0
"""AdamW of all contenders: beta1 0.9, no weight decay, gradients clipped."""

STATE_BYTES = 16
"""Per parameter, of all contenders: weight, gradient and AdamW's two moments in float32."""


@dataclass(frozen=True)
class Work:
    """Steps of GRPO: sample, reward, one update. Every completion has exactly new_tokens tokens."""

    model: str
    """Folder in the Hugging Face layout."""
    prompt: str
    """Key of geogrpo.prompts.PROMPTS."""
    question: str
    """Its text."""
    never_sampled: list[int]
    """Special and vision tokens, the end token among them, and padding rows of the embedding."""
    vocab_size: int
    image_size: tuple[int, int]
    """Width and height, both multiples of 28 that the image processor keeps, or larger than it keeps."""
    num_prompts: int
    """Per step."""
    group_size: int
    new_tokens: int
    warmup: int = 1
    """Steps before those that count, at least 1."""
    repeats: int = 3
    """Steps that count."""
    task: str = "step"
    """step, update (alone, on given tokens) or logprobs (of given tokens)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Compute dtype; master weights are float32."""
    path: str = "shared"
    """update and logprobs of ours: shared (packed groups) or dense (a copy of the prompt for each completion)."""
    tokens_per_microbatch: int = 16384
    """Ours: unique tokens of a row. update alone: 0 makes every group a row."""
    completions_per_microbatch: int = 8
    """TRL: of one forward and backward pass."""
    scores_prompts: bool = True
    """TRL on a CPU: its head also computes the prompt's positions, as released; False leaves them out."""

    @property
    def num_completions(self) -> int:
        """Per step."""
        return self.num_prompts * self.group_size

    @property
    def num_steps(self) -> int:
        """Warm-up included."""
        return self.warmup + self.repeats


def pictures(work: Work) -> list[Image.Image]:
    """Random pixels, another picture for every prompt of every step."""
    generator = np.random.default_rng(0)
    width, height = work.image_size
    shape = (height, width, 3)
    return [
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
        for _ in range(work.num_prompts * work.num_steps)
    ]


def given_completions(work: Work) -> list[list[list[int]]]:
    """Random tokens that could have been sampled: num_prompts lists of group_size lists."""
    allowed = np.setdiff1d(np.arange(work.vocab_size), work.never_sampled)
    shape = (work.num_prompts, work.group_size, work.new_tokens)
    return np.random.default_rng(1).choice(allowed, shape).tolist()


def reward(completions: list[str]) -> list[float]:
    """Costs nothing, and differs within a group: a group whose completions all earn the same would be skipped."""
    return [float(len(completion)) for completion in completions]


def num_threads(num_ranks: int = 1) -> int:
    """Of torch, in every contender."""
    return max(1, len(os.sched_getaffinity(0)) // num_ranks)


class PeakMemory:
    """Watches a process's memory from a thread.

    The kernel's high-water mark alone will not do: our trainer resets it for each phase of a step, and so it is read
    every few milliseconds.

    Args:
        read: bytes, the most so far or now; the process's high-water mark when None.
    """

    def __init__(self, read: Callable[[], int] | None = None) -> None:
        self._read = read or peak_resident_bytes
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self.bytes = self._read()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self.bytes = max(self.bytes, self._read())

    def _watch(self) -> None:
        while not self._is_over.wait(POLL_S):
            self.bytes = max(self.bytes, self._read())


def peak_resident_bytes() -> int:
    """Most resident memory since the process began or the mark was reset."""
    return _status_bytes("VmHWM")


def resident_bytes() -> int:
    """Resident memory now."""
    return _status_bytes("VmRSS")


def reset_peak_resident_bytes() -> None:
    """The high-water mark starts anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


class StepTimes:
    """When steps ended, and how much of each went into sampling."""

    def __init__(self) -> None:
        self._ends: list[float] = []
        self._sampling: list[float] = []
        self._now = 0.0

    def sampled(self, seconds: float) -> None:
        """Part of the step that is under way."""
        self._now += seconds

    def end(self) -> None:
        """A step is done, its optimizer step included."""
        self._ends.append(time.perf_counter())
        self._sampling.append(self._now)
        self._now = 0.0

    def summary(self, work: Work) -> dict[str, Any]:
        """Median, least and most seconds of the steps that count: from the end of one to the end of the next."""
        assert len(self._ends) == work.num_steps
        steps = np.diff(self._ends)[-work.repeats :].tolist()
        sampling = self._sampling[-work.repeats :]
        update = [step - part for step, part in zip(steps, sampling, strict=True)]
        found: dict[str, Any] = {}
        for name, seconds in (("step_s", steps), ("sampling_s", sampling), ("update_s", update)):
            found |= spread(name, seconds)
        return found | {"completions_per_s": significant(work.num_completions / found["step_s"])}


def spread(name: str, values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    found = {name: statistics.median(values), f"{name}_min": min(values), f"{name}_max": max(values)}
    return {key: significant(value) for key, value in found.items()}


def significant(value: float, digits: int = 4) -> float:
    """Rounded to some significant digits."""
    return float(f"{value:.{digits}g}")


def megabytes(num_bytes: int) -> float:
    """10**6 bytes, to four digits."""
    return significant(num_bytes / 1e6)


def write_work(file: Path, works: list[Work]) -> None:
    """For a contender to read."""
    file.write_text(json.dumps([asdict(work) for work in works]), encoding="utf-8")


def run_contender(do: Callable[[list[Work]], list[dict[str, Any]]]) -> None:
    """What a contender's process does: `do` the works of the first argument, write results to the second."""
    works_file, results_file = map(Path, sys.argv[1:])
    entries = json.loads(works_file.read_text(encoding="utf-8"))
    works = [Work(**entry | {"image_size": tuple(entry["image_size"])}) for entry in entries]
    results = do(works)
    if int(os.environ.get("RANK", 0)) == 0:
        results_file.write_text(json.dumps(results), encoding="utf-8")
