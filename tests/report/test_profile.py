"""Traces of steps."""

import gzip
import json
from pathlib import Path

import torch

from geogrpo.report.profile import TRACED_STEPS, WAIT_STEPS, WARM_STEPS, traced_steps


def test_the_trace_holds_the_steps_after_the_first_ones(tmp_path: Path) -> None:
    path = tmp_path / "profile" / "grpo.json.gz"
    with traced_steps(path) as step:
        for _ in range(WAIT_STEPS + WARM_STEPS + TRACED_STEPS + 1):
            torch.ones(8, 8) @ torch.ones(8, 8)
            step()
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    steps = {event["name"] for event in events if str(event.get("name", "")).startswith("ProfilerStep#")}
    assert steps == {"ProfilerStep#2", "ProfilerStep#3"}
    assert sum(event.get("name") == "aten::mm" for event in events) == TRACED_STEPS


def test_without_a_path_nothing_is_traced() -> None:
    with traced_steps(None) as step:
        step()
