"""How a run's options are read and kept: defaults < YAML recipe < command line.

A key that does not exist is an error. The resolved configuration is saved with the run.
"""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import cast, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from geogrpo.config import RunConfig
from geogrpo.config_names import name_here


def recipe_path(recipe: str) -> Path:
    """The YAML file of a recipe named in geogrpo/recipes, or the given path itself."""
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"recipe {recipe!r}: no such file.")
        return path
    folder = Path(str(resources.files("geogrpo") / "recipes"))
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if recipe not in known:
        raise ValueError(f"recipe {recipe!r} is unknown. Known: {', '.join(known)}; or give a .yaml file.")
    return folder / f"{recipe}.yaml"


def load_config(recipe: str | None = "demo", overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a run.

    Args:
        recipe: name of a file in geogrpo/recipes, or a path to a YAML file; None for the defaults alone.
        overrides: command-line words such as ["--grpo.steps", "50", "--model.path=Qwen/Qwen2.5-VL-3B-Instruct"].
    Raises:
        ValueError: on an unknown key (with the nearest known one), a value of the wrong type or out of range.
    """
    where, values = "", {}
    if recipe is not None:
        path = recipe_path(recipe)
        where, values = f"recipe {path}: ", _read_yaml(path)
    _check_keys(values, RunConfig, where, "")
    words = [_full_key(word) for word in overrides]
    _let_rewards_be_chosen_anew(values, words)
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(RunConfig)
    try:
        from_recipe = parser.parse_object(values)
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"{where}{error}") from error
    try:
        created = parser.instantiate(parser.parse_args(words, namespace=from_recipe))
    except (ArgumentError, TypeError) as error:
        raise ValueError(f"command line: {error}{_hints(str(error))}") from error
    return RunConfig(**{key: created[key] for key in (f.name for f in dataclasses.fields(RunConfig))})


def _full_key(word: str) -> str:
    """`--rewards.preset` is short for `--grpo.rewards.preset`; so are the other sections that only stage 2 has."""
    return re.sub(r"^--(sampling|rewards|loss)\.", r"--grpo.\1.", word)


def _let_rewards_be_chosen_anew(values: dict, words: Sequence[str]) -> None:
    """A preset on the command line replaces a recipe's weights, and weights there its preset; either also its gates."""
    rewards = values.get("grpo", {}).get("rewards", {})
    for key, other, nothing in (("preset", "weights", "null"), ("weights", "preset", "{}")):
        if any(value != nothing for value in _given(words, f"--grpo.rewards.{key}")):
            rewards.pop(other, None)
            rewards.pop("gates", None)


def _given(words: Sequence[str], option: str) -> list[str]:
    """The values that command-line words give an option, or a key below it."""
    values = []
    for word, next_word in itertools.pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        if name == option or name.startswith(f"{option}."):
            values.append(value if equals else next_word)
    return values


def _read_yaml(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"recipe {path} must hold `key: value` lines, got {type(values).__name__}.")
    return values


def _check_keys(values: object, config_class: type, where: str, prefix: str) -> None:
    """Raise ValueError for a key that does not exist, a section without options, or a null where none is allowed."""
    if not isinstance(values, dict):
        raise ValueError(f"{where}{prefix.rstrip('.')} must hold `key: value` lines, got {values!r}.")
    types = get_type_hints(config_class)
    for key, value in values.items():
        if key not in types:
            unknown = _first_of_another(f"{prefix}{key}", value)
            raise ValueError(f"{where}unknown key {unknown}.{_hint(unknown)}")
        if dataclasses.is_dataclass(types[key]):
            _check_keys(value, types[key], where, f"{prefix}{key}.")
        elif value is None and type(None) not in get_args(types[key]):
            raise ValueError(f"{where}{prefix}{key} must have a value, got null.")


def _first_of_another(key: str, value: object) -> str:
    """The first key below an unknown one that another trainer has; the unknown one itself where there is none."""
    known = list(_keys(RunConfig))
    return next((inner for inner in _lowest(key, value) if name_here(inner, known)), key)


def _lowest(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _lowest(f"{key}.{name}", inner)
    else:
        yield key


def _hints(message: str) -> str:
    """What may be meant by the words of a command line that jsonargparse does not know."""
    _, _, unknown = message.partition("unrecognized arguments: ")
    # Without dashes where it is Hydra's `key=value`, as verl has it
    words = re.findall(r"(?:^|(?<= ))(?:--([^ =]+)|\+*([\w.]+)=)", unknown)
    return "".join(dict.fromkeys(_hint(dashed or plain) for dashed, plain in words))


def _hint(unknown: str) -> str:
    """What an unknown key of another trainer is called here; else the known key most like it, as a question."""
    keys = list(_keys(RunConfig))
    counterpart = name_here(unknown, keys)
    if counterpart is not None:
        return f" {counterpart}"
    near = difflib.get_close_matches(unknown, keys, 1, 0.6)
    if not near:
        last_words = {key.rsplit(".", 1)[-1]: key for key in keys}
        near = [last_words[word] for word in difflib.get_close_matches(unknown.rsplit(".", 1)[-1], last_words, 1, 0.6)]
    return f" Did you mean {near[0]!r}?" if near else ""


def _keys(config_class: type, prefix: str = "") -> Iterator[str]:
    for name, kind in get_type_hints(config_class).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from _keys(cast(type, kind), f"{prefix}{name}.")


def config_to_dict(config: RunConfig) -> dict:
    """The configuration as plain nested values, as written to config.yaml."""
    return dataclasses.asdict(config)


MAY_DIFFER_ON_RESUME = frozenset(
    {
        "name",
        "output_dir",
        "checkpoint_every",
        "keep_checkpoints",
        "evaluation.bootstrap_samples",
        "evaluation.every_steps",
        "evaluation.every_minutes",
        "evaluation.patience",
        "tokens_per_microbatch",
        "communicate_once",
        "parallel.shard_within",
        "parallel.cpu_offload",
        "data.num_loaders",
        "model.attention",
        "model.compile",
        "model.activation_checkpointing",
        "model.vision_cache_gib",
        "model.vision_cache_folder",
        "model.vision_cache_folder_gib",
        "grpo.sampling.max_rows",
        "logging.trackers",
        "logging.project",
        "logging.alert_window",
        "logging.alert_parse_rate",
        "logging.alert_country_share",
        "logging.alert_entropy",
    }
)
"""Options that a resumed run may be given anew: they find the run, choose what is kept or who is told, or say how the
same sums are computed, in another order at most. What runs out of memory goes on with less of it.
"""


def config_differences(saved: RunConfig, given: RunConfig) -> dict[str, tuple[object, object]]:
    """Full key -> (saved, given) of every option that differs."""
    return {key: (old, new) for (key, old), (_, new) in zip(_leaves(saved), _leaves(given), strict=True) if old != new}


def _leaves(config: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def save_config(config: RunConfig, path: Path) -> None:
    """Write the configuration as YAML that `--recipe` reads again."""
    path.write_text(yaml.safe_dump(config_to_dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8")
