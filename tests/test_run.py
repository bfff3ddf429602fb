"""A whole run in small: its files, resuming bit for bit, images that break half-way."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from geogrpo.checkpoint import latest_checkpoint
from geogrpo.config import (
    AnswerConfig,
    DataConfig,
    EvaluationConfig,
    GRPOConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    SupervisedConfig,
    save_config,
)
from geogrpo.data.loader import step_indices
from geogrpo.report.run_log import RunLog, read_metrics
from geogrpo.run import Run, dry_run

LOAD_WORKER = Path(__file__).parent / "workers" / "load_checkpoint.py"
CITIES = (("France", 48.86, 2.35), ("Kenya", -1.29, 36.82), ("Japan", 35.68, 139.69), ("Peru", -12.05, -77.04))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve flat pictures in a JSONL file, train.jsonl, and four in test.jsonl."""
    for split, count in (("train", 12), ("test", 4)):
        lines = []
        for i in range(count):
            country, lat, lon = CITIES[i % 4]
            name = f"{split}-{i}.png"
            Image.new("RGB", (56, 56 if i % 2 else 84), (60 * (i % 4), 20 * i, 90)).save(tmp_path / name)
            lines.append(json.dumps({"image": name, "lat": lat, "lon": lon, "country": country}))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def config(dataset: Path, answering_folder: Path) -> RunConfig:
    return RunConfig(
        name="small",
        output_dir=str(dataset / "runs"),
        checkpoint_every=2,
        tokens_per_microbatch=200,
        model=ModelConfig(path=str(answering_folder), dtype="float32"),
        data=DataConfig(name="jsonl", path=str(dataset / "train.jsonl"), test_path=str(dataset / "test.jsonl")),
        answer=AnswerConfig(prompt="short"),
        supervised=SupervisedConfig(steps=4, examples_per_step=4, optimizer=OptimizerConfig(lr=1e-3, warmup_steps=1)),
        grpo=GRPOConfig(
            steps=4,
            prompts_per_step=2,
            group_size=4,
            advantage_scale="batch",
            sampling=SamplingConfig(max_new_tokens=24),
            loss=LossConfig(beta=0.1),
            optimizer=OptimizerConfig(lr=1e-3),
        ),
        evaluation=EvaluationConfig(num_samples=2, batch_size=3, bootstrap_samples=100),
    )


