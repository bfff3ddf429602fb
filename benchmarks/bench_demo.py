"""The whole demo against the targets it must reach; its summary is kept in benchmarks/results/demo_cpu.json.

GEOGRPO_BENCH_DEMO=1 pytest benchmarks/bench_demo.py        about ten minutes on 2 CPU cores, with nothing beside it
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

RESULT = Path(__file__).parent / "results" / "demo_cpu.json"
LIMIT_S = 600
MAX_MEDIAN_KM = 700


def run_demo(folder: Path) -> None:
    """What `make demo` runs once everything is installed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    subprocess.run([*command, "-m", "geogrpo.train"], cwd=folder, env=os.environ, check=True)


@pytest.mark.skipif("GEOGRPO_BENCH_DEMO" not in os.environ, reason="ten minutes; GEOGRPO_BENCH_DEMO=1 runs it")
def test_demo_reaches_its_targets(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    benchmark.pedantic(run_demo, args=(tmp_path,), rounds=1, iterations=1)
    seconds = benchmark.stats.stats.total
    summary = json.loads((tmp_path / "runs" / "demo" / "summary.json").read_text(encoding="utf-8"))
    machine = {"cpu": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    record = {"minutes": round(seconds / 60, 1), "machine": machine, "torch": torch.__version__, **summary}
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    before, after = (summary["rows"][stage]["median_km"]["value"] for stage in ("supervised", "grpo"))
    change = summary["stage_2_minus_stage_1"]
    assert summary["num_images"] >= 1000
    assert change["sampled_reward_change"]["low"] > 0
    assert change["greedy_reward_change"]["value"] >= 0
    assert after <= before
    assert after <= MAX_MEDIAN_KM
    assert seconds <= LIMIT_S
