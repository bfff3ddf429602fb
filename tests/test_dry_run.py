"""What is found wrong before a run starts."""

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import TINY
from PIL import Image
from small_runs import torchrun

from geogrpo.config import (
    AnswerConfig,
    DataConfig,
    GRPOConfig,
    LossConfig,
    ModelConfig,
    RunConfig,
    SamplingConfig,
    save_config,
)
from geogrpo.run import Run, dry_run, validate


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
