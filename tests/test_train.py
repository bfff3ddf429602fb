"""The command line: mistakes end before training, with one line that says what to do."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from geogrpo import __main__ as commands
from geogrpo import train

SHARED_GROUP = pytest.mark.usefixtures("device")


@pytest.fixture(autouse=True)
def _keep_the_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """main() leaves the process group at its end; the other tests of this process still need it."""
    monkeypatch.setattr(train, "leave_together", lambda: None)


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        train.main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("geogrpo.train: error: ")
    assert "Traceback" not in error
    return error


def write_jsonl(folder: Path, **changes: object) -> list[str]:
    """A dataset of one training and one test line, the training line changed; the arguments that train on it."""
    Image.new("RGB", (56, 56)).save(folder / "a.png")
    line = {"image": "a.png", "lat": 48.0, "lon": 2.0}
    (folder / "train.jsonl").write_text(json.dumps(line | changes) + "\n")
    (folder / "test.jsonl").write_text(json.dumps(line) + "\n")
    paths = [f"--data.path={folder / 'train.jsonl'}", f"--data.test_path={folder / 'test.jsonl'}"]
    return ["--data.name=jsonl", *paths, f"--output_dir={folder / 'runs'}"]


@SHARED_GROUP
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "gone.png"}, "gone.png"),
        ({"image": "train.jsonl"}, "cannot read image"),
        ({"lat": 91}, "train.jsonl:1: example 'a.png': latitude must be a number in [-90, 90], got 91"),
        ({"lon": float("nan")}, "longitude must be a number in [-180, 180], got nan"),
        ({"lat": "north"}, "key 'lat' must be a number"),
    ],
)
def test_bad_data_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict, message: str
) -> None:
    assert message in error_of(write_jsonl(tmp_path, **changes), capsys)
    assert not (tmp_path / "runs").exists()


@SHARED_GROUP
def test_an_empty_dataset_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = write_jsonl(tmp_path)
    (tmp_path / "train.jsonl").write_text("\n")
    assert "train.jsonl holds no examples" in error_of(arguments, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grpo.group_size=1"], "grpo.group_size must be at least 2"),
        (["--grpo.grup_size=4"], "Did you mean 'grpo.group_size'?"),
        (["--grpo.steps=many"], "grpo.steps"),
        (["--recipe=none"], "recipe 'none' is unknown. Known: demo"),
        (["--recipe=none.yaml"], "no such file"),
        (["--grpo.rewards.weights={fame: 1.0}"], "reward 'fame' is unknown. Known: multiscale"),
        (["--resume", "--name=never_started"], "there is no run in runs/never_started"),
    ],
)
@SHARED_GROUP
def test_bad_options_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


@SHARED_GROUP
def test_dry_run_prints_a_configuration_that_can_be_read_again(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_jsonl(tmp_path)
    train.main([*arguments, f"--model.path={tiny_folder}", "--grpo.steps=7", "--dry-run"])
    printed = capsys.readouterr().out
    assert "# valid: 1 training and 1 held-out examples" in printed
    assert yaml.safe_load(printed)["grpo"]["steps"] == 7
    (tmp_path / "again.yaml").write_text(printed)
    train.main([f"--recipe={tmp_path / 'again.yaml'}", "--dry-run"])
    assert capsys.readouterr().out == printed
    assert not (tmp_path / "runs").exists()


@SHARED_GROUP
def test_resume_goes_on_with_the_options_the_run_was_started_with(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's sequence: options are given once, when the run starts; the recipe finds it again."""
    train.main([*write_jsonl(tmp_path), "--dry-run", f"--model.path={tiny_folder}", "--evaluation.num_samples=0"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    recipe = f"--recipe={tmp_path / 'mine.yaml'}"
    train.main([recipe, "--supervised.steps=0", "--grpo.steps=0", "--seed=3"])
    folder = tmp_path / "runs" / "demo"
    saved = (folder / "config.yaml").read_bytes()
    assert yaml.safe_load(saved)["seed"] == 3
    shutil.rmtree(folder / "model")
    train.main([recipe, "--resume", "--keep_checkpoints=1"])
    assert (folder / "model" / "config.json").exists()
    assert (folder / "config.yaml").read_bytes() == saved
    assert not (tmp_path / "runs" / "demo-2").exists()
    capsys.readouterr()
    error = error_of([recipe, "--resume", "--grpo.steps=2"], capsys)
    assert f"--resume: {folder / 'config.yaml'} says otherwise: grpo.steps: 0 -> 2" in error
    assert "seed" not in error


def test_help_says_how_to_start(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(["--help"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    assert "torchrun --standalone" in printed
    assert "--dry-run" in printed


def test_an_unknown_command_lists_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["geogrpo", "fly"])
    with pytest.raises(SystemExit):
        commands.main()
    assert "usage: geogrpo {train,evaluate,predict,serve,label,audit}" in capsys.readouterr().err
