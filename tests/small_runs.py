"""What the tests of training share: a stage and a run in small, torchrun, and two agents of it as two nodes."""

import dataclasses
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geogrpo.checkpoint import Progress, latest_checkpoint
from geogrpo.config import RunConfig, SupervisedConfig
from geogrpo.optimization import make_optimizer
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.report.run_log import RunLog
from geogrpo.supervised import train_supervised
from geogrpo.types import Example

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""Threads that wait for each other on busy cores take minutes for what one does in seconds."""


def supervised_metrics(
    policy: Policy, processor: Processor, examples: list[Example], config: SupervisedConfig
) -> list[dict[str, float]]:
    """Train stage 1 from its beginning. Returns the metrics of each step."""
    metrics: list[dict[str, float]] = []
    train_supervised(
        policy,
        processor,
        examples,
        config,
        optimizer=make_optimizer(policy, config.optimizer),
        progress=Progress(),
        decimals=1,
        tokens_per_microbatch=4096,
        seed=0,
        on_step=metrics.append,
    )
    return metrics


def torchrun(num_ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The finished command, of at most 300 s; its exit code is not checked."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, env=ONE_THREAD, check=False
    )


def two_nodes(ranks_per_node: Sequence[int], *arguments: str) -> list[str]:
    """Run the command under two agents of torchrun, as on two nodes, both at 127.0.0.1.

    Returns:
        What each agent wrote to stderr.
    Raises:
        AssertionError: with its stderr, when one fails.
        subprocess.TimeoutExpired: after 300 s.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--local-addr", "127.0.0.1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-id", str(port), "--rdzv-endpoint", f"127.0.0.1:{port}"]
    environment = {**ONE_THREAD, "GLOO_SOCKET_IFNAME": "lo"}
    with tempfile.TemporaryFile("w+") as first, tempfile.TemporaryFile("w+") as second:
        agents = [
            subprocess.Popen(
                [*command, "--rdzv-conf", f"is_host={int(i == 0)}", "--nproc-per-node", str(num_ranks), *arguments],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
            )
            for i, (num_ranks, errors) in enumerate(zip(ranks_per_node, (first, second), strict=True))
        ]
        try:
            codes = [agent.wait(timeout=300) for agent in agents]
        finally:
            for agent in agents:
                # Agents end their workers when they are told to end.
                agent.terminate()
                agent.wait(timeout=60)
        texts = []
        for errors in (first, second):
            errors.seek(0)
            texts.append(errors.read())
    assert codes == [0, 0], "\n".join(text[-3000:] for text in texts)
    return texts


def no_steps(config: RunConfig) -> RunConfig:
    """The run without training."""
    return dataclasses.replace(
        config, supervised=SupervisedConfig(steps=0), grpo=dataclasses.replace(config.grpo, steps=0)
    )


def interrupt_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Die while logging the given step, as a killed process would: after the update, before its checkpoint."""
    original = RunLog.log_step

    def log_step(self: RunLog, at_stage: str, at_step: int, metrics: dict[str, float]) -> None:
        if (at_stage, at_step) == (stage, step):
            raise KeyboardInterrupt
        original(self, at_stage, at_step, metrics)

    monkeypatch.setattr(RunLog, "log_step", log_step)


def without_timing(record: dict[str, float]) -> dict[str, float]:
    """A step's metrics without what differs from one run to the next."""
    measured = ("time_s", "step_s", "tokens_per_s", "timing_s/", "memory_gib/", "perf/")
    return {name: value for name, value in record.items() if not name.startswith(measured)}


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Everything in the last checkpoint of a run of four GRPO steps on one rank, by name."""
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "1-grpo-0000004"
    (shard,) = checkpoint.glob("*.safetensors")
    return load_file(shard)
