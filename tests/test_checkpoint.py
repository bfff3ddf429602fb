"""Checkpoints appear whole, stay until a new one is whole, and are not written twice."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import model_config
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from small_runs import torchrun
from transformers import AutoModelForImageTextToText

from geogrpo import checkpoint as ckpt
from geogrpo.checkpoint import Progress, export_model, full_weights, load_checkpoint, save_checkpoint
from geogrpo.config import LoraConfig, ModelConfig, OptimizerConfig
from geogrpo.distributed import load_sharded
from geogrpo.optimization import make_optimizer
from geogrpo.policy.lora import adapter_parameters, is_adapter
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.types import PackedBatch

pytestmark = pytest.mark.usefixtures("device")
WEIGHTS_WORKER = Path(__file__).parent / "workers" / "full_weights.py"
ADAPTER_WORKER = Path(__file__).parent / "workers" / "adapter.py"


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


def with_adapter(folder: Path, *, dtype: str = "float32") -> tuple[Policy, Processor]:
    """A policy whose adapter says something."""
    lora = LoraConfig(rank=3, alpha=6.0, targets=["q_proj", "gate_proj", "down_proj"])
    config = dataclasses.replace(model_config(folder), freeze_vision=True, lora=lora, dtype=dtype)
    policy, processor = load_sharded(config, "short")
    with torch.no_grad():
        for parameter in adapter_parameters(policy).values():
            parameter.to_local().add_(0.1 * torch.randn(parameter.to_local().shape))
    return policy, processor


def take_step(policy: Policy, optimizer: torch.optim.Optimizer, batch: PackedBatch) -> None:
    optimizer.zero_grad()
    policy(batch)[0].sum().backward()
    optimizer.step()


def keyed(processor: Processor, groups: list[Group]) -> list[Group]:
    """The groups as a processor encodes them that gives images keys."""
    return [Group(processor.encode_prompt(group.prompt.example), group.completions) for group in groups]


def test_a_checkpoint_of_an_adapter_holds_only_what_trains_and_resumes_bitwise(
    tiny_folder: Path, tmp_path: Path, groups: list[Group]
) -> None:
    policy, processor = with_adapter(tiny_folder)
    batch = pack(keyed(processor, groups))
    optimizer = make_optimizer(policy, OptimizerConfig(lr=1e-2))
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    take_step(policy, optimizer, batch)
    for name, parameter in policy.named_parameters():
        assert torch.equal(before[name], parameter) != is_adapter(name), name
    saved = save_checkpoint(tmp_path, policy, optimizer, Progress())
    (shard,) = saved.glob("*.safetensors")
    names = set(load_file(shard))
    adapter = {
        f"{key}{name}"
        for name in adapter_parameters(policy)
        for key in ("model.", "optimizer.step.", "optimizer.exp_avg.", "optimizer.exp_avg_sq.")
    }
    assert names == adapter
    take_step(policy, optimizer, batch)
    resumed, _ = with_adapter(tiny_folder)
    resumed_optimizer = make_optimizer(resumed, OptimizerConfig(lr=1e-2))
    load_checkpoint(saved, resumed, resumed_optimizer)
    take_step(resumed, resumed_optimizer, batch)
    uninterrupted = dict(policy.named_parameters())
    assert all(torch.equal(uninterrupted[name], parameter) for name, parameter in resumed.named_parameters())


def test_a_checkpoint_of_a_whole_model_does_not_fit_an_adapter(tiny_folder: Path, tmp_path: Path) -> None:
    whole, _ = load_sharded(model_config(tiny_folder), "short")
    saved = save_checkpoint(tmp_path, whole, make_optimizer(whole, OptimizerConfig()), Progress())
    with pytest.raises(ValueError, match=f"checkpoint {saved} does not fit this model"):
        load_checkpoint(saved, with_adapter(tiny_folder)[0])


def test_an_adapter_is_exported_merged_and_alone(tiny_folder: Path, tmp_path: Path, groups: list[Group]) -> None:
    policy, processor = with_adapter(tiny_folder)
    export_model(tmp_path, policy, processor)
    merged, _ = load_sharded(model_config(tmp_path), "short")
    assert not adapter_parameters(merged)
    assert merged.model.lm_head.weight is merged.model.get_input_embeddings().weight
    model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    base = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    in_peft = PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert not any("lora" in name for name, _ in base.model.visual.named_parameters())
    assert (
        load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys()
        == get_peft_model_state_dict(in_peft).keys()
    )
    names = {name for file in (tiny_folder, tmp_path) for name in load_file(file / "model.safetensors")}
    assert names == load_file(tiny_folder / "model.safetensors").keys()
    prompt = groups[0].prompt
    inputs = {
        "input_ids": prompt.token_ids[None],
        "mm_token_type_ids": (prompt.token_ids == processor.image_token_id).int()[None],
        "pixel_values": prompt.pixel_values,
        "image_grid_thw": prompt.image_grid_thw,
    }
    with torch.no_grad():
        pairs = [
            (merged(pack(groups))[0], policy(pack(keyed(processor, groups)))[0]),
            (in_peft(**inputs).logits, model(**inputs).logits),
        ]
    for actual, expected in pairs:
        assert (actual - expected).norm() <= 1e-5 * expected.norm()


def test_a_base_in_bfloat16_is_exported_in_float32_as_it_was_computed_with(tiny_folder: Path, tmp_path: Path) -> None:
    policy, processor = with_adapter(tiny_folder, dtype="bfloat16")
    export_model(tmp_path, policy, processor)
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in exported.parameters()} == {torch.float32}
    weights = dict(AutoModelForImageTextToText.from_pretrained(tiny_folder).named_parameters())
    for name, value in exported.named_parameters():
        if ".visual." not in name:
            expected = weights[name].bfloat16().float()
            layer = policy.model.get_submodule(name.rpartition(".")[0])
            if hasattr(layer, "lora_A") and name.endswith(".weight"):
                a, b = (part["default"].weight.full_tensor() for part in (layer.lora_A, layer.lora_B))
                expected = expected + 6.0 / 3 * (b @ a)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_an_adapter_moves_to_another_number_of_ranks_and_back(tiny_folder: Path, tmp_path: Path) -> None:
    policy, processor = with_adapter(tiny_folder)
    optimizer = make_optimizer(policy, OptimizerConfig())
    batch = pack([processor.dummy_group()])
    take_step(policy, optimizer, batch)
    saved = save_checkpoint(tmp_path, policy, optimizer, Progress())
    done = torchrun(2, str(ADAPTER_WORKER), str(tiny_folder), str(saved), str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "peft" not in done.stderr
    logprobs = torch.load(tmp_path / "two" / "logprobs.pt", weights_only=True)
    with torch.no_grad():
        expected = policy(batch)[0]
    assert torch.equal(logprobs["remembered"], expected)
    assert torch.equal(logprobs["loaded"], expected)
    assert torch.equal(logprobs["given_back"], logprobs["untrained"])
    assert not torch.allclose(logprobs["untrained"], expected)
    (of_one,) = saved.glob("*.safetensors")
    again, _ = with_adapter(tiny_folder)
    again_optimizer = make_optimizer(again, OptimizerConfig())
    load_checkpoint(tmp_path / "two" / saved.name, again, again_optimizer)
    (back,) = save_checkpoint(tmp_path / "back", again, again_optimizer, Progress()).glob("*.safetensors")
    tensors, expected_tensors = load_file(back), load_file(of_one)
    assert tensors.keys() == expected_tensors.keys()
    assert all(torch.equal(tensors[name], value) for name, value in expected_tensors.items())
    one, two = full_weights(policy), full_weights(load_sharded(model_config(tmp_path / "two" / "model"), "short")[0])
    assert two.keys() == one.keys()
    assert all(torch.equal(two[name], one[name]) for name in two)
