"""Who takes part in bench_train_step.py, on which problems, and how each is run and recorded."""

import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.head_measure import DEVICE, RESULTS, Record
from benchmarks.train_step_models import never_sampled, save_demo_model, save_qwen_3b
from benchmarks.train_step_work import Work, write_work
from geogrpo.prompts import PROMPTS

ROOT = Path(__file__).parents[1]
PEER_PYTHON = os.environ.get("GEOGRPO_PEER_PYTHON", "/tmp/peers/bin/python")
"""Of an environment with TRL and torchvision; the same as ours where both are installed in one."""
OURS, TRL = "geogrpo", "TRL"
LIMIT_S = 400
MODELS = {"demo": save_demo_model, "3B": save_qwen_3b}


@dataclass(frozen=True)
class Problem:
    """What a step works on."""

    name: str
    model: str
    """Key of MODELS."""
    max_pixels: int
    """Larger images are reduced to so many."""
    prompt: str
    image_size: tuple[int, int]
    num_prompts: int
    group_size: int
    new_tokens: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Contender:
    """One way to take a step."""

    name: str
    dtype: str
    note: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Of its Work."""

    @property
    def is_ours(self) -> bool:
        """Whether it runs in this environment."""
        return self.name == OURS

    def __str__(self) -> str:
        return f"{self.name}-{self.dtype}" + (f"-{self.note}" if self.note else "")

    def missing(self) -> str | None:
        """Why it cannot run here, or None."""
        return None if self.is_ours else missing_trl()


_DEMO: dict[str, Any] = {"model": "demo", "prompt": "short", "group_size": 8, "new_tokens": 32}
_QWEN: dict[str, Any] = {"model": "3B", "prompt": "chain_of_region", "new_tokens": 200}
# 36 x 28 tokens of 28 x 28 pixels
_LARGE_IMAGE: dict[str, Any] = {"image_size": (1008, 784), "max_pixels": 1008 * 784}
PROBLEMS = {
    "cpu": [
        Problem("448 px", image_size=(448, 448), max_pixels=448**2, num_prompts=2, **_DEMO),
        # The demo's crops, 15 degrees of 15 pixels, which its processor reduces to 16 tokens
        Problem("demo", image_size=(225, 225), max_pixels=112**2, num_prompts=8, **_DEMO),
    ],
    "cuda": [
        Problem("3B, G = 8", num_prompts=4, group_size=8, **_QWEN, **_LARGE_IMAGE),
        Problem("3B, G = 16", num_prompts=4, group_size=16, **_QWEN, **_LARGE_IMAGE),
    ],
}
CONTENDERS = {
    "cpu": [
        Contender(OURS, "bfloat16", ""),
        Contender(OURS, "float32", ""),
        Contender(TRL, "float32", "as released"),
        Contender(TRL, "bfloat16", "as released"),
        Contender(TRL, "bfloat16", "head on completions only", {"scores_prompts": False}),
    ],
    "cuda": [
        # Two groups of 8 a row, or one of 16
        Contender(OURS, "bfloat16", "", {"tokens_per_microbatch": 6000}),
        Contender(TRL, "bfloat16", "as released"),
    ],
}


@functools.cache
def missing_trl() -> str | None:
    """Why TRL cannot run here, or None."""
    check = "import importlib.metadata as m; [m.version(name) for name in ('trl', 'torchvision', 'datasets')]"
    try:
        done = subprocess.run([PEER_PYTHON, "-c", check], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"there is no {PEER_PYTHON}: set GEOGRPO_PEER_PYTHON to a Python with TRL"
    return f"{PEER_PYTHON}: {done.stderr.strip().splitlines()[-1]}" if done.returncode else None


class Models:
    """Model folders, made when asked for.

    Args:
        folder: to put them in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def work(self, problem: Problem, **settings: Any) -> Work:
        """The problem as contenders read it."""
        folder = self._folder / f"{problem.model}-{problem.max_pixels}"
        if not folder.exists():
            MODELS[problem.model](folder, problem.max_pixels)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        given = {key: value for key, value in asdict(problem).items() if key not in ("name", "model", "max_pixels")}
        return Work(
            **given | settings,
            model=str(folder),
            question=PROMPTS[problem.prompt],
            never_sampled=never_sampled(folder),
            vocab_size=config["text_config"]["vocab_size"],
        )


def run(
    script: str, works: list[Work], folder: Path, *, python: str = sys.executable, num_ranks: int = 1
) -> list[dict[str, Any]]:
    """What train_step_<script>.py says of the works, in a process of its own (or num_ranks of them)."""
    works_file, results_file = folder / "works.json", folder / "results.json"
    write_work(works_file, works)
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)] if num_ranks > 1 else []
    command = [python, *ranks, f"benchmarks/train_step_{script}.py", str(works_file), str(results_file)]
    paths = [str(ROOT / "kernels"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False, errors="replace"
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
    return json.loads(results_file.read_text(encoding="utf-8"))


def take_steps(contender: Contender, problem: Problem, models: Models, folder: Path) -> dict[str, Any]:
    """A row of the results: whole steps of one contender."""
    work = models.work(problem, dtype=contender.dtype, **contender.settings)
    script, python = ("ours", sys.executable) if contender.is_ours else ("trl", PEER_PYTHON)
    (result,) = run(script, [work], folder, python=python)
    assert result["completion_lengths"] == [work.new_tokens]
    assert result["num_skipped_groups"] == 0
    described = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(problem).items()}
    described["problem"] = described.pop("name")
    return {"contender": contender.name, "dtype": contender.dtype, "note": contender.note, **described, **result}


def results_file() -> Path:
    """GEOGRPO_TRAIN_STEP_RESULTS, or train_step_<cpu or gpu>.json among the results."""
    name = "cpu" if DEVICE == "cpu" else re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower()
    return Path(os.environ.get("GEOGRPO_TRAIN_STEP_RESULTS", RESULTS / f"train_step_{name}.json"))


class StepRecord(Record):
    """As Record of the head's benchmarks, in a file of its own."""

    def __init__(self, section: str) -> None:
        super().__init__(section)
        self.file = results_file()
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        # TRL's are in its rows: it has an environment of its own.
        self.machine["versions"] = versions

    def keep(self, benchmark: Any, row: dict[str, Any]) -> None:
        """Keep a measured row."""
        benchmark.extra_info.update(row)
        self.add(row)

    def best(self, problem: str, *, is_ours: bool) -> dict[str, Any]:
        """The row of us or of others with the fastest step, in whatever dtype; skips the test where there is none."""
        rows = [row for row in self.rows if row["problem"] == problem and (row["contender"] == OURS) == is_ours]
        if not rows:
            pytest.skip(f"{'ours' if is_ours else TRL} was not measured on {problem}")
        return min(rows, key=lambda row: row["step_s_min"])
