"""The gradient does not depend on how a step is split over rows and ranks."""

import re
from pathlib import Path

import pytest
import torch
from small_runs import torchrun

from geogrpo.config import OptimizerConfig
from geogrpo.optimization import learning_rate

SPLITS_GROUPS = 60
"""A budget in which the largest groups do not fit."""
WORKER = Path(__file__).parent / "workers" / "gradients.py"


def run_worker(
    tiny_folder: Path,
    output: Path,
    *,
    ranks: int,
    budget: int,
    spread: str = "shared",
    communication: str = "every_row",
    trained: str = "all",
) -> dict:
    arguments = [str(WORKER), str(tiny_folder), str(output), str(budget), spread, communication, trained, "all"]
    done = torchrun(ranks, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(output, weights_only=True)


@pytest.fixture(scope="module")
def one_rank_one_row(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return run_worker(tiny_folder, tmp_path_factory.mktemp("gradients") / "one.pt", ranks=1, budget=100_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks", "budget", "spread", "communication"),
    [
        (1, SPLITS_GROUPS, "shared", "every_row"),
        (1, 80, "shared", "once"),
        (2, 100_000, "shared", "every_row"),
        (2, SPLITS_GROUPS, "shared", "once"),
        (2, SPLITS_GROUPS, "all_on_rank_0", "every_row"),  # the other rank has nothing to do and stays in step
    ],
)
def test_gradients_do_not_depend_on_rows_and_ranks(
    tiny_folder: Path, tmp_path: Path, one_rank_one_row: dict, ranks: int, budget: int, spread: str, communication: str
) -> None:
    expected = one_rank_one_row
    actual = run_worker(
        tiny_folder, tmp_path / "out.pt", ranks=ranks, budget=budget, spread=spread, communication=communication
    )
    assert actual["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        assert gradient.norm() > 0, name
        # float32 sums in another order: 1e-5 of the tensor's own size
        assert (actual["gradients"][name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert actual["means"] == pytest.approx(expected["means"], rel=1e-5)
    assert actual["norm"] == pytest.approx(expected["norm"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["language", "aligner"])
def test_two_ranks_train_on_a_frozen_tower(
    trained: str, tiny_folder: Path, tmp_path: Path, one_rank_one_row: dict
) -> None:
    """Language model alone: each rank encodes its own images, and only those; the other waits for nothing. With the
    aligner: the frozen tower is sharded, and nothing is kept of an image.
    """
    actual = run_worker(tiny_folder, tmp_path / "out.pt", ranks=2, budget=80, trained=trained)["gradients"]
    frozen = ".visual." if trained == "language" else r".visual.(?!merger)"
    expected = {k: v for k, v in one_rank_one_row["gradients"].items() if not re.search(frozen, k)}
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.slow
def test_two_ranks_train_an_adapter_as_one_does(tiny_folder: Path, tmp_path: Path) -> None:
    one, two = (
        run_worker(
            tiny_folder,
            tmp_path / f"{ranks}.pt",
            ranks=ranks,
            budget=budget,
            communication=communication,
            trained="adapter",
        )
        for ranks, budget, communication in ((1, 100_000, "every_row"), (2, SPLITS_GROUPS, "once"))
    )
    assert two["gradients"].keys() == one["gradients"].keys()
    assert all(".lora_" in name for name in one["gradients"])
    for name, gradient in one["gradients"].items():
        assert gradient.norm() > 0, name
        assert (two["gradients"][name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-5)


@pytest.mark.slow
def test_ranks_communicate_once_however_many_rows(tiny_folder: Path, tmp_path: Path) -> None:
    calls = {
        communication: run_worker(
            tiny_folder, tmp_path / f"{communication}.pt", ranks=2, budget=SPLITS_GROUPS, communication=communication
        )["calls"]
        for communication in ("every_row", "once")
    }
    one_row = run_worker(tiny_folder, tmp_path / "one.pt", ranks=2, budget=100_000)["calls"]
    assert calls["every_row"]["reduce_scatter_single"] > one_row["reduce_scatter_single"]
    assert calls["once"]["reduce_scatter_single"] == one_row["reduce_scatter_single"]
    # The frozen reference gathers for every row as before.
    saved = calls["every_row"]["all_gather_single"] - calls["once"]["all_gather_single"]
    assert saved > 0


def test_learning_rate_rises_then_falls_to_its_end() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=3, final_lr_fraction=0.1)
    rates = [learning_rate(step, 13, config) for step in range(13)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(0.91)
    assert rates[-1] == pytest.approx(0.19)
    assert learning_rate(13, 13, config) == pytest.approx(0.1)


def test_learning_rate_without_warmup_starts_at_its_peak() -> None:
    assert learning_rate(0, 10, OptimizerConfig(lr=2.0)) == 2.0
