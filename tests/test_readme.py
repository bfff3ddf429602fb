"""What README.md shows works: its Python is run, its files and folders exist."""

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from geogrpo.config_files import load_config
from geogrpo.config_names.table import OTHER_NAMES
from geogrpo.rewards import find_rewards

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_EXAMPLES = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_runs_as_printed(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    device: torch.device,
) -> None:
    example = PYTHON_EXAMPLES[0]
    assert len(example.splitlines()) <= 25
    # The example trains the model that the demo leaves; here a smaller one stands in its place.
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "model").symlink_to(tiny_folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["1", "2", "3"]
    assert all(math.isfinite(float(line.split()[1])) for line in printed)


def test_the_kernel_example_gives_a_loss_and_gradients(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(PYTHON_EXAMPLES[1], "README.md", "exec"), names)
    # The policy that sampled is the current one: every ratio is 1, and the advantages of 5 and 7 tokens remain.
    assert float(capsys.readouterr().out.split()[0]) == pytest.approx((7 - 5) / 12, abs=1e-6)
    assert names["hidden"].grad.any()
    assert names["head"].grad.any()


def test_the_table_of_the_kernels_is_that_of_the_committed_result() -> None:
    script, result = (ROOT / "benchmarks" / name for name in ("head_results.py", "results/head_cpu.json"))
    printed = subprocess.run([sys.executable, script, result], capture_output=True, text=True, check=True).stdout
    rows = re.findall(r"^\|.* ms .*\n(?:\|.*\n)+", README, flags=re.MULTILINE)
    assert len(rows) == 1
    assert rows[0] in printed


def test_the_region_example_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = PYTHON_EXAMPLES[2]
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


def test_names_of_other_trainers_are_those_that_errors_give() -> None:
    (table,) = re.findall(r"\| TRL \| verl \| here \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", README)
    rows = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert len(rows) > 20
    for trl, verl, here in rows:
        assert trl or verl
        if trl:
            assert here in OTHER_NAMES["TRL"][trl].keys
        if verl:
            (full_name,) = [name for name in OTHER_NAMES["verl"] if name.removeprefix("actor_rollout_ref.") == verl]
            assert here in OTHER_NAMES["verl"][full_name].keys
    (count,) = re.findall(r"docs/names\.md\) has (\d+)", README)
    assert int(count) == sum(len(names) for names in OTHER_NAMES.values())
