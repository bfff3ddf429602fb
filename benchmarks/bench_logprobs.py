"""Log-probs of tokens from hidden states and the head: ours, PyTorch's and others', on the same data in one run.

pytest benchmarks/bench_logprobs.py        about 90 s on 2 CPU cores, two minutes on a GPU; needs the machine to itself

Peers come with `pip install -e '.[peers]'`; one that is missing is skipped with the reason. Results go
to benchmarks/results/head_cpu.json, or where GEOGRPO_HEAD_RESULTS says; `python benchmarks/head_results.py FILE` prints
them as a table. heads.py has the settings of each, head_measure.py says how time, memory and errors are measured.
"""

import pytest
import torch

from benchmarks.head_measure import DEVICE, Case, Record, assert_no_peer_is_faster, cases, measure, run_logprobs
from benchmarks.heads import LOGPROBS, OURS

MODES = ("forward", "forward+backward")
# The demo's head, and a vocabulary like a model's; the heads of Qwen2.5-VL-7B and Qwen2.5-VL-3B
PROBLEMS = {
    "cpu": [
        ((1024, 256, 6144), torch.float32),
        ((1024, 256, 6144), torch.bfloat16),
        ((256, 896, 32768), torch.float32),
    ],
    "cuda": [((16384, 3584, 152064), torch.bfloat16), ((16384, 2048, 151936), torch.bfloat16)],
}
CASES = cases(LOGPROBS, MODES, PROBLEMS[DEVICE])


@pytest.fixture(scope="module")
def record() -> Record:
    return Record("logprobs")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_logprobs(benchmark, record: Record, case: Case) -> None:  # type: ignore[no-untyped-def]
    row = measure(benchmark, record, case, run_logprobs)
    if case.name == OURS:
        assert row["accuracy"] == "float32", row["error"]


@pytest.mark.skipif(DEVICE != "cpu", reason="the target is for a CPU")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("shape", "dtype"), PROBLEMS["cpu"], ids=str)
def test_cpu_targets(record: Record, shape, dtype, mode) -> None:  # type: ignore[no-untyped-def]
    assert_no_peer_is_faster(record, shape, dtype, mode)


@pytest.mark.skipif(DEVICE != "cuda", reason="the target is for an H200")
@pytest.mark.parametrize(("mode", "limit_ms"), [("forward", 28), ("forward+backward", 105)])
def test_gpu_targets(record: Record, mode: str, limit_ms: float) -> None:
    problem = (*PROBLEMS["cuda"][0], mode)
    (ours,) = record.find(OURS, *problem)
    assert ours["ms"] <= limit_ms
    assert_no_peer_is_faster(record, *problem)
