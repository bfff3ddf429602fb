"""The gradient does not depend on how a step is split over rows and ranks."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import torchrun
from workers import gradients
from workers.gradients import assert_same_gradients, assert_same_update, update_of

from geogrpo.config import OptimizerConfig
from geogrpo.optimization import learning_rate

SPLITS_GROUPS = 40
"""A budget in which groups do not fit: of the worker's four, three are two rows each."""
TWO_RANKS: dict[str, dict[str, Any]] = {
    "one_row": {},
    "rows": {"budget": SPLITS_GROUPS},
    "rows_once": {"budget": SPLITS_GROUPS, "communicate_once": True},
    "all_on_rank_0": {"budget": SPLITS_GROUPS, "all_on_rank_0": True},
    "compiled": {"budget": SPLITS_GROUPS, "compiled": True},
    "language": {"budget": 80, "trained": "language"},
    "aligner": {"budget": 80, "trained": "aligner"},
    "adapter": {"budget": SPLITS_GROUPS, "communicate_once": True, "trained": "adapter"},
}


@pytest.fixture(scope="module")
def one_rank(tiny_folder: Path, device: torch.device) -> dict[str, Any]:
    """In one row, everything trained."""
    return update_of(tiny_folder)


@pytest.fixture(scope="module")
def two_ranks(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each of TWO_RANKS gives."""
    output = tmp_path_factory.mktemp("gradients") / "two.pt"
    done = torchrun(2, str(gradients.__file__), str(tiny_folder), str(output), json.dumps(TWO_RANKS))
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(output, weights_only=True)


@pytest.mark.parametrize("way", [{"budget": SPLITS_GROUPS}, {"budget": 80, "communicate_once": True}])
def test_gradients_do_not_depend_on_rows(tiny_folder: Path, one_rank: dict[str, Any], way: dict[str, Any]) -> None:
    assert_same_update(update_of(tiny_folder, **way), one_rank)


@pytest.mark.slow
# all_on_rank_0: the other rank has nothing to do and stays in step
@pytest.mark.parametrize("name", ["one_row", "rows", "rows_once", "all_on_rank_0", "compiled"])
def test_gradients_do_not_depend_on_ranks(
    one_rank: dict[str, Any], two_ranks: dict[str, dict[str, Any]], name: str
) -> None:
    assert_same_update(two_ranks[name], one_rank)


@pytest.mark.slow
@pytest.mark.parametrize(("trained", "frozen"), [("language", ".visual."), ("aligner", r".visual.(?!merger)")])
def test_two_ranks_train_on_a_frozen_tower(
    one_rank: dict[str, Any], two_ranks: dict[str, dict[str, Any]], trained: str, frozen: str
) -> None:
    """Language model alone: each rank encodes its own images, and only those; the other waits for nothing. With the
    aligner: the frozen tower is sharded, and nothing is kept of an image.
    """
    expected = {name: g for name, g in one_rank["gradients"].items() if not re.search(frozen, name)}
    assert_same_gradients(two_ranks[trained]["gradients"], expected)


@pytest.mark.slow
def test_two_ranks_train_an_adapter_as_one_does(tiny_folder: Path, two_ranks: dict[str, dict[str, Any]]) -> None:
    one = update_of(tiny_folder, trained="adapter")
    assert all(".lora_" in name for name in one["gradients"])
    assert_same_update(two_ranks["adapter"], one)


@pytest.mark.slow
def test_ranks_communicate_once_however_many_rows(two_ranks: dict[str, dict[str, Any]]) -> None:
    one_row, rows, once = (two_ranks[name]["calls"] for name in ("one_row", "rows", "rows_once"))
    assert rows["reduce_scatter_single"] > one_row["reduce_scatter_single"] > 0
    assert once["reduce_scatter_single"] == one_row["reduce_scatter_single"]
    # One row gathers again what the forward pass has freed.
    assert once["all_gather_single"] == once["reduce_scatter_single"] < one_row["all_gather_single"]


def test_learning_rate_rises_then_falls_to_its_end() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=3, final_lr_fraction=0.1)
    rates = [learning_rate(step, 13, config) for step in range(13)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(0.91)
    assert rates[-1] == pytest.approx(0.19)
    assert learning_rate(13, 13, config) == pytest.approx(0.1)


def test_learning_rate_without_warmup_starts_at_its_peak() -> None:
    assert learning_rate(0, 10, OptimizerConfig(lr=2.0)) == 2.0
