"""Figures of runs where something is missing, and the lines of the map at the antimeridian."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from geogrpo.report.figures import _moving_mean, _wrapped_line, distance_histogram, reward_curve, world_map


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures saved."""
    figures: list[Figure] = []
    original = Figure.savefig

    def savefig(self: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(self)
        original(self, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


def curve(figure: Figure, axes: int) -> list[float]:
    return figure.axes[axes].lines[0].get_ydata().tolist()


def test_a_step_without_an_entropy_leaves_a_gap_in_the_curve(tmp_path: Path, drawn: list[Figure]) -> None:
    """With beta 0 a step whose groups all have equal rewards trains on no token, so it has no entropy."""
    metrics = [{"stage": "grpo", "step": i + 1, "reward": 0.5, "entropy": 1.0 + i} for i in range(3)]
    del metrics[1]["entropy"]
    metrics[2]["entropy"] = None
    reward_curve(metrics, tmp_path / "curve.png")
    assert curve(drawn[0], 0) == [0.5, 0.5, 0.5]
    np.testing.assert_equal(curve(drawn[0], 1), [1.0, np.nan, np.nan])


def test_a_step_whose_images_were_all_unreadable_is_no_point_of_the_curve(tmp_path: Path, drawn: list[Figure]) -> None:
    metrics = [{"stage": "grpo", "step": 1, "reward": None}, {"stage": "grpo", "step": 2, "reward": 0.25}]
    reward_curve([{"stage": "supervised", "step": 1, "loss": 2.0}, *metrics], tmp_path / "curve.png")
    assert curve(drawn[0], 0) == [0.25]


def test_a_run_without_any_entropy_or_reward_has_a_curve(tmp_path: Path) -> None:
    for name, metrics in (
        ("no_entropy", [{"stage": "grpo", "step": i, "reward": 0.5} for i in range(1, 31)]),
        ("no_reward", [{"stage": "grpo", "step": 1, "reward": None}]),
    ):
        reward_curve(metrics, tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 0


def test_a_moving_mean_is_over_the_steps_that_have_the_value() -> None:
    values = np.array([1.0, np.nan, 3.0, 8.0, np.nan, np.nan])
    np.testing.assert_allclose(_moving_mean(values, 2), [1.0, 3.0, 5.5, 8.0, np.nan])


def test_a_map_of_answers_without_coordinates_is_drawn(tmp_path: Path) -> None:
    nowhere, distances = np.full((2, 2), np.nan), np.full(2, np.nan)
    world = Image.new("RGB", (20, 10), "navy")
    world_map(np.zeros((2, 2)), nowhere, distances, world, tmp_path / "map.png", title="nothing")
    distance_histogram({"grpo": distances}, tmp_path / "histogram.png")
    assert (tmp_path / "map.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((10.0, 20.0), (-5.0, 150.0), [[(20.0, 10.0), (150.0, -5.0)]]),
        # Exactly half the way round stays in one piece.
        ((0.0, -90.0), (0.0, 90.0), [[(-90.0, 0.0), (90.0, 0.0)]]),
        # From Fiji eastward to Samoa: 10 degrees, not 350
        ((-18.0, 178.0), (-14.0, -172.0), [[(178.0, -18.0), (188.0, -14.0)], [(-182.0, -18.0), (-172.0, -14.0)]]),
        ((-14.0, -172.0), (-18.0, 178.0), [[(-172.0, -14.0), (-182.0, -18.0)], [(188.0, -14.0), (178.0, -18.0)]]),
    ],
)
def test_a_line_takes_the_short_way_round_the_antimeridian(a: tuple, b: tuple, expected: list) -> None:
    assert _wrapped_line(np.array(a), np.array(b)) == expected
