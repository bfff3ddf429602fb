"""A whole run in small: its files, resuming bit for bit, images that break half-way."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

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
    TinyModelConfig,
    save_config,
)
from geogrpo.data.loader import step_indices
from geogrpo.policy.packing import Group, pack
from geogrpo.report.run_log import RunLog, read_metrics
from geogrpo.run import Run, dry_run, validate
from geogrpo.seeds import Stream
from geogrpo.types import EncodedPrompt

LOAD_WORKER = Path(__file__).parent / "workers" / "load_checkpoint.py"
CITIES = (("France", 48.86, 2.35), ("Kenya", -1.29, 36.82), ("Japan", 35.68, 139.69), ("Peru", -12.05, -77.04))

TINY = TinyModelConfig(
    vocab_size=600,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    intermediate_size=32,
    vision_hidden_size=16,
    vision_layers=1,
    vision_heads=2,
    vision_intermediate_size=16,
)


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


def torchrun(num_ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=300, env=os.environ, check=False
    )


def no_steps(config: RunConfig) -> RunConfig:
    """The run without training."""
    return dataclasses.replace(
        config, supervised=SupervisedConfig(steps=0), grpo=dataclasses.replace(config.grpo, steps=0)
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


@pytest.mark.slow
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


def test_the_model_of_a_finished_run_loads_and_gives_the_policys_own_logits(
    config: RunConfig, device: torch.device, answering_folder: Path
) -> None:
    short = dataclasses.replace(
        config,
        supervised=dataclasses.replace(config.supervised, steps=2),
        grpo=dataclasses.replace(config.grpo, steps=1),
    )
    run = Run(short, device, resume=False)
    run.train()
    prompt = run.processor.encode_prompt(run.splits.test[0])
    with torch.no_grad():
        actual = run.policy.prefill(pack([Group(prompt, [])]))[0]
        exported, initial = (hub_logits(folder, prompt) for folder in (run.folder / "model", answering_folder))
    allowed = actual.isfinite()
    # All but the forbidden and never-used ones of 640
    assert allowed.sum() > 400
    # The issue's bound for the packed forward pass against transformers' own
    assert (actual - exported)[allowed].norm() <= 1e-5 * exported[allowed].norm()
    assert (actual - initial)[allowed].norm() > 1e-3 * initial[allowed].norm()


def hub_logits(folder: Path, prompt: EncodedPrompt) -> torch.Tensor:
    """(1, V) logits of the first answer token, by transformers alone, with the folder's own tokenizer."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    image_token = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|image_pad|>")
    input_ids = prompt.token_ids[None]
    output = model(
        input_ids=input_ids,
        mm_token_type_ids=(input_ids == image_token).int(),
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        use_cache=False,
    )
    return output.logits[:, -1]


def test_everything_random_in_a_run_has_a_stream_of_its_own(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: set[tuple[int, ...]] = set()
    original = np.random.default_rng

    def default_rng(seed: object) -> np.random.Generator:
        if isinstance(seed, tuple):
            seeds.add(seed)
        return original(seed)

    monkeypatch.setattr(np.random, "default_rng", default_rng)
    one_step = dataclasses.replace(config.grpo, steps=1, loss=LossConfig())
    tiny = ModelConfig(tiny=TINY, dtype="float32")
    Run(dataclasses.replace(no_steps(config), model=tiny, grpo=one_step), device, resume=False).train()
    assert {len(seed) for seed in seeds} == {4}
    # The crops and the draw of held-out examples belong to data sets that this run has none of.
    assert {seed[1] for seed in seeds} == set(Stream) - {Stream.CROPS, Stream.HELD_OUT}


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
    ((message, times),) = progress["skipped_images"].items()
    assert "train-3.png" in message
    assert times >= 1
    assert last["num_skipped_images"] == 1


@pytest.mark.slow
def test_a_checkpoint_loads_at_another_world_size(config: RunConfig, tiny_folder: Path, device: torch.device) -> None:
    run = Run(config, device, resume=False)
    run.train()
    output = run.folder / "loaded.pt"
    done = torchrun(2, str(LOAD_WORKER), str(tiny_folder), str(latest_checkpoint(run.checkpoints)), str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = torch.load(output, weights_only=True)
    expected = final_tensors(run.folder)
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.slow
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
    done = torchrun(2, "-m", "geogrpo.train", "--recipe", str(dataset / "two.yaml"))
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


def test_a_model_left_by_a_run_that_never_started_is_made_anew(config: RunConfig, device: torch.device) -> None:
    """The folder belongs to nobody until its config.yaml exists; what lies there may be of another size."""
    small = dataclasses.replace(config, model=ModelConfig(tiny=TINY, dtype="float32"))
    first = Run(small, device, resume=False)
    (first.folder / "initial_model" / "stale").touch()
    wider = dataclasses.replace(small, model=ModelConfig(tiny=dataclasses.replace(TINY, hidden_size=64)))
    second = Run(wider, device, resume=False)
    assert second.folder == first.folder
    assert second.policy.model.config.text_config.hidden_size == 64
    assert not (second.folder / "initial_model" / "stale").exists()


def test_a_tiny_model_appears_complete_or_not_at_all(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(folder: Path, *arguments: object, **options: object) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("geogrpo.run.save_tiny_model", breaks)
    with pytest.raises(KeyboardInterrupt):
        Run(dataclasses.replace(config, model=ModelConfig(tiny=TINY)), device, resume=False)
    assert not (Path(config.output_dir) / config.name / "initial_model").exists()


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


def test_an_unknown_prompt_is_found_before_anything_is_written(config: RunConfig, device: torch.device) -> None:
    wrong = dataclasses.replace(config, answer=AnswerConfig(prompt="haiku"), model=ModelConfig(tiny=TINY))
    with pytest.raises(ValueError, match="answer.prompt 'haiku' is unknown. Known: chain_of_region, short"):
        validate(wrong)
    with pytest.raises(ValueError, match="answer.prompt 'haiku' is unknown"):
        Run(wrong, device, resume=False)
    assert not Path(config.output_dir).exists()


@pytest.fixture
def finished(config: RunConfig, device: torch.device) -> Run:
    """A run without training, with a checkpoint after each stage."""
    run = Run(no_steps(config), device, resume=False)
    run.train()
    return run


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


def test_dry_run_reads_every_image(config: RunConfig, dataset: Path) -> None:
    assert "12 training and 4 held-out examples, 16 image files read" in dry_run(config)
    broken = dataset / "test-2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"test-2\.png"):
        dry_run(config)


def test_dry_run_finds_an_image_that_opens_but_cannot_be_encoded(config: RunConfig, dataset: Path) -> None:
    # The image processor refuses pictures more than 200 times as wide as high.
    Image.new("RGB", (3000, 4)).save(dataset / "train-5.png")
    with pytest.raises(ValueError, match=r"train-5\.png.*aspect ratio"):
        dry_run(config)


@pytest.mark.slow
def test_dry_run_works_on_two_ranks(config: RunConfig, dataset: Path) -> None:
    save_config(dataclasses.replace(config, model=ModelConfig(tiny=TINY, dtype="float32")), dataset / "tiny.yaml")
    arguments = ["-m", "geogrpo.train", "--recipe", str(dataset / "tiny.yaml"), "--dry-run"]
    done = torchrun(2, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("16 image files read") == 1
    # The second half is encoded by the second rank alone; both must stop.
    Image.new("RGB", (3000, 4)).save(dataset / "test-3.png")
    done = torchrun(2, *arguments)
    assert done.returncode != 0
    assert "geogrpo.train: error: example 'test-3.png': cannot encode image" in done.stderr


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
