"""What the display shows: a bar on a terminal, plain lines elsewhere."""

import io
import re

import pytest
from rich.console import Console

from geogrpo.report import progress
from geogrpo.report.progress import StageDisplay

STEPS = ({"reward": 0.25, "tokens_per_s": 900.0}, {"reward": float("nan")}, {"reward": 0.75, "tokens_per_s": 1300.0})


def show(console: Console, steps: tuple[dict, ...] = STEPS, total: int = 3, done: int = 0) -> str:
    with StageDisplay("grpo", "Stage 2, GRPO", total, done, console) as display:
        for metrics in steps:
            display.step(metrics)
    return console.file.getvalue()


def plain() -> Console:
    return Console(file=io.StringIO(), width=160)


def terminal() -> Console:
    return Console(file=io.StringIO(), width=160, force_terminal=True, color_system=None, legacy_windows=False)


def test_without_a_terminal_the_end_of_a_stage_is_one_plain_line() -> None:
    assert show(plain()) == (
        "Stage 2, GRPO 3/3  reward 0.500  KL -  entropy -  zero-variance -  parsed -  tokens/s 1,100  0:00 left\n"
    )


def test_lines_come_at_intervals_and_say_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 4.0, 16.0, 20.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    printed = show(plain(), total=13, done=5)
    # 16 s for two steps, and six are left
    (line,) = printed.splitlines()
    assert line.startswith("Stage 2, GRPO 7/13  ")
    assert line.endswith("  0:48 left")


def test_on_a_terminal_the_same_numbers_stand_beside_a_bar_that_is_redrawn() -> None:
    printed = show(terminal())
    assert "\x1b[" in printed
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    assert "3/3" in text
    assert "reward 0.500  KL -  entropy -  zero-variance -  parsed -  tokens/s 1,100" in text
    assert "left" not in text


def test_skipped_images_are_shown_where_there_are_any() -> None:
    assert "skipped images 2" in show(plain(), ({"reward": 0.5, "num_skipped_images": 2},), total=1)
    assert "skipped" not in show(plain(), ({"reward": 0.5, "num_skipped_images": 0},), total=1)


def test_numbers_are_means_over_the_last_steps() -> None:
    steps = ({"reward": 100.0}, *({"reward": 0.125},) * progress.SMOOTHING_STEPS)
    assert "reward 0.125 " in show(plain(), steps, total=len(steps))
