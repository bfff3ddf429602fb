"""A GRPO step on two ranks is that of one, whatever the loss, and whatever of it a rank has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from grpo_steps import assert_same_gradients
from small_runs import torchrun

from geogrpo.losses import LOSSES

WORKER = Path(__file__).parents[1] / "workers" / "steps.py"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def steps(answering_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Any]:
    """Number of ranks -> what they did."""
    found = {}
    for ranks in (1, 2):
        output = tmp_path_factory.mktemp("steps") / f"{ranks}.pt"
        done = torchrun(ranks, str(WORKER), str(answering_folder), str(output))
        assert done.returncode == 0, done.stderr[-3000:]
        found[ranks] = torch.load(output, weights_only=True)
    return found


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_do_not_depend_on_ranks(name: str, steps: dict[int, Any]) -> None:
    """In the second update, whose ratios are not 1, with a KL and a deviation over the whole step."""
    (expected, means, norm), (actual, actual_means, actual_norm) = (steps[ranks]["losses"][name] for ranks in (1, 2))
    # Two updates: the error of the first is in the weights of the second.
    assert_same_gradients(actual, expected, tolerance=1e-4)
    assert actual_means == pytest.approx(means, rel=1e-4, abs=1e-6)
    assert actual_norm == pytest.approx(norm, rel=1e-4)
    assert norm > 0


def test_a_step_in_which_all_earn_the_same_is_logged_and_changes_nothing_on_any_rank(steps: dict[int, Any]) -> None:
    """Neither by AdamW's memory of the step before."""
    for ranks in (1, 2):
        (first, before), (metrics, after) = steps[ranks]["fading"]
        assert first["frac_reward_zero_std"] == 0
        assert first["grad_norm"] > 0
        assert (metrics["frac_reward_zero_std"], metrics["grad_norm"], metrics["loss"]) == (1, 0, 0)
        assert metrics["reward"] == 0.5
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_ranks_resample_together_and_stop_together(steps: dict[int, Any]) -> None:
    one, two = steps[1]["resampled"], steps[2]["resampled"]
    for (metrics, completions), (metrics_of_two, completions_of_two) in zip(one, two, strict=True):
        assert [(id, text) for id, text, _ in completions] == [(id, text) for id, text, _ in completions_of_two]
        assert metrics["resampling/num_rounds"] == metrics_of_two["resampling/num_rounds"] > 0
        assert metrics["resampling/num_replaced"] == metrics_of_two["resampling/num_replaced"] > 0
        assert metrics["reward"] == pytest.approx(metrics_of_two["reward"])
        for (id, _, advantage), (_, _, other) in zip(completions, completions_of_two, strict=True):
            assert advantage == pytest.approx(other, abs=1e-6)
            assert (advantage == 0) or id == "place-2"
