"""The GRPO loss and its gradients from hidden states and the head: ours, PyTorch's and others', in one run.

pytest benchmarks/bench_policy_loss.py        about 90 s on 2 CPU cores, two minutes on a GPU

As bench_logprobs.py, which says where peers and results are. The loss is DAPO's with a KL: clipped ratio, k3, mean
over tokens, sequences of equal length. On a GPU the size of our chunks is varied, too.
"""

import pytest
import torch
from geogrpo_kernels import head

from benchmarks.bench_logprobs import PROBLEMS
from benchmarks.head_measure import DEVICE, Case, Record, assert_no_peer_is_faster, cases, measure, run_policy_loss
from benchmarks.heads import OURS, POLICY_LOSSES, Implementation

MODE = "forward+backward"
CASES = cases(POLICY_LOSSES, (MODE,), PROBLEMS[DEVICE])
CHUNKS = [(shape, rows) for shape, _ in PROBLEMS["cuda"] for rows in (2048, 3584, 4096, 6016, 8192, 16384)]


@pytest.fixture(scope="module")
def record() -> Record:
    return Record("policy_loss")


@pytest.fixture(scope="module")
def chunk_record() -> Record:
    return Record("chunk_rows")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_policy_loss(benchmark, record: Record, case: Case) -> None:  # type: ignore[no-untyped-def]
    row = measure(benchmark, record, case, run_policy_loss)
    if case.name == OURS:
        assert row["accuracy"] == "float32", row["error"]


@pytest.mark.skipif(DEVICE != "cpu", reason="the target is for a CPU")
@pytest.mark.parametrize(("shape", "dtype"), PROBLEMS["cpu"], ids=str)
def test_cpu_targets(record: Record, shape, dtype) -> None:  # type: ignore[no-untyped-def]
    assert_no_peer_is_faster(record, shape, dtype, MODE)


@pytest.mark.skipif(DEVICE != "cuda", reason="chunks of tokens are for a GPU")
@pytest.mark.parametrize(("shape", "rows"), CHUNKS, ids=str)
def test_chunk_rows(benchmark, chunk_record, monkeypatch, shape, rows) -> None:  # type: ignore[no-untyped-def]
    """head.row_chunks makes chunks about equal: the rows that were used can be fewer."""
    monkeypatch.setattr(head, "CHUNK_BYTES", 4 * rows * shape[2])
    used = head.row_chunks(shape[0], shape[2])[0].stop
    ours: Implementation = POLICY_LOSSES[OURS]
    case = Case(f"at most {rows} rows, {used} used", ours, MODE, shape, torch.bfloat16)
    measure(benchmark, chunk_record, case, run_policy_loss)


@pytest.mark.skipif(DEVICE != "cuda", reason="the target is for an H200")
def test_gpu_targets(record: Record) -> None:
    problem = (*PROBLEMS["cuda"][0], MODE)
    (ours,) = record.find(OURS, *problem)
    assert ours["ms"] <= 80
    assert ours["extra_mb"] <= 5000
    assert_no_peer_is_faster(record, *problem)
