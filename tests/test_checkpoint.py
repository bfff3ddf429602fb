"""Checkpoints appear whole, stay until a new one is whole, and are not written twice."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import model_config
from safetensors.torch import load_file

from geogrpo import checkpoint as ckpt
from geogrpo.checkpoint import Progress, export_model, full_weights, load_checkpoint, save_checkpoint
from geogrpo.config import ModelConfig, OptimizerConfig
from geogrpo.distributed import load_sharded
from geogrpo.optimization import make_optimizer
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor

pytestmark = pytest.mark.usefixtures("device")
WEIGHTS_WORKER = Path(__file__).parent / "workers" / "full_weights.py"


@pytest.fixture
def model(tiny_folder: Path) -> tuple[Policy, Processor]:
    return load_sharded(model_config(tiny_folder), "short")


@pytest.fixture
def optimizer(model: tuple[Policy, Processor]) -> torch.optim.Optimizer:
    return make_optimizer(model[0], OptimizerConfig())


def test_an_image_met_again_is_counted_and_not_listed_again() -> None:
    progress = Progress()
    for skipped in (["a.png is broken"], [], ["b.png is gone", "a.png is broken"]):
        progress.finish_step(5, skipped)
    assert (progress.step, progress.num_tokens) == (3, 15)
    assert progress.skipped_images == {"a.png is broken": 2, "b.png is gone": 1}


def test_a_checkpoint_of_the_same_progress_is_not_written_again(
    tmp_path: Path, model: tuple[Policy, Processor], optimizer: torch.optim.Optimizer
) -> None:
    progress = Progress(stage="grpo", step=4, num_tokens=9, skipped_images={"a.png": 2})
    path = ckpt.save_checkpoint(tmp_path, model[0], optimizer, progress)
    before = {file: file.stat().st_mtime_ns for file in path.iterdir()}
    assert ckpt.save_checkpoint(tmp_path, model[0], optimizer, progress) == path
    assert {file: file.stat().st_mtime_ns for file in path.iterdir()} == before
    assert ckpt.check_checkpoint(path) == progress


def test_a_checkpoint_of_other_progress_is_replaced(
    tmp_path: Path, model: tuple[Policy, Processor], optimizer: torch.optim.Optimizer
) -> None:
    ckpt.save_checkpoint(tmp_path, model[0], optimizer, Progress(step=4, num_tokens=9))
    path = ckpt.save_checkpoint(tmp_path, model[0], optimizer, Progress(step=4, num_tokens=10))
    assert ckpt.read_progress(path).num_tokens == 10
    (path / "progress.json").write_text("{")
    ckpt.save_checkpoint(tmp_path, model[0], optimizer, Progress(step=4, num_tokens=10))
    assert ckpt.read_progress(path).num_tokens == 10
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_checkpoint_is_there_until_the_new_one_has_its_place(
    tmp_path: Path, model: tuple[Policy, Processor], optimizer: torch.optim.Optimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ckpt.save_checkpoint(tmp_path, model[0], optimizer, Progress(step=4, num_tokens=9))
    size = sum(file.stat().st_size for file in old.iterdir())
    original = Path.rename

    def stops(self: Path, target: Path) -> Path:
        if self.name.startswith(".writing-"):
            raise KeyboardInterrupt
        return original(self, target)

    monkeypatch.setattr(Path, "rename", stops)
    with pytest.raises(KeyboardInterrupt):
        ckpt.save_checkpoint(tmp_path, model[0], optimizer, Progress(step=4, num_tokens=10))
    # Both are on disk, whole: one was about to take the other's name.
    folders = {path: sum(file.stat().st_size for file in path.iterdir()) for path in tmp_path.iterdir()}
    assert len(folders) == 2
    assert all(abs(found - size) < 10 for found in folders.values())


def test_a_deletion_cut_short_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        folder = tmp_path / ckpt.checkpoint_name(Progress(step=step))
        folder.mkdir()
        (folder / ckpt.PROGRESS_FILE).write_text("{}")
    monkeypatch.setattr("geogrpo.checkpoint.shutil.rmtree", lambda path: None)
    ckpt.prune_checkpoints(tmp_path, keep=1)
    assert [path.name for path in ckpt.list_checkpoints(tmp_path)] == ["0-supervised-0000002"]


def test_a_checkpoint_that_does_not_fit_names_itself(
    tmp_path: Path, model: tuple[Policy, Processor], optimizer: torch.optim.Optimizer
) -> None:
    path = ckpt.save_checkpoint(tmp_path, model[0], optimizer, Progress(step=1))
    (shard,) = path.glob("*.safetensors")
    shard.unlink()
    with pytest.raises(ValueError, match=f"checkpoint {path}"):
        ckpt.check_checkpoint(path)
    with pytest.raises(ValueError, match=f"checkpoint {path} does not fit this model"):
        ckpt.load_checkpoint(path, model[0], optimizer)


@pytest.mark.slow
def test_whole_weights_are_on_the_main_rank_alone(tiny_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(WEIGHTS_WORKER), str(tiny_folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    main, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert other == {}
    policy, _ = load_sharded(model_config(tiny_folder), "short")
    expected = {name: parameter.full_tensor() for name, parameter in policy.model.named_parameters()}
    assert main.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(main[name], weight), name


def test_a_frozen_tower_is_in_the_exported_model_and_not_in_checkpoints(tiny_folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(model_config(tiny_folder), freeze_vision=True)
    policy, processor = load_sharded(config, "short")
    optimizer = make_optimizer(policy, OptimizerConfig())
    saved = save_checkpoint(tmp_path, policy, optimizer, Progress())
    (shard,) = saved.glob("*.safetensors")
    names = load_file(shard).keys()
    assert any("language_model" in name for name in names)
    assert not any(".visual." in name for name in names)
    before = full_weights(policy)
    with torch.no_grad():
        policy.model.lm_head.weight.add_(1.0)
    load_checkpoint(saved, policy, optimizer)
    export_model(tmp_path / "model", policy, processor)
    again = full_weights(load_sharded(ModelConfig(path=str(tmp_path / "model"), dtype="float32"), "short")[0])
    assert before.keys() == again.keys()
    assert all(torch.equal(before[name], again[name]) for name in before)
