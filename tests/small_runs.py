"""What the tests of training share: a stage and a run in small, and torchrun."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from geogrpo.checkpoint import Progress, latest_checkpoint
from geogrpo.config import RunConfig, SupervisedConfig
from geogrpo.optimization import make_optimizer
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.supervised import train_supervised
from geogrpo.types import Example


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
        [*command, *arguments], capture_output=True, text=True, timeout=300, env=os.environ, check=False
    )


def no_steps(config: RunConfig) -> RunConfig:
    """The run without training."""
    return dataclasses.replace(
        config, supervised=SupervisedConfig(steps=0), grpo=dataclasses.replace(config.grpo, steps=0)
    )


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
