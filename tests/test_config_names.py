"""Another trainer's option: the error says what it is called here, and the table of them is that of docs/names.md."""

import re
from pathlib import Path

import pytest

from geogrpo.config import RunConfig
from geogrpo.config_files import config_to_dict, load_config
from geogrpo.config_names import OTHER_NAMES, Ours, name_here, names_as_markdown

NAMES = [(trainer, name, ours) for trainer, names in OTHER_NAMES.items() for name, ours in names.items()]


def keys_of(values: dict, prefix: str = "") -> set[str]:
    """Every section and option, by its full key."""
    found = set()
    for key, value in values.items():
        found.add(prefix + key)
        if isinstance(value, dict):
            found |= keys_of(value, f"{prefix}{key}.")
    return found


KEYS = keys_of(config_to_dict(RunConfig()))
OF_OTHERS = [entry for entry in NAMES if entry[1] not in KEYS]
"""Names that are no key of ours by chance, as `seed` is."""


def test_what_stands_for_an_option_exists() -> None:
    sections = "|".join(key for key in KEYS if "." not in key)
    for _, name, ours in NAMES:
        in_note = set(re.findall(rf"\b(?:{sections})\.\w+(?:\.\w+)*", ours.note)) - {"metrics.jsonl"}
        assert {*ours.keys} | in_note <= KEYS, name
        assert ours.keys or ours.note, name


def test_the_table_has_no_name_twice_and_the_counts_it_should() -> None:
    words = [name for _, name, _ in NAMES]
    assert len(set(words)) == len(words) > 150


def nested(name: str) -> str:
    parts = name.split(".")
    return "".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(parts)).rstrip() + " 1\n"


def assert_suggested(message: str, trainer: str, name: str, ours: Ours) -> None:
    what = f"is {' and '.join(ours.keys)} here" if ours.keys else "has no counterpart here"
    assert f"{trainer}'s {name} {what}{f': {ours.note}' if ours.note else ''}." in message


@pytest.mark.parametrize("form", ["--{}=1", "--{} 1", "{}=1", "+{}=1", "dashes"])
def test_every_name_on_the_command_line_is_answered(form: str) -> None:
    # All in one call: parsing the options takes a fifth of a second.
    words = [
        word
        for _, name, _ in OF_OTHERS
        for word in ([f"--{name.replace('_', '-')}", "1"] if form == "dashes" else form.format(name).split())
    ]
    with pytest.raises(ValueError, match=r"^command line: unrecognized arguments: ") as error:
        load_config("demo", words)
    assert "Did you mean" not in str(error.value)
    for entry in OF_OTHERS:
        assert_suggested(str(error.value), *entry)


@pytest.mark.parametrize("is_nested", [True, False])
def test_every_name_in_a_recipe_is_answered(is_nested: bool, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    for entry in OF_OTHERS:
        name = entry[1]
        path.write_text(nested(name) if is_nested else f"{name}: 1\n", encoding="utf-8")
        with pytest.raises(ValueError, match=rf"^recipe .*mine\.yaml: unknown key {re.escape(name)}\. ") as error:
            load_config(str(path))
        assert_suggested(str(error.value), *entry)
        assert "Did you mean" not in str(error.value)


def test_the_message_reads_well(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("grpo:\n  num_generations: 8\n", encoding="utf-8")
    expected = "unknown key grpo.num_generations. TRL's num_generations is grpo.group_size here."
    with pytest.raises(ValueError, match=f"^{re.escape(f'recipe {path}: {expected}')}$"):
        load_config(str(path))
    assert name_here("use_vllm", KEYS) == (
        "TRL's use_vllm has no counterpart here: the policy samples with its own weights, on the GPUs it trains on."
    )
    assert name_here("epsilon", KEYS) == "TRL's epsilon is grpo.loss.clip_low and grpo.loss.clip_high here."


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("grpo.learning_rate", "TRL's learning_rate"),
        ("grpo.loss.epsilon-high", "TRL's epsilon_high"),
        ("training.num-generations", "TRL's num_generations"),
        ("worker.rollout.n", "verl's actor_rollout_ref.rollout.n"),
        ("rollout.n", "verl's actor_rollout_ref.rollout.n"),
        ("worker.actor.clip_ratio_low", "verl's actor_rollout_ref.actor.clip_ratio_low"),
        ("kl_loss_coef", "verl's actor_rollout_ref.actor.kl_loss_coef"),
        ("beta", "TRL's beta"),
        ("top_p", "TRL's top_p"),
    ],
)
def test_a_name_is_found_below_any_section_and_without_its_own(written: str, name: str) -> None:
    sentence = name_here(written, KEYS)
    assert sentence is not None
    assert sentence.startswith(f"{name} ")


@pytest.mark.parametrize("written", ["grpo.lss.beta", "optimizer.lr", "grpo.stesp", "lr", "gpro", "model.pth", ""])
def test_a_mistyped_key_of_ours_is_not_taken_for_anothers(written: str) -> None:
    assert name_here(written, KEYS) is None


def test_several_unknown_words_are_all_answered() -> None:
    with pytest.raises(ValueError, match="TRL's num_generations .* TRL's use_vllm .* Did you mean 'grpo.steps'"):
        load_config("demo", ["--num_generations", "8", "--use_vllm=true", "--grpo.stesp", "3"])


def test_the_name_is_found_in_a_section_that_begins_with_others(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("trainer:\n  unheard_of: 1\n  deeper:\n    save_freq: 3\n  save_freq: 3\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"unknown key trainer\.save_freq\. verl's trainer\.save_freq is checkpoint_every"
    ):
        load_config(str(path))


def test_the_document_is_what_the_module_prints() -> None:
    document = Path(__file__).parents[1] / "docs" / "names.md"
    assert document.read_text(encoding="utf-8") == names_as_markdown()
    assert "| `num_generations` | `grpo.group_size` |\n" in names_as_markdown()
