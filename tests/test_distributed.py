"""How a policy is spread over ranks, nodes and the host changes where numbers are, not what they are."""

from pathlib import Path

import pytest
import torch
from small_runs import torchrun, two_nodes

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


def assert_same_update(actual: dict, expected: dict) -> None:
    assert actual["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        assert gradient.norm() > 0, name
        # float32 sums in another order: 1e-5 of the tensor's own size
        assert (actual["gradients"][name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert actual["means"] == pytest.approx(expected["means"], rel=1e-5)
    assert actual["norm"] == pytest.approx(expected["norm"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ranks_per_node", "sharded", "budget", "communication"),
    [
        ([1, 1], "all", SPLITS_GROUPS, "every_row"),
        ([2, 2], "node", SPLITS_GROUPS, "every_row"),
        ([2, 2], "node+offload", SPLITS_GROUPS, "once"),
    ],
)
def test_two_nodes_have_the_gradients_of_one_rank(
    tiny_folder: Path,
    tmp_path: Path,
    one_rank: dict,
    ranks_per_node: list[int],
    sharded: str,
    budget: int,
    communication: str,
) -> None:
    output = tmp_path / "two.pt"
    two_nodes(
        ranks_per_node, *arguments(tiny_folder, output, budget=budget, communication=communication, sharded=sharded)
    )
    assert_same_update(read(output), one_rank)
