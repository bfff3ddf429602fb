"""python -m geogrpo.rewards."""

from pathlib import Path

import pytest
from PIL import Image

from geogrpo.rewards import PRESETS, REWARDS
from geogrpo.rewards.__main__ import main
from geogrpo.rewards.probes import PROBES


def test_plot_prints_the_table_and_draws_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "plot.png"
    main(["plot", "geor_paper", "globe_code", "--num-truths", "20", "-o", str(picture)])
    printed = capsys.readouterr().out
    rows = {
        line.split("│")[1].strip(): [cell.strip() for cell in line.split("│")[2:-1]]
        for line in printed.splitlines()
        if line.startswith("│")
    }
    assert [rows[f"{km} km"][0] for km in ("1", "25", "750")] == ["0.999", "0.983", "0.500"]
    assert float(rows["best constant"][0]) > 0.1
    assert "globe_code: without localizability, which needs a judge" in printed
    assert Image.open(picture).size == (990, 605)


def test_probe_prints_every_probe_and_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "probe.png"
    main(["probe", "multiscale", "globe_two_rewards", "--num-truths", "50", "-o", str(picture)])
    printed = capsys.readouterr().out
    assert all(printed.count(f"│ {name} ") == 2 for name in PROBES)
    assert "multiscale: no attack pays" in printed
    assert "globe_two_rewards: earn more than an honest answer: stuffing" in printed
    assert Image.open(picture).width > 800


def test_list_names_every_preset_and_reward(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    printed = capsys.readouterr().out
    assert all(f"│ {name} " in printed for name in [*PRESETS, *PROBES, *REWARDS, "localizability"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plot", "multi-scale"], "preset 'multi-scale' is unknown. Did you mean 'multiscale'?"),
        (["probe", "twm", "--num-truths", "0"], "--num-truths must be at least 1"),
        (["probe", "twm", "--points", "/nowhere/points.csv"], "/nowhere/points.csv: no such file"),
        (["plot", "twm", "-o", "/nowhere/plot.png"], "in a folder that exists"),
        (["plot", "twm", "-o", "plot.txt"], "--output must be a .png"),
    ],
)
def test_a_mistake_ends_with_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words)
    printed = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in printed
    assert printed.count("\n") == 1
