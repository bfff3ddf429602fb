"""Resuming a run: bit for bit what it would have been, and refused where that cannot be."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY
from small_runs import final_tensors, interrupt_at, no_steps, without_timing

from geogrpo.checkpoint import latest_checkpoint
from geogrpo.config import ModelConfig, OptimizerConfig, ReferenceConfig, RunConfig
from geogrpo.report.run_log import read_metrics
from geogrpo.run import Run


@pytest.fixture
def finished(config: RunConfig, device: torch.device) -> Run:
    """A run without training, with a checkpoint after each stage."""
    run = Run(no_steps(config), device, resume=False)
    run.train()
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "step", "reference"),
    [
        ("supervised", 3, ReferenceConfig()),
        # A moving average, which the checkpoint must hold
        ("grpo", 3, ReferenceConfig(sync_every=1, sync_mix=0.5)),
        ("grpo", 1, ReferenceConfig()),
    ],
)
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    config: RunConfig,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    step: int,
    reference: ReferenceConfig,
) -> None:
    config = dataclasses.replace(config, grpo=dataclasses.replace(config.grpo, reference=reference))
    straight = Run(config, device, resume=False)
    straight.train()
    broken_config = dataclasses.replace(config, name="broken")
    broken = Run(broken_config, device, resume=False)
    with monkeypatch.context() as patched:
        interrupt_at(patched, stage, step)
        with pytest.raises(KeyboardInterrupt):
            broken.train()
    resumed = Run(broken_config, device, resume=True)
    assert resumed.folder == broken.folder
    resumed.train()
    expected, actual = final_tensors(straight.folder), final_tensors(resumed.folder)
    assert expected.keys() == actual.keys()
    assert sum(name.startswith("optimizer.exp_avg_sq.") for name in expected) > 40
    assert any(name.startswith("reference.") for name in expected) == (reference.sync_every > 0)
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name
    logs = [[without_timing(record) for record in read_metrics(each.folder)] for each in (straight, resumed)]
    assert logs[0] == logs[1]
    assert any(record.get("frac_reward_zero_std") == 0 for record in logs[0])
    for name in ("predictions_supervised.jsonl", "predictions_grpo.jsonl"):
        assert (straight.folder / name).read_text() == (resumed.folder / name).read_text()


def test_a_resumed_run_keeps_its_tiny_model_and_needs_it(config: RunConfig, device: torch.device) -> None:
    quick = no_steps(dataclasses.replace(config, model=ModelConfig(tiny=TINY, dtype="float32")))
    run = Run(quick, device, resume=False)
    run.train()
    written = (run.folder / "initial_model" / "model.safetensors").stat().st_mtime_ns
    Run(quick, device, resume=True)
    assert (run.folder / "initial_model" / "model.safetensors").stat().st_mtime_ns == written
    shutil.rmtree(run.folder / "initial_model")
    with pytest.raises(ValueError, match=r"--resume: .*initial_model is missing"):
        Run(quick, device, resume=True)


def test_resuming_with_other_options_names_what_differs(finished: Run, device: torch.device) -> None:
    given = dataclasses.replace(
        finished.config,
        seed=5,
        grpo=dataclasses.replace(finished.config.grpo, optimizer=OptimizerConfig(lr=0.5)),
    )
    before = (finished.folder / "config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"--resume: .*seed: 0 -> 5.*grpo\.optimizer\.lr: 0\.001 -> 0\.5"):
        Run(given, device, resume=True)
    assert (finished.folder / "config.yaml").read_bytes() == before


def test_resuming_may_change_what_training_does_not_depend_on(finished: Run, device: torch.device) -> None:
    folder = finished.folder.parent
    moved = folder.rename(folder.with_name("moved"))
    given = dataclasses.replace(
        finished.config,
        output_dir=str(moved),
        checkpoint_every=9,
        keep_checkpoints=1,
        evaluation=dataclasses.replace(finished.config.evaluation, bootstrap_samples=123),
    )
    before = (moved / finished.folder.name / "config.yaml").read_bytes()
    resumed = Run(given, device, resume=True)
    resumed.train()
    assert (resumed.folder, resumed.config) == (moved / finished.folder.name, given)
    assert (resumed.folder / "config.yaml").read_bytes() == before


def write_bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda checkpoint: (checkpoint / name).write_bytes(content)


def truncate_shard(checkpoint: Path) -> None:
    (shard,) = checkpoint.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])


def remove_shard(checkpoint: Path) -> None:
    (shard,) = checkpoint.glob("*.safetensors")
    shard.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write_bytes("progress.json", b"{"), r"progress\.json: not a checkpoint of geogrpo"),
        (write_bytes("progress.json", b"[]"), r"progress\.json: not a checkpoint of geogrpo"),
        (write_bytes("progress.json", b'{"stage": "sft"}'), r"progress\.json: stage must be one of supervised, grpo"),
        (write_bytes("progress.json", b'{"stage": "grpo", "step": "4"}'), r"progress\.json: step must be"),
        (write_bytes("progress.json", b'{"stage": "grpo", "step": -1}'), r"progress\.json: step must be"),
        (write_bytes("progress.json", b'{"skipped_images": ["a"]}'), r"progress\.json: skipped_images must map"),
        (truncate_shard, r"safetensors: damaged"),
        (remove_shard, r"1-grpo-0000000: .*holds no tensors"),
    ],
)
def test_a_damaged_checkpoint_is_named_before_anything_is_written(
    finished: Run, device: torch.device, damage: Callable[[Path], object], message: str
) -> None:
    damage(latest_checkpoint(finished.checkpoints))
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    with pytest.raises(ValueError, match=message):
        Run(finished.config, device, resume=True)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_resume_without_a_run_says_so(config: RunConfig, device: torch.device) -> None:
    with pytest.raises(ValueError, match="--resume: there is no run in .*small"):
        Run(config, device, resume=True)
