"""How a policy is spread over ranks, nodes and the host changes where numbers are, not what they are."""

from pathlib import Path

import pytest
import torch
from small_runs import torchrun, two_nodes

from geogrpo import distributed
from geogrpo.config import ParallelConfig
from geogrpo.distributed import shard_policy

WORKER = Path(__file__).parent / "workers" / "gradients.py"
SPLITS_GROUPS = 60
"""A budget in which the largest groups do not fit."""
ONE_ROW = 100_000


def arguments(
    tiny_folder: Path, output: Path, *, budget: int, communication: str = "every_row", sharded: str
) -> list[str]:
    return [str(WORKER), str(tiny_folder), str(output), str(budget), "shared", communication, "all", sharded]


def read(path: Path) -> dict:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def one_rank(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """One update on one rank, in one row."""
    output = tmp_path_factory.mktemp("gradients") / "one.pt"
    done = torchrun(1, *arguments(tiny_folder, output, budget=ONE_ROW, sharded="all"))
    assert done.returncode == 0, done.stderr[-3000:]
    return read(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks_per_node", "sharded"), [([1, 1], "all+compiled"), ([2, 2], "node+offload")], ids=["all", "node"]
)
def test_two_nodes_have_the_gradients_of_one_rank(
    tiny_folder: Path, tmp_path: Path, one_rank: dict, ranks_per_node: list[int], sharded: str
) -> None:
    output = tmp_path / "two.pt"
    two_nodes(ranks_per_node, *arguments(tiny_folder, output, budget=SPLITS_GROUPS, sharded=sharded))
    actual = read(output)
    assert actual["gradients"].keys() == one_rank["gradients"].keys()
    for name, gradient in one_rank["gradients"].items():
        assert gradient.norm() > 0, name
        # float32 sums in another order: 1e-5 of the tensor's own size
        assert (actual["gradients"][name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert actual["means"] == pytest.approx(one_rank["means"], rel=1e-5)
    assert actual["norm"] == pytest.approx(one_rank["norm"], rel=1e-5)


@pytest.mark.slow
def test_in_bfloat16_gradients_are_added_up_in_float32(tiny_folder: Path, tmp_path: Path, one_rank: dict) -> None:
    output = tmp_path / "bfloat16.pt"
    budget = {"budget": SPLITS_GROUPS, "communication": "once"}
    two_nodes([2, 2], *arguments(tiny_folder, output, **budget, sharded="node+bfloat16"))
    actual = read(output)
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
