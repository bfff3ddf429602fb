"""A head split over ranks gives what the whole head gives.

Shapes: T tokens, V vocabulary.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from geogrpo_kernels import shards
from geogrpo_kernels.reference.logprobs import add_tile
from kernel_oracles import EPS, make_logits, plain_from_logits

WORKER = Path(__file__).parents[1] / "workers" / "sharded_head.py"


@pytest.mark.parametrize("sizes", [(300, 215), (1, 514), (100, 200, 214, 1)])
def test_statistics_of_shards_merge_into_those_of_the_whole_row(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranks are simulated: what a collective would bring is computed from all parts."""
    logits, target_ids = make_logits("shifted down", 515, torch.device("cpu"), torch.float32)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = []
    for start, size in zip(starts, sizes, strict=True):
        statistics = shards.empty_statistics(len(logits), like=logits)
        tile = logits[:, start : start + size].clone().clamp_min_(shards.LOWEST_LOGIT)
        add_tile(statistics, tile, target_ids - start, 1.0)
        parts.append(statistics)
    largest = torch.stack([part[0] for part in parts]).amax(0)
    # First the maximum, then the sums, as reduce_statistics asks for them
    rescaled = []
    for part in parts:
        shift = part[0] - largest
        rescaled.append(torch.stack([shift.exp() * part[1], shift.exp() * (part[2] + part[1] * shift), part[3]]))
    answers = iter([largest, torch.stack(rescaled).sum(0)])
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda values, op, group: values.copy_(next(answers)))
    shard = shards.VocabShard(starts[0], 515, max(sizes), group=object())
    whole = shards.reduce_statistics(parts[0], 1.0, shard)
    exact = plain_from_logits(logits.double(), target_ids)
    for value, expected in zip(shards.logprobs_and_entropy(whole, 1.0), exact, strict=True):
        assert (value - expected).abs().max() <= 4 * EPS * 20


def run_two_ranks(first_rank_rows: int, backend: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "GEOGRPO_KERNELS": backend, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command += [str(WORKER), str(first_rank_rows)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def test_a_rank_without_rows_is_refused_on_every_rank() -> None:
    """One that raised alone would leave the other waiting in a collective."""
    done = run_two_ranks(100, "reference")
    assert done.returncode != 0
    assert done.stderr.count("ValueError: every rank must hold rows of the head, got [100, 0].") == 2


@pytest.mark.parametrize("backend", ["reference", "triton"])
@pytest.mark.parametrize("first_rank_rows", [50, 64])
def test_two_ranks_with_half_of_the_head_agree_with_the_whole(backend: str, first_rank_rows: int) -> None:
    """Also with shards of unequal size, which must take part in as many collectives."""
    done = run_two_ranks(first_rank_rows, backend)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agree") == 2
