"""What is found wrong before a run starts."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from conftest import TINY
from PIL import Image
from small_runs import torchrun

from geogrpo import train
from geogrpo.config import AnswerConfig, DataConfig, GRPOConfig, LossConfig, ModelConfig, RunConfig, SamplingConfig
from geogrpo.config_files import load_config, save_config
from geogrpo.policy.load import load_processor
from geogrpo.run import Run, dry_run, validate


@pytest.fixture(autouse=True)
def _keep_the_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """main() leaves the process group at its end; the other tests of this process still need it."""
    monkeypatch.setattr(train, "leave_together", lambda: None)


def with_own_examples(config: RunConfig, dataset: Path) -> RunConfig:
    """The run with the last four training examples as stage 2's own."""
    lines = (dataset / "train.jsonl").read_text().splitlines()
    (dataset / "hard.jsonl").write_text("\n".join(lines[8:]) + "\n")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, grpo_path=str(dataset / "hard.jsonl")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": DataConfig(name="imagenet")}, "'imagenet' is unknown. Known: blue_marble, jsonl, photos"),
        ({"grpo": GRPOConfig(loss=LossConfig(name="ppo"))}, "'ppo' is unknown. Known: grpo"),
        ({"grpo": GRPOConfig(sampling=SamplingConfig(engine="x"))}, "engine must be one of native"),
        ({"answer": AnswerConfig(prompt="haiku")}, "'haiku' is unknown. Known: chain_of_region, globe, short"),
        ({"model": ModelConfig(path="/no/such/model")}, "/no/such/model: no such folder"),
    ],
)
def test_a_wrong_name_stops_a_run_before_it_starts(config: RunConfig, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dry_run(dataclasses.replace(config, **change))


def test_an_unknown_prompt_is_found_before_anything_is_written(config: RunConfig, device: torch.device) -> None:
    wrong = dataclasses.replace(config, answer=AnswerConfig(prompt="haiku"), model=ModelConfig(tiny=TINY))
    with pytest.raises(ValueError, match="answer.prompt 'haiku' is unknown. Known: chain_of_region, globe, short"):
        validate(wrong)
    with pytest.raises(ValueError, match="answer.prompt 'haiku' is unknown"):
        Run(wrong, device, resume=False)
    assert not Path(config.output_dir).exists()


@pytest.mark.usefixtures("device")
def test_a_plan_comes_first_and_needs_no_data_and_no_weights(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--recipe=geo_r", "--data.path=/no/such.jsonl", "--dry-run", "--gpus=8"])
    assert stopped.value.code == 2
    printed, error = capsys.readouterr()
    assert "# Plan of 'geo_r' on 8 GPUs." in printed
    assert "7,813" in printed
    assert "8,292,166,656 parameters" in printed
    assert all(line.startswith("#") for line in printed.splitlines() if line)
    assert error.startswith("geogrpo.train: error: /no/such.jsonl: no such file.")
    assert len(error.splitlines()) == 1


@pytest.mark.usefixtures("device")
def test_the_plan_is_followed_by_what_the_data_say(
    config: RunConfig, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(with_own_examples(config, dataset), dataset / "mine.yaml")
    train.main([f"--recipe={dataset / 'mine.yaml'}", "--dry-run"])
    printed = capsys.readouterr().out
    assert "# Plan of 'small' on 1 GPU." in printed
    # Four steps of four on 12 examples, four of two on 4
    assert "# Stage 1: 4 steps are 1.33 epochs of 12 examples" in printed
    assert "# Stage 2: 4 steps are 2.00 epochs of 4 examples" in printed
    assert "# valid: 12 training (4 others in stage 2) and 4 held-out examples, 16 image files read" in printed
    assert load_config(str(dataset / "mine.yaml")).data.grpo_path == str(dataset / "hard.jsonl")


@pytest.mark.parametrize("arguments", [["--gpus=8"], ["--dry-run", "--gpus=0"]])
@pytest.mark.usefixtures("device")
def test_gpus_are_for_plans(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2
    assert "give at least 1, and only with --dry-run" in capsys.readouterr().err


def test_dry_run_reads_the_images_of_both_stages_and_each_once(config: RunConfig, dataset: Path) -> None:
    config = with_own_examples(config, dataset)
    found = dry_run(config)
    assert "16 image files read" in found.report
    assert (found.data.num_train, found.data.num_grpo_train) == (12, 4)
    Image.new("RGB", (56, 56)).save(dataset / "only-hard.png")
    line = json.dumps({"image": "only-hard.png", "lat": 1.0, "lon": 2.0})
    (dataset / "hard.jsonl").write_text(line + "\n")
    assert "17 image files read" in dry_run(config).report
    Image.new("RGB", (3000, 4)).save(dataset / "only-hard.png")
    with pytest.raises(ValueError, match=r"only-hard\.png.*aspect ratio"):
        dry_run(config)


def test_dry_run_measures_the_first_prompt(config: RunConfig) -> None:
    found = dry_run(config)
    prompt = load_processor(config.model, "short").encode_prompt(validate(config).train[0])
    assert found.data.image_tokens + found.data.text_tokens == len(prompt.token_ids)
    # 56 x 84 pixels
    assert found.data.image_tokens == 6


def test_dry_run_reads_every_image(config: RunConfig, dataset: Path) -> None:
    assert "12 training and 4 held-out examples, 16 image files read" in dry_run(config).report
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