def final_tensors(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "1-grpo-0000004"
    (shard,) = checkpoint.glob("*.safetensors")
    return load_file(shard)


def interrupt_at(monkeypatch: pytest.MonkeyPatch, stage: str, step: int) -> None:
    """Die while logging the given step, as a killed process would: after the update, before its checkpoint."""
    original = RunLog.log_step

    def log_step(self: RunLog, at_stage: str, at_step: int, metrics: dict[str, float]) -> None:
        if (at_stage, at_step) == (stage, step):
            raise KeyboardInterrupt
        original(self, at_stage, at_step, metrics)

    monkeypatch.setattr(RunLog, "log_step", log_step)


@pytest.mark.parametrize(("stage", "step"), [("supervised", 3), ("grpo", 3), ("grpo", 1)])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
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
    for name, tensor in expected.items():
        assert torch.equal(tensor, actual[name]), name
    timing = {"time_s", "step_s", "sampling_s", "tokens_per_s"}
    logs = [
        [{key: value for key, value in record.items() if key not in timing} for record in read_metrics(folder)]
        for folder in (straight.folder, resumed.folder)
    ]
    assert logs[0] == logs[1]
    assert any(record.get("frac_reward_zero_std") == 0 for record in logs[0])
    for name in ("predictions_supervised.jsonl", "predictions_grpo.jsonl"):
        assert (straight.folder / name).read_text() == (resumed.folder / name).read_text()


def test_a_run_leaves_what_the_readme_promises(config: RunConfig, device: torch.device) -> None:
    run = Run(config, device, resume=False)
    run.train()
    for name in ("config.yaml", "metrics.jsonl", "completions.jsonl", "summary.json", "model/model.safetensors"):
        assert (run.folder / name).stat().st_size > 0, name
    assert list((run.folder / "tensorboard").iterdir())
    for name in ("reward_curve.png", "distance_histogram.png", "world_map_supervised.png", "world_map_grpo.png"):
        with Image.open(run.folder / "report" / name) as figure:
            assert len(figure.convert("RGB").getcolors(1 << 24)) > 50
    completions = [json.loads(line) for line in (run.folder / "completions.jsonl").read_text().splitlines()]
    assert len(completions) == 4 * 2 * 4
    assert {"multiscale", "format"} == set(completions[0]["rewards"])
    predictions = [json.loads(line) for line in (run.folder / "predictions_grpo.jsonl").read_text().splitlines()]
    assert [record["id"] for record in predictions] == [f"test-{i}.png" for i in range(4)]
    fields = {"id", "true_latlon_deg", "predicted_latlon_deg", "sampled_latlon_deg", "text"}
    assert set(predictions[0]) == fields
    assert all(len(record["sampled_latlon_deg"]) == 2 for record in predictions)


def test_a_second_run_does_not_touch_the_first(config: RunConfig, device: torch.device) -> None:
    quick = dataclasses.replace(
        config, supervised=SupervisedConfig(steps=0), grpo=dataclasses.replace(config.grpo, steps=0)
    )
    first = Run(quick, device, resume=False)
    first.train()
    second = Run(quick, device, resume=False)
    assert (first.folder.name, second.folder.name) == ("small", "small-2")


def test_an_image_that_breaks_in_training_is_skipped_and_counted(
    config: RunConfig, dataset: Path, device: torch.device
) -> None:
    run = Run(config, device, resume=False)
    # Truncated after the files were checked: the header still reads.
    broken = dataset / "train-3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    run.train()
    last = read_metrics(run.folder)[-1]
    assert last["num_skipped_images"] > 0
    seen = [json.loads(line)["id"] for line in (run.folder / "completions.jsonl").read_text().splitlines()]
    assert "train-3.png" not in seen
    progress = json.loads((latest_checkpoint(run.checkpoints) / "progress.json").read_text())
    assert all("train-3.png" in message for message in progress["skipped_images"])
    assert len(progress["skipped_images"]) == last["num_skipped_images"]


def test_a_checkpoint_loads_at_another_world_size(config: RunConfig, tiny_folder: Path, device: torch.device) -> None:
    run = Run(config, device, resume=False)
    run.train()
    output = run.folder / "loaded.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(LOAD_WORKER), str(tiny_folder), str(latest_checkpoint(run.checkpoints)), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = torch.load(output, weights_only=True)
    expected = final_tensors(run.folder)
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name


def test_two_ranks_do_what_one_does(config: RunConfig, dataset: Path, device: torch.device) -> None:
    """The whole command on two ranks, an image of one of them broken, against one rank in this process."""
    lines = (dataset / "test.jsonl").read_text().splitlines()
    (dataset / "three.jsonl").write_text("\n".join(lines[:3]))
    short = dataclasses.replace(
        config,
        supervised=dataclasses.replace(config.supervised, steps=2),
        # Three held-out images in batches of one: one rank has a batch more than the other.
        data=dataclasses.replace(config.data, test_path=str(dataset / "three.jsonl")),
        evaluation=dataclasses.replace(config.evaluation, batch_size=1),
        grpo=dataclasses.replace(config.grpo, steps=2),
    )
    one = Run(short, device, resume=False)
    two = dataclasses.replace(short, name="two")
    save_config(two, dataset / "two.yaml")
    for name in broken_in_first_grpo_step(one):
        (dataset / name).write_bytes((dataset / name).read_bytes()[:60])
    one.train()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "geogrpo.train", "--recipe", str(dataset / "two.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = Path(two.output_dir) / "two"
    expected, actual = read_metrics(one.folder), read_metrics(folder)
    assert [record["step"] for record in actual] == [1, 2, 1, 2]
    assert expected[2]["num_skipped_images"] > 0
    not_compared = {"stage", "time_s", "step_s", "sampling_s", "tokens_per_s"}
    for one_step, two_step in zip(expected, actual, strict=True):
        for key in one_step.keys() - not_compared:
            assert two_step[key] == pytest.approx(one_step[key], rel=1e-3, abs=1e-5), key
    texts = [
        [json.loads(line)["text"] for line in (path / "completions.jsonl").read_text().splitlines()]
        for path in (one.folder, folder)
    ]
    assert texts[0] == texts[1]
    predictions = [(path / "predictions_supervised.jsonl").read_text() for path in (one.folder, folder)]
    assert predictions[0] == predictions[1]
    assert len(predictions[0].splitlines()) == 3


def broken_in_first_grpo_step(run: Run) -> list[str]:
    """The image that rank 1 of 2 is given in the first GRPO step: alone, so that it has nothing to do."""
    config = run.config
    order = step_indices(len(run.splits.train), config.grpo.prompts_per_step, config.seed + 1, 0)
    return [run.splits.train[order[1]].id]


def test_resume_without_a_run_says_so(config: RunConfig, device: torch.device) -> None:
    with pytest.raises(ValueError, match="--resume: there is no run in .*small"):
        Run(config, device, resume=True)


def test_dry_run_reads_every_image(config: RunConfig, dataset: Path) -> None:
    assert "12 training and 4 held-out examples, 16 image files read" in dry_run(config)
    broken = dataset / "test-2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"test-2\.png"):
        dry_run(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": DataConfig(name="imagenet")}, "'imagenet' is unknown. Known: blue_marble, jsonl, photos"),
        ({"grpo": GRPOConfig(loss=LossConfig(name="ppo"))}, "'ppo' is unknown. Known: grpo"),
        ({"grpo": GRPOConfig(sampling=SamplingConfig(engine="x"))}, "engine must be one of native"),
        ({"answer": AnswerConfig(prompt="haiku")}, "'haiku' is unknown. Known: chain_of_region, short"),
        ({"model": ModelConfig(path="/no/such/model")}, "/no/such/model: no such folder"),
    ],
)
def test_a_wrong_name_stops_a_run_before_it_starts(config: RunConfig, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dry_run(dataclasses.replace(config, **change))
