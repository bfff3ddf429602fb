"""The recipes of published systems: complete, named, sourced value by value, with the papers' numbers."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from geogrpo.config_files import config_to_dict, load_config, recipe_path
from geogrpo.data import DATASETS, load_dataset
from geogrpo.losses import find_loss
from geogrpo.plan import plan_run
from geogrpo.prompts import PROMPTS
from geogrpo.rewards import JUDGED_REWARDS, PRESETS, check_columns, find_rewards
from geogrpo.rollout import ENGINES

FOLDER = Path(str(recipe_path("demo"))).parent
RECIPES = sorted(file.stem for file in FOLDER.glob("*.yaml"))
PUBLISHED = [name for name in RECIPES if name != "demo"]
SOURCE = re.compile(r"\[(paper|code: [\w.-]+|default: [^\]]+)\]|unknown|[Oo]ur choice")


def test_the_recipes_are_there() -> None:
    assert {"demo", "geo_r", "geo_r_qwen3", "globe", "globe_two_rewards"} <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_can_be_run_and_is_named_like_its_file(name: str) -> None:
    config = load_config(name)
    assert config.name == name
    assert config.data.name in DATASETS
    assert config.answer.prompt in PROMPTS
    assert config.grpo.sampling.engine in ENGINES
    find_loss(config.grpo.loss)
    find_rewards(config.grpo.rewards)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_shape_of_a_recipes_model_is_known(name: str) -> None:
    assert plan_run(load_config(name), 8).total_hours is not None


def unsourced_lines(text: str) -> list[str]:
    """Lines with a value that neither they nor the comment right above say the source of; the name needs none."""
    found, above = [], ""
    for line in text.splitlines():
        if line.strip().startswith("#"):
            above += line
            continue
        key, _, value = line.partition("#")[0].strip().partition(":")
        if value.strip() and key != "name" and not SOURCE.search(above + line.partition("#")[2]):
            found.append(line)
        above = ""
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_value_says_where_it_is_from(name: str) -> None:
    assert unsourced_lines((FOLDER / f"{name}.yaml").read_text()) == []


def test_a_value_without_a_source_is_found() -> None:
    text = "name: x\na:\n  # [paper]\n  b: 1\n  c: 2  # because\n  d: 3  # unknown: our choice\n# see c\ne: 4\n"
    assert unsourced_lines(text) == ["  c: 2  # because", "e: 4"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_leaves_no_training_value_to_a_default(name: str) -> None:
    """A default may change; what a paper or its code did does not."""
    given = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    default = config_to_dict(load_config(name))
    stages = [stage for stage in ("supervised", "grpo") if given[stage]["steps"] > 0]
    for stage in stages:
        assert given[stage]["optimizer"].keys() == default[stage]["optimizer"].keys()
    assert given["grpo"]["loss"].keys() >= {"name", "clip_low", "clip_high", "beta"}
    assert given["grpo"].keys() >= {"steps", "prompts_per_step", "group_size", "advantage_scale"}
    assert given["grpo"]["sampling"].keys() >= {"temperature", "max_new_tokens"}
    assert given["model"].keys() >= {"path", "dtype", "min_pixels", "max_pixels"}


def values(name: str, *keys: str) -> list[Any]:
    found = []
    for key in keys:
        value: Any = load_config(name)
        for part in key.split("."):
            value = getattr(value, part)
        found.append(value)
    return found


def test_geo_r_has_the_numbers_of_the_paper_and_its_script() -> None:
    stage_1 = values("geo_r", "supervised.examples_per_step", "supervised.steps", "supervised.optimizer.lr")
    assert stage_1 == [64, -(-500_000 // 64), 1e-5]
    stage_2 = values("geo_r", "grpo.group_size", "grpo.loss.beta", "grpo.sampling.temperature", "grpo.optimizer.lr")
    assert stage_2 == [4, 0.04, 1.0, 1e-6]
    steps, per_step = values("geo_r", "grpo.steps", "grpo.prompts_per_step")
    assert steps * per_step == 200_000
    assert values("geo_r", "model.path", "grpo.rewards.preset") == ["Qwen/Qwen2.5-VL-7B-Instruct", "geor_paper"]
    path, grpo_path = values("geo_r", "data.path", "data.grpo_path")
    assert path != grpo_path is not None


def test_geo_r_qwen3_is_geo_r_but_for_its_model_and_reward() -> None:
    one, other = (config_to_dict(load_config(name)) for name in ("geo_r", "geo_r_qwen3"))
    assert other["model"]["path"] == "Qwen/Qwen3-VL-8B-Instruct"
    for config in (one, other):
        del config["name"], config["model"], config["grpo"]["rewards"]
    assert one == other


@pytest.mark.parametrize("name", ["globe", "globe_two_rewards"])
def test_globe_has_the_numbers_of_its_script(name: str) -> None:
    keys = ("steps", "prompts_per_step", "group_size", "loss.beta", "sampling.temperature", "sampling.max_new_tokens")
    expected = [-(-33_721 // 6), 6, 16, 0.001, 1.0, 1024]
    assert values(name, *(f"grpo.{key}" for key in keys)) == expected
    assert values(name, "supervised.steps", "grpo.optimizer.lr", "grpo.optimizer.warmup_steps") == [0, 1e-6, 57]
    assert values(name, "answer.prompt", "model.path") == ["globe", "Qwen/Qwen2.5-VL-7B-Instruct"]


def test_the_globe_recipes_differ_in_their_rewards_only() -> None:
    one, other = (config_to_dict(load_config(name)) for name in ("globe", "globe_two_rewards"))
    assert one["grpo"]["rewards"]["preset"] == "globe_code"
    assert one["grpo"]["rewards"]["judge"]["url"] == "http://localhost:8000/v1"
    assert other["grpo"]["rewards"]["preset"] == "globe_two_rewards"
    for config in (one, other):
        del config["name"], config["grpo"]["rewards"]
    assert one == other


def test_the_demo_runs_under_every_preset_that_needs_no_judge() -> None:
    examples = load_dataset(load_config("demo").data, seed=0).grpo_train
    judged = {name for name, preset in PRESETS.items() if JUDGED_REWARDS.keys() & preset.weights.keys()}
    assert judged == {"globe_paper", "globe_code"}
    for name in PRESETS.keys() - judged:
        config = load_config("demo", ["--rewards.preset", name])
        check_columns(find_rewards(config.grpo.rewards), examples)
