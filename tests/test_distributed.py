"""How a policy is spread over ranks, nodes and the host changes where numbers are, not what they are."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import two_nodes
from workers import gradients
from workers.gradients import assert_same_update, update_of

from geogrpo import distributed
from geogrpo.config import ParallelConfig
from geogrpo.distributed import shard_policy

SPLITS_GROUPS = 40
"""A budget in which groups do not fit: of the worker's four, three are two rows each."""
TWO_NODES: dict[str, dict[str, Any]] = {
    "all": {"budget": SPLITS_GROUPS},
    "node": {"budget": SPLITS_GROUPS, "shard_within": "node"},
    "offload": {"budget": SPLITS_GROUPS, "shard_within": "node", "cpu_offload": True},
    "bfloat16": {"budget": SPLITS_GROUPS, "shard_within": "node", "dtype": "bfloat16", "communicate_once": True},
}


@pytest.fixture(scope="module")
def one_rank(tiny_folder: Path, device: torch.device) -> dict[str, Any]:
    """In one row."""
    return update_of(tiny_folder)


@pytest.fixture(scope="module")
def on_two_nodes(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each of TWO_NODES gives on two nodes of two ranks."""
    output = tmp_path_factory.mktemp("gradients") / "nodes.pt"
    two_nodes([2, 2], str(gradients.__file__), str(tiny_folder), str(output), json.dumps(TWO_NODES))
    return torch.load(output, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["all", "node", "offload"])
def test_two_nodes_have_the_gradients_of_one_rank(
    one_rank: dict[str, Any], on_two_nodes: dict[str, dict[str, Any]], name: str
) -> None:
    assert_same_update(on_two_nodes[name], one_rank)


@pytest.mark.slow
def test_nodes_with_a_copy_each_add_up_gradients_once_a_step(on_two_nodes: dict[str, dict[str, Any]]) -> None:
    spread, copies = (on_two_nodes[name]["calls"] for name in ("all", "node"))
    # Once for each block, and for the rest of the model, however many rows
    num_units = on_two_nodes["bfloat16"]["calls"]["reduce_scatter_single"]
    assert copies["all_reduce"] - spread["all_reduce"] == num_units > 0
    assert copies["reduce_scatter_single"] == spread["reduce_scatter_single"] > num_units


@pytest.mark.slow
def test_in_bfloat16_gradients_are_added_up_in_float32(
    one_rank: dict[str, Any], on_two_nodes: dict[str, dict[str, Any]]
) -> None:
    actual = on_two_nodes["bfloat16"]
    assert actual["dtypes"]["all_gather_single"] == ["torch.bfloat16"]
    assert actual["dtypes"]["reduce_scatter_single"] == ["torch.float32"]
    # Between nodes, besides counts
    assert set(actual["dtypes"]["all_reduce"]) - {"torch.int64"} == {"torch.float32"}
    # Every rank's share is there once: bfloat16 has 8 bits.
    assert actual["norm"] == pytest.approx(one_rank["norm"], rel=0.05)


@pytest.mark.parametrize(
    "found",
    [
        [(0, 1), (0, 2), (1, 2)],  # one rank on the first node, two on the second
        [(0, 2), (0, 2), (1, 2), (1, 2)],  # node by turns
        [(-1, -1), (-1, -1)],  # not started by torchrun
    ],
)
def test_nodes_that_are_not_alike_are_refused_with_what_was_found(
    monkeypatch: pytest.MonkeyPatch, found: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: len(found))
    monkeypatch.setattr(distributed, "all_gather_list", lambda items: found)
    with pytest.raises(ValueError, match=r"parallel\.shard_within: node needs as many ranks on every node.*are \[\("):
        shard_policy(torch.nn.Module(), torch.device("cpu"), torch.float32, ParallelConfig(shard_within="node"))
