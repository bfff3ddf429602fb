"""What README.md shows works: its Python is run, its files and folders exist."""

import math
import re
from pathlib import Path

import pytest
import torch

from geogrpo.config import load_config
from geogrpo.rewards import find_rewards

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs_as_printed(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: torch.device,
) -> None:
    example, _ = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.splitlines()) <= 25
    # The example trains the model that the demo leaves; here a smaller one stands in its place.
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "model").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["1", "2", "3"]
    assert all(math.isfinite(float(line.split()[1])) for line in printed)


def test_the_region_example_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, example = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    (said,) = re.findall(r"# \[\[(.*?)\]", example)
    assert capsys.readouterr().out.startswith(f"[[{said}]")
    assert (tmp_path / "world.safetensors").is_file()


def test_the_recipe_example_is_valid(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    (tmp_path / "my.yaml").write_text(example, encoding="utf-8")
    config = load_config(str(tmp_path / "my.yaml"))
    find_rewards(config.grpo.rewards)
    assert (config.answer.decimals, config.grpo.sampling.max_new_tokens) == (4, 96)


def test_every_file_that_the_readme_links_exists() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_entry_of_the_folder_map_exists() -> None:
    (folder_map,) = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
    entries = [line.split()[0] for line in folder_map.splitlines() if line.strip()]
    assert len(entries) > 10
    assert [entry for entry in entries if not (ROOT / entry).exists()] == []
