"""Stage 1 with pictures that cannot be read."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import model_config
from small_runs import supervised_metrics

from geogrpo.config import OptimizerConfig, SupervisedConfig
from geogrpo.data.draws import step_indices
from geogrpo.distributed import load_sharded
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.regions.chain import chain_of_region, supervised_answer
from geogrpo.types import Example

pytestmark = pytest.mark.usefixtures("device")


@pytest.fixture
def model(tiny_folder: Path) -> tuple[Policy, Processor]:
    return load_sharded(model_config(tiny_folder), "short")


def train(model: tuple[Policy, Processor], examples: list[Example], *, steps: int, per_step: int) -> list[dict]:
    config = SupervisedConfig(steps=steps, examples_per_step=per_step, optimizer=OptimizerConfig(lr=1e-3))
    return supervised_metrics(*model, examples, config)


def unreadable(example: Example) -> Example:
    return Example(example.id, f"/gone/{example.id}.png", example.latlon_deg, country="Somewhere")


def test_a_step_whose_images_are_all_unreadable_has_no_loss_and_the_next_one_trains(
    model: tuple[Policy, Processor], examples: list[Example]
) -> None:
    (first,) = step_indices(len(examples), 1, 0, 0)
    mixed = [unreadable(example) if i == first else example for i, example in enumerate(examples)]
    metrics = train(model, mixed, steps=2, per_step=1)
    assert math.isnan(metrics[0]["loss"])
    assert metrics[0]["num_skipped_images"] == 1
    assert metrics[0]["num_tokens"] == 0
    assert metrics[1]["loss"] > 0
    assert metrics[1]["num_tokens"] > 0


@pytest.mark.parametrize("steps", [2, 50])
def test_an_epoch_whose_images_are_all_unreadable_stops_with_the_first_name(
    model: tuple[Policy, Processor], examples: list[Example], steps: int
) -> None:
    first = examples[step_indices(len(examples), 1, 0, 0)[0]].id
    with pytest.raises(ValueError, match=rf"could be read; the first: example '{first}': .*/gone/{first}\.png"):
        train(model, [unreadable(example) for example in examples], steps=steps, per_step=1)


def test_an_examples_own_chain_is_what_is_taught(
    model: tuple[Policy, Processor], examples: list[Example], processor: Processor
) -> None:
    text = "<think>\nFar north.\n</think>\n<answer>\nCountry: Iceland\nCoordinates: (64.1, -21.9)\n</answer>"
    (written,) = train(model, [replace(examples[0], columns={"chain": text})], steps=1, per_step=1)
    assert written["num_tokens"] == len(processor.encode_answer(text))
    (by_rule,) = train(model, [replace(examples[0], columns={"chain": None})], steps=1, per_step=1)
    assert by_rule["num_tokens"] == len(processor.encode_answer(chain_of_region(examples[0], 1)))


@pytest.mark.parametrize("chain", ["", " \n", 7, ["France"]])
def test_a_chain_that_is_no_text_is_refused_by_its_example(examples: list[Example], chain: object) -> None:
    with pytest.raises(ValueError, match="example 'place-0': column 'chain' must be a text"):
        supervised_answer(replace(examples[0], columns={"chain": chain}), 1)
