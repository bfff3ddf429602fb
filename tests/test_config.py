"""How options are read: defaults < recipe < command line; every mistake is named with the nearest right key."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from geogrpo.config import DataConfig, GRPOConfig, LossConfig, OptimizerConfig, RewardConfig, RunConfig, SamplingConfig
from geogrpo.config_files import config_differences, config_to_dict, load_config, recipe_path, save_config


def recipe(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def load_from(source: str, folder: Path, key: str, value: str) -> RunConfig:
    """One option from the command line or from a recipe."""
    if source == "command line":
        return load_config("demo", [f"--{key}={value}"])
    parts = key.split(".")
    text = "".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(parts))
    return load_config(recipe(folder, f"{text.rstrip()} {value}\n"))


def leaves(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Full key to value; the reward weights are one value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        is_section = isinstance(value, dict) and key != "weights"
        found |= leaves(value, f"{prefix}{key}.") if is_section else {prefix + key: value}
    return found


def test_the_command_line_goes_before_the_recipe_and_the_recipe_before_the_defaults(tmp_path: Path) -> None:
    path = recipe(tmp_path, "seed: 3\ngrpo:\n  steps: 7\n  loss:\n    beta: 0.5\n")
    config = load_config(path, ["--grpo.steps", "9", "--model.path=some/model"])
    expected = RunConfig(
        seed=3,
        model=dataclasses.replace(RunConfig().model, path="some/model"),
        grpo=GRPOConfig(steps=9, loss=LossConfig(beta=0.5)),
    )
    assert config == expected


def test_sections_are_dataclasses_of_their_own_types() -> None:
    config, default = load_config("demo", ["--grpo.optimizer.lr", "0.125"]), load_config("demo")
    assert isinstance(config.grpo, GRPOConfig)
    assert config.grpo.optimizer == dataclasses.replace(default.grpo.optimizer, lr=0.125)
    # The other stage has an optimizer of the same class.
    assert config.supervised == default.supervised


def test_weights_of_a_recipe_replace_the_default_ones(tmp_path: Path) -> None:
    path = recipe(tmp_path, "grpo:\n  rewards:\n    weights: {geor_paper: 1, format: 0.5}\n    gates: []\n")
    assert load_config(path).grpo.rewards == RewardConfig(weights={"geor_paper": 1.0, "format": 0.5}, gates=[])


@pytest.mark.parametrize(
    ("option", "near"),
    [
        ("--grpo.stesp", "grpo.steps"),
        ("--grpo.step", "grpo.steps"),
        ("--grpo.lss.beta", "grpo.loss.beta"),
        ("--optimizer.lr", "grpo.optimizer.lr"),
        ("--grpo.rewards.wieghts", "grpo.rewards.weights"),
        ("--nmae", "name"),
        ("--group_size", "grpo.group_size"),
        ("--supervised.optimizer.lrr", "supervised.optimizer.lr"),
        ("--grpo.optimizer.lrr", "grpo.optimizer.lr"),
    ],
)
@pytest.mark.parametrize("form", ["two words", "one word"])
def test_an_unknown_option_suggests_the_nearest(option: str, near: str, form: str) -> None:
    words = [option, "5"] if form == "two words" else [f"{option}=5"]
    with pytest.raises(ValueError, match=rf"^command line: .*{option}.* Did you mean '{re.escape(near)}'\?$"):
        load_config("demo", words)


@pytest.mark.parametrize(
    ("text", "word", "near"),
    [
        ("grpo:\n  stesp: 5\n", "stesp", "grpo.steps"),
        ("grpo:\n  loss:\n    bta: 0.5\n", "bta", "grpo.loss.beta"),
        ("sed: 5\n", "sed", "seed"),
        ("gpro:\n  steps: 5\n", "gpro", "grpo"),
        ("grpo:\n  rewards:\n    wieghts: {format: 1}\n", "wieghts", "grpo.rewards.weights"),
    ],
)
def test_an_unknown_key_of_a_recipe_suggests_the_nearest(tmp_path: Path, text: str, word: str, near: str) -> None:
    path = recipe(tmp_path, text)
    with pytest.raises(ValueError, match=rf"{word}.* Did you mean '{re.escape(near)}(\.steps)?'\?$") as error:
        load_config(path)
    assert str(error.value).startswith(f"recipe {path}: ")


@pytest.mark.parametrize("text", ["gpro: {}\n", "gpro:\n", "gpro: 5\n", "grpo:\n  los: {}\n"])
def test_an_unknown_section_is_rejected_even_when_empty(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"mine\.yaml.*(gpro|los)"):
        load_config(recipe(tmp_path, text))


@pytest.mark.parametrize("value", ["3", "null", "[]", "text"])
@pytest.mark.parametrize("section", ["grpo", "grpo.optimizer"])
def test_a_section_that_holds_no_options_is_rejected(tmp_path: Path, section: str, value: str) -> None:
    outer, _, inner = section.partition(".")
    text = f"{outer}:\n  {inner}: {value}\n" if inner else f"{outer}: {value}\n"
    with pytest.raises(ValueError, match=section.replace(".", r"\.")):
        load_config(recipe(tmp_path, text))


def test_a_word_that_is_no_option_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"^command line: unrecognized arguments: stray$"):
        load_config("demo", ["stray"])
    with pytest.raises(ValueError, match=r"^command line: .*--grpo\.steps.*expected one argument"):
        load_config("demo", ["--grpo.steps"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("grpo.steps", "many"),
        ("grpo.steps", "2.5"),
        ("grpo.steps", "null"),
        ("seed", "null"),
        ("grpo.loss.beta", "strong"),
        ("grpo.optimizer.lr", "null"),
        ("model.dtype", "float16"),
        ("grpo.advantage_scale", "std"),
        ("model.max_pixels", "large"),
        ("grpo.rewards.weights", "5"),
        ("grpo.rewards.weights", "{format: high}"),
    ],
)
@pytest.mark.parametrize("source", ["command line", "recipe"])
def test_a_value_of_the_wrong_type_is_rejected_by_its_key(tmp_path: Path, key: str, value: str, source: str) -> None:
    with pytest.raises(ValueError, match=rf"^{source}.*{re.escape(key)}"):
        load_from(source, tmp_path, key, value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [
                *("--grpo.group_size=1", "--grpo.max_resampling_rounds=2"),
                *("--grpo.advantage_baseline=batch", "--grpo.advantage_scale=batch"),
            ],
            r"grpo\.group_size must be at least 2 \(.* as grpo\.max_resampling_rounds has it\)",
        ),
        (
            ["--grpo.advantage_baseline=batch"],
            r"grpo\.advantage_scale must be batch or none with advantage_baseline: batch",
        ),
        (
            ["--grpo.overlong.buffer_tokens=48"],
            r"buffer_tokens must be less than grpo\.sampling\.max_new_tokens \(48\)",
        ),
        (
            ["--grpo.reference.sync_every=5"],
            r"sync_every must be 0 unless grpo\.loss\.beta is above 0.*no reference to move",
        ),
        (
            ["--grpo.loss.beta=0.1", "--grpo.reference.sync_every=5", "--grpo.reference.kind=adapter_off"],
            r"sync_every must be 0 with kind adapter_off, which cannot move: take kind copy",
        ),
        (["--grpo.reference.kind=adapter_off"], r"kind must be auto or copy unless model\.lora\.rank is above 0"),
        (
            ["--grpo.sampling.correction=token_truncate", "--grpo.old_logprobs=sampler"],
            r"correction must be none with old_logprobs: sampler, whose ratios are to the sampler already",
        ),
        (
            ["--grpo.rewards.aggregation=normalize_then_sum", "--grpo.loss.beta=0.1", "--grpo.loss.kl_in=reward"],
            r"grpo\.loss\.kl_in: reward changes the sum of the rewards.*Use sum_then_normalize",
        ),
        (
            ["--grpo.rewards.aggregation=normalize_then_sum", "--grpo.overlong.buffer_tokens=4"],
            r"grpo\.overlong\.buffer_tokens changes the sum of the rewards.*Use sum_then_normalize",
        ),
        (["--model.lora.rank=8"], r"model\.lora\.rank must be 0 unless model\.freeze_vision is true"),
        (
            ["--model.lora.rank=8", "--model.freeze_vision=true", "--model.freeze_aligner=false"],
            r"model\.lora\.rank must be 0 unless .* model\.freeze_aligner is not false",
        ),
        (
            ["--evaluation.patience=3"],
            r"patience must be 0 unless evaluation\.every_steps or evaluation\.every_minutes",
        ),
        (["--logging.alert_window=3"], r"logging\.alert_window must be 0 or at least 4, got 3"),
        (["--logging.trackers=[mlflow]"], r"logging\.trackers must be one of wandb, trackio, got 'mlflow'"),
    ],
)
def test_options_that_contradict_each_other_are_refused_with_the_reason(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(None, words)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("grpo.group_size", "1", "at least 2 (an advantage compares the completions of one prompt, as "),
        ("grpo.group_size", "0", "positive"),
        ("grpo.steps", "-1", "0 or more, got -1."),
        ("grpo.prompts_per_step", "0", "positive, got 0."),
        ("grpo.sampling.temperature", "0", "above 0, got 0.0."),
        ("grpo.sampling.max_new_tokens", "0", "positive, got 0."),
        ("grpo.loss.clip_low", "1.5", "between 0 and 1, or null for the loss's own, got 1.5."),
        ("grpo.loss.clip_low", "-0.1", "between 0 and 1, or null for the loss's own, got -0.1."),
        ("grpo.loss.clip_high", "-0.1", "0 or more, or null for the loss's own, got -0.1."),
        ("grpo.loss.beta", "-0.1", "0 or more, got -0.1."),
        ("supervised.steps", "-1", "0 or more, got -1."),
        ("supervised.examples_per_step", "0", "positive, got 0."),
        ("data.test_fraction", "0", "between 0 and 1, got 0.0."),
        ("data.test_fraction", "1", "between 0 and 1, got 1.0."),
        ("data.num_test", "-1", "0 or more, got -1."),
        ("data.crop_deg", "0.5", "between 1 and 90, got 0.5."),
        ("data.max_shift_deg", "6", "between 0 and 5, got 6.0."),
        ("answer.decimals", "7", "between 0 and 6, got 7."),
        ("answer.decimals", "-1", "between 0 and 6, got -1."),
        ("evaluation.num_samples", "-1", "0 or more, got -1."),
        ("evaluation.temperature", "0", "above 0, got 0.0."),
        ("evaluation.batch_size", "0", "positive, got 0."),
        ("evaluation.bootstrap_samples", "99", "at least 100, got 99."),
        ("model.min_pixels", "0", "positive or None, got 0."),
        ("model.max_pixels", "-5", "positive or None, got -5."),
        ("model.tiny.num_layers", "0", "positive, got 0."),
        ("model.tiny.hidden_size", "100", "num_heads (4) times a multiple of 16, got 100."),
        ("model.tiny.vision_hidden_size", "198", "vision_heads (3) times a multiple of 4, got 198."),
        ("model.tiny.vocab_size", "511", "at least 512 (256 bytes, specials), got 511."),
        ("tokens_per_microbatch", "0", "positive, got 0."),
        ("checkpoint_every", "-1", "0 or more, got -1."),
        ("keep_checkpoints", "0", "at least 1, got 0."),
        ("name", "a/b", "a folder name, got 'a/b'."),
        ("name", ".", "a folder name, got '.'."),
        ("name", "..", "a folder name, got '..'."),
    ],
)
def test_a_value_out_of_range_is_rejected_by_its_key(key: str, value: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{key} must be {expected}')}"):
        load_config("demo", [f"--{key}", value])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "-1"),
        ("grpo.optimizer.lr", "-1.5"),
        ("grpo.optimizer.max_grad_norm", "-1"),
        ("grpo.optimizer.warmup_steps", "-1"),
        ("grpo.optimizer.weight_decay", "-0.1"),
        ("grpo.optimizer.final_lr_fraction", "-0.1"),
        ("grpo.optimizer.final_lr_fraction", "1.5"),
        ("grpo.optimizer.beta1", "1"),
        ("grpo.optimizer.beta2", "-0.5"),
        ("model.tiny.num_heads", "0"),
    ],
)
def test_a_value_that_would_fail_only_in_training_is_rejected_by_its_name(key: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(key)} must be .*, got {value}"):
        load_config("demo", [f"--{key}={value}"])


@pytest.mark.parametrize("stage", ["supervised", "grpo"])
def test_a_value_of_an_optimizer_is_rejected_by_the_key_of_its_stage(tmp_path: Path, stage: str) -> None:
    with pytest.raises(ValueError, match=rf"^{stage}\.optimizer\.beta2 must be at least 0 and below 1, got 1\.0"):
        load_from("recipe", tmp_path, f"{stage}.optimizer.beta2", "1.0")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("grpo.group_size", "2", 2),
        ("grpo.steps", "0", 0),
        ("grpo.loss.clip_low", "1", 1.0),
        ("grpo.loss.clip_high", "0", 0.0),
        ("data.num_test", "0", 0),
        ("data.max_shift_deg", "0", 0.0),
        ("answer.decimals", "6", 6),
        ("model.tiny.hidden_size", "128", 128),
        ("evaluation.bootstrap_samples", "100", 100),
        ("model.path", "null", None),
        ("model.max_pixels", "null", None),
        ("grpo.rewards.gates", "[]", []),
    ],
)
def test_a_value_at_the_edge_of_its_range_is_accepted(key: str, value: str, expected: object) -> None:
    before, after = (leaves(config_to_dict(load_config("demo", words))) for words in ([], [f"--{key}", value]))
    assert after == before | {key: expected}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize(
    "key", ["grpo.optimizer.lr", "grpo.loss.clip_high", "grpo.loss.beta", "grpo.sampling.temperature"]
)
@pytest.mark.parametrize("source", ["command line", "recipe"])
def test_a_number_that_is_not_finite_is_rejected(tmp_path: Path, key: str, value: str, source: str) -> None:
    if source == "recipe":
        value = value.replace("nan", ".nan").replace("inf", ".inf")
    with pytest.raises(ValueError, match=re.escape(key.partition(".")[2])):
        load_from(source, tmp_path, key, value)


def test_a_weight_that_is_not_finite_is_rejected_by_its_reward(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"grpo\.rewards\.weights\.format must be finite, got nan"):
        load_from("recipe", tmp_path, "grpo.rewards.weights", "{multiscale: 1, format: .nan}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "must hold `key: value` lines, got list"),
        ("", "must hold `key: value` lines, got NoneType"),
        ("just words\n", "must hold `key: value` lines, got str"),
        ("grpo: [\n", "is not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = recipe(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"recipe {path} {message}")):
        load_config(path)


def test_an_unknown_recipe_is_rejected_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe 'dmeo' is unknown\. Known: .*demo.*; or give a \.yaml file"):
        load_config("dmeo")
    missing = str(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=re.escape(f"recipe {missing!r}: no such file")):
        load_config(missing)


def test_every_recipe_of_the_package_is_valid_and_bears_its_name() -> None:
    recipes = sorted(recipe_path("demo").parent.glob("*.yaml"))
    assert "demo" in [path.stem for path in recipes]
    for path in recipes:
        assert load_config(path.stem).name == path.stem
        assert load_config(path.stem) == load_config(str(path))


def test_a_saved_configuration_is_read_back_equal(tmp_path: Path) -> None:
    config = RunConfig(
        name="é-1",
        seed=7,
        data=DataConfig(name="jsonl", path="x.jsonl", test_fraction=0.25),
        grpo=GRPOConfig(
            steps=3,
            advantage_scale="none",
            sampling=SamplingConfig(temperature=0.1),
            rewards=RewardConfig(weights={"geor_code": 0.25, "mine": -2.0}, gates=[]),
            loss=LossConfig(clip_high=0.28, beta=1e-3),
            optimizer=OptimizerConfig(lr=3e-7),
        ),
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(str(tmp_path / "config.yaml")) == config
    assert yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8")) == config_to_dict(config)


def test_differences_are_named_by_their_full_keys() -> None:
    saved = RunConfig()
    given = dataclasses.replace(
        saved,
        seed=2,
        grpo=GRPOConfig(rewards=RewardConfig(weights={"multiscale": 1.0, "format": 0.5}), loss=LossConfig(beta=0.5)),
    )
    assert config_differences(saved, saved) == {}
    assert config_differences(saved, given) == {
        "seed": (0, 2),
        "grpo.rewards.weights": ({}, {"multiscale": 1.0, "format": 0.5}),
        "grpo.loss.beta": (0.0, 0.5),
    }


def test_the_sections_of_stage_2_have_short_names_on_the_command_line() -> None:
    short = ["--rewards.preset", "twm", "--sampling.temperature=0.5", "--loss.beta", "0.1"]
    long = ["--grpo.rewards.preset", "twm", "--grpo.sampling.temperature=0.5", "--grpo.loss.beta", "0.1"]
    assert load_config("demo", short) == load_config("demo", long)
    assert load_config("demo", short).grpo.rewards.preset == "twm"


@pytest.mark.parametrize("written", ["preset: geor_paper", "weights: {gre: 1.0}\n    gates: []"])
def test_rewards_chosen_on_the_command_line_replace_the_recipes(tmp_path: Path, written: str) -> None:
    path = recipe(tmp_path, f"grpo:\n  rewards:\n    {written}\n")
    assert load_config(path, ["--rewards.preset", "twm"]).grpo.rewards == RewardConfig(preset="twm")
    chosen = load_config(path, ["--grpo.rewards.weights={multiscale: 2.0}"]).grpo.rewards
    assert (chosen.preset, chosen.weights) == (None, {"multiscale": 2.0})


@pytest.mark.parametrize(
    ("written", "words", "expected"),
    [
        ("weights: {gre: 1.0}", ["--rewards.preset=null"], RewardConfig(weights={"gre": 1.0})),
        ("weights: {gre: 1.0}", ["--rewards.preset", "null"], RewardConfig(weights={"gre": 1.0})),
        ("preset: geor_paper", ["--rewards.weights={}"], RewardConfig(preset="geor_paper")),
        ("weights: {gre: 1.0}\n    gates: []", ["--rewards.weights={twm: 1}"], RewardConfig(weights={"twm": 1.0})),
    ],
)
def test_taking_nothing_back_takes_nothing_away(
    tmp_path: Path, written: str, words: list[str], expected: RewardConfig
) -> None:
    assert load_config(recipe(tmp_path, f"grpo:\n  rewards:\n    {written}\n"), words).grpo.rewards == expected


def test_a_preset_and_weights_in_one_recipe_are_refused(tmp_path: Path) -> None:
    path = recipe(tmp_path, "grpo:\n  rewards:\n    preset: twm\n    weights: {gre: 1.0}\n")
    with pytest.raises(ValueError, match="grpo.rewards.preset is 'twm' and grpo.rewards.weights is .*: give one"):
        load_config(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rewards.judge.url=ftp://x"], "grpo.rewards.judge.url must be an http:// or https:// address"),
        (["--rewards.judge.url=http://x", "--rewards.judge.path=y"], "grpo.rewards.judge.path must be None when"),
        (["--rewards.judge.timeout_s=0"], "grpo.rewards.judge.timeout_s must be positive"),
        (["--rewards.judge.max_retries=-1"], "grpo.rewards.judge.max_retries must be 0 or more"),
        (["--rewards.on_error=ignore"], "on_error"),
        (["--rewards.presett=twm"], "Did you mean 'grpo.rewards.preset'?"),
    ],
)
def test_options_of_rewards_are_checked(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        load_config("demo", words)
