"""One measurement of a head: errors against float64 first, then time, memory and the share of the matrix-product peak.

Memory is what a run needs beyond its inputs, gradients it returns included: on a GPU the allocator's peak, on a CPU
the kernel's own high-water mark of resident memory (VmHWM in /proc/self/status, reset before the run through
/proc/self/clear_refs), after freed memory went back to the system and a first run set up what libraries keep.

Shapes: T tokens, H hidden, V vocabulary, S sequences.
"""

import ctypes
import functools
import gc
import importlib.metadata
import json
import os
import platform
import re
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import triton
from torch import Tensor

from benchmarks.heads import OURS, Implementation, Rollout, grpo_loss

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RESULTS = Path(__file__).parent / "results"
PEERS = ("liger-kernel", "cut-cross-entropy", "trl")
TFLOP = 1e12
FLOPS_PER_LOGIT = {"forward": 2, "forward+backward": 6}
"""Per logit and hidden unit, for everybody: what a computation that keeps its logits needs."""
NUM_SEQUENCES = 16
TIMED_SECONDS, MIN_ROUNDS, MAX_ROUNDS, SLOW_SECONDS = 0.7, 3, 20, 1.5
"""Repeated for about so long, after two calls that check, weigh and warm up; once when a call is slow."""
WRONG_NATS, WRONG_GRADIENT = 0.5, 0.5
FLOAT32_NATS = 1e-3
"""A log-prob from float32 logits is off by less; bfloat16 logits of these sizes are off by 0.03 to 0.06."""


@dataclass(frozen=True)
class Case:
    """One row of the results."""

    name: str
    implementation: Implementation
    mode: str
    shape: tuple[int, int, int]
    dtype: torch.dtype
    precision: str = "highest"
    """torch.set_float32_matmul_precision."""

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        label = f"{self.name}-{self.mode}-{shape}-{dtype_name(self.dtype)}"
        return label if self.precision == "highest" else f"{label}-{self.precision}"


@dataclass(frozen=True)
class Problem:
    """Inputs, and the exact answers in float64."""

    hidden: Tensor
    weight: Tensor
    rollout: Rollout
    upstream: Tensor
    """(T,) gradient of the log-probs in the mode forward+backward."""
    logprobs: Tensor
    entropy: Tensor
    gradients: tuple[Tensor, Tensor]
    """Of hidden and weight, from upstream."""
    loss: Tensor
    loss_gradients: tuple[Tensor, Tensor]
    peak_tflops: float
    """Measured: hidden @ weight.T in their dtype."""


def dtype_name(dtype: torch.dtype) -> str:
    """Without torch."""
    return str(dtype).removeprefix("torch.")


def cases(
    implementations: dict[str, Implementation],
    modes: tuple[str, ...],
    problems: list[tuple[tuple[int, int, int], torch.dtype]],
) -> list[Case]:
    """All that can be asked for on this device, problem by problem."""
    return [
        Case(name, implementation, mode, shape, dtype, precision)
        for place, (shape, dtype) in enumerate(problems)
        for mode in modes
        for name, implementation in implementations.items()
        if DEVICE in implementation.devices and dtype in implementation.dtypes
        # Minutes of compilation and of float32 products: once is enough on a GPU that is lent.
        if place == 0 or DEVICE == "cpu" or not (implementation.is_float32_product or "compiled" in name)
        for precision in (
            ("highest", "high") if DEVICE == "cuda" and implementation.is_float32_product else ("highest",)
        )
    ]


@functools.lru_cache(maxsize=1)
def problem(shape: tuple[int, int, int], dtype: torch.dtype) -> Problem:
    """Logits with a standard deviation of 4, and a target that is likely (log-prob above -1) in half of the rows.

    Inputs are multiples of bfloat16 in either dtype.
    """
    num_tokens, hidden_size, vocab_size = shape
    generator = torch.Generator(DEVICE).manual_seed(0)
    normal = functools.partial(torch.randn, generator=generator, device=DEVICE)
    weight = normal(vocab_size, hidden_size).mul_(4 * hidden_size**-0.5)
    target_ids = torch.randint(vocab_size, (num_tokens,), generator=generator, device=DEVICE)
    hidden = normal(num_tokens, hidden_size)
    # Moves the logit of a target, and few others: weight's rows have a squared length of 16.
    hidden[::2] += 1.2 * weight[target_ids[::2]]
    hidden, weight = (tensor.bfloat16().to(dtype) for tensor in (hidden, weight))
    upstream = normal(num_tokens) / num_tokens
    logprobs, entropy = exact_logprobs(hidden, weight, target_ids)
    rollout = Rollout(
        target_ids,
        normal(NUM_SEQUENCES),
        (logprobs + 0.2 * normal(num_tokens)).float(),
        (logprobs + 0.2 * normal(num_tokens)).float(),
    )
    leaf = logprobs.clone().requires_grad_()
    loss = grpo_loss(leaf, rollout)
    (loss_upstream,) = torch.autograd.grad(loss, leaf)
    gradients, loss_gradients = exact_gradients(hidden, weight, target_ids, (upstream.double(), loss_upstream))
    peak = peak_tflops(hidden, weight)
    return Problem(hidden, weight, rollout, upstream, logprobs, entropy, gradients, loss.detach(), loss_gradients, peak)


def exact_logprobs(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> tuple[Tensor, Tensor]:
    """(T,) log-probs and (T,) entropy in float64, by plain PyTorch."""
    parts, weight = [], weight.double()
    for rows, ids in zip(hidden.split(512), target_ids.split(512), strict=True):
        logprobs = torch.log_softmax(rows.double() @ weight.T, -1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        parts.append(torch.stack([logprobs.gather(1, ids[:, None])[:, 0], entropy]))
    logprobs, entropy = torch.cat(parts, dim=1)
    return logprobs, entropy


def exact_gradients(
    hidden: Tensor, weight: Tensor, target_ids: Tensor, upstreams: tuple[Tensor, ...]
) -> list[tuple[Tensor, Tensor]]:
    """For each upstream gradient of the log-probs the gradients of hidden and weight, by autograd of the logits."""
    weight = weight.double()
    gradients = [
        (torch.zeros_like(hidden, dtype=torch.float64), torch.zeros_like(weight, dtype=torch.float64))
        for _ in upstreams
    ]
    for start in range(0, len(hidden), 512):
        rows = slice(start, start + 512)
        part = hidden[rows].double()
        logits = (part @ weight.T).requires_grad_()
        logprobs = torch.log_softmax(logits, -1).gather(1, target_ids[rows, None])[:, 0]
        for upstream, (grad_hidden, grad_weight) in zip(upstreams, gradients, strict=True):
            (grad,) = torch.autograd.grad(logprobs, logits, upstream[rows], retain_graph=True)
            grad_hidden[rows] = grad @ weight
            grad_weight.addmm_(grad.T, part)
    return gradients


def peak_tflops(hidden: Tensor, weight: Tensor) -> float:
    """The matrix product of this shape and dtype, into memory that is there."""
    out = hidden.new_empty(len(hidden), len(weight))
    times = [seconds_of(lambda: torch.mm(hidden, weight.T, out=out)) for _ in range(7)]
    flops = 2 * out.numel() * hidden.shape[1]
    return flops / min(times) / TFLOP


def synchronize() -> None:
    """Wait for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], object]) -> float:
    """One call."""
    synchronize()
    started = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - started


def extra_bytes(run: Callable[[], object]) -> int:
    """Peak memory of one call above what was in use before it."""
    gc.collect()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    # Memory that malloc keeps would hide what the run needs.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_bytes("VmRSS")
    kept = run()
    peak = resident_bytes("VmHWM")
    del kept
    return max(0, peak - before)


def resident_bytes(field: str) -> int:
    """VmRSS, now, or VmHWM, the most since the last reset."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]


@contextmanager
def matmul_precision(precision: str):  # type: ignore[no-untyped-def]
    """Float32 matrix products in this precision, for a while."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def run_logprobs(case: Case, given: Problem) -> Callable[[], dict[str, Tensor]]:
    """A call whose results have the names of Problem's answers."""

    def forward() -> dict[str, Tensor]:
        with torch.no_grad():
            logprobs, entropy = case.implementation.run(given.hidden, given.weight, given.rollout.target_ids)
        return {"logprobs": logprobs} | ({} if entropy is None else {"entropy": entropy})

    def forward_and_backward() -> dict[str, Tensor]:
        leaves = given.hidden.detach().requires_grad_(), given.weight.detach().requires_grad_()
        logprobs, entropy = case.implementation.run(*leaves, given.rollout.target_ids)
        gradients = torch.autograd.grad(logprobs, leaves, given.upstream)
        outputs = {"logprobs": logprobs.detach(), "grad_hidden": gradients[0], "grad_weight": gradients[1]}
        return outputs | ({} if entropy is None else {"entropy": entropy.detach()})

    return forward if case.mode == "forward" else forward_and_backward


def run_policy_loss(case: Case, given: Problem) -> Callable[[], dict[str, Tensor]]:
    """As run_logprobs, for the loss and its gradients."""

    def forward_and_backward() -> dict[str, Tensor]:
        leaves = given.hidden.detach().requires_grad_(), given.weight.detach().requires_grad_()
        loss = case.implementation.run(*leaves, given.rollout)
        gradients = torch.autograd.grad(loss, leaves)
        return {"loss": loss.detach(), "loss_grad_hidden": gradients[0], "loss_grad_weight": gradients[1]}

    return forward_and_backward


def errors(outputs: dict[str, Tensor], given: Problem) -> dict[str, float]:
    """Against float64: largest difference in nats, relative error of the loss, relative norm of a gradient's error."""
    found = {}
    for name in outputs.keys() & {"logprobs", "entropy"}:
        found[f"{name}_nats"] = (outputs[name].double() - getattr(given, name)).abs().max().item()
    if "loss" in outputs:
        found["loss_relative"] = ((outputs["loss"].double() - given.loss) / given.loss).abs().item()
    for prefix, exact in (("", given.gradients), ("loss_", given.loss_gradients)):
        for name, answer in zip(("grad_hidden", "grad_weight"), exact, strict=True):
            if prefix + name in outputs:
                difference = torch.linalg.vector_norm(outputs[prefix + name].double() - answer)
                found[f"{name}_relative"] = (difference / torch.linalg.vector_norm(answer)).item()
    return found


def accuracy(found: dict[str, float], given: Problem) -> str:
    """float32: as from float32 logits, gradients off by little more than their rounding. rounded. wrong."""
    gradients = [value for name, value in found.items() if name.startswith("grad")]
    nats = [value for name, value in found.items() if name == "logprobs_nats"]
    if not all(value < WRONG_NATS for value in nats) or not all(value < WRONG_GRADIENT for value in gradients):
        return "wrong"
    answer = given.gradients[0]
    rounding = torch.linalg.vector_norm(answer.to(given.hidden.dtype).double() - answer)
    # Thrice: gradients of the logits are rounded to the dtype, too.
    limit = 3 * (rounding / torch.linalg.vector_norm(answer)).item() + 1e-4
    is_float32 = all(value < FLOAT32_NATS for value in nats) and all(value < limit for value in gradients)
    return "float32" if is_float32 else "rounded"


def measure(benchmark, record: "Record", case: Case, run_of: Callable) -> dict:  # type: ignore[no-untyped-def,type-arg]
    """Check, time and weigh one case; skips with the reason what cannot run here."""
    reason = case.implementation.missing(DEVICE)
    if reason:
        record.skip(case.name, reason)
        pytest.skip(reason)
    given = problem(case.shape, case.dtype)
    # What torch.compile made for other shapes counts towards its limit of recompilations.
    torch.compiler.reset()
    with matmul_precision(case.precision):
        run = run_of(case, given)
        found = errors(run(), given)
        started = time.perf_counter()
        needed = extra_bytes(run)
        seconds = time.perf_counter() - started
        at_least = MIN_ROUNDS if seconds < SLOW_SECONDS else 1
        rounds = int(min(max(TIMED_SECONDS / seconds, at_least), MAX_ROUNDS))
        benchmark.pedantic(lambda: seconds_of(run), rounds=rounds, iterations=1)
    median = benchmark.stats.stats.median
    num_tokens, hidden_size, vocab_size = case.shape
    tflops = FLOPS_PER_LOGIT[case.mode] * num_tokens * hidden_size * vocab_size / median / TFLOP
    row = {
        "implementation": case.name,
        "mode": case.mode,
        "shape": list(case.shape),
        "dtype": dtype_name(case.dtype),
        "matmul_precision": case.precision,
        "note": case.implementation.note,
        "ms": significant(median * 1e3),
        "ms_min": significant(benchmark.stats.stats.min * 1e3),
        "rounds": rounds,
        "tflops": significant(tflops),
        "peak_tflops": significant(given.peak_tflops),
        "share_of_peak": significant(tflops / given.peak_tflops),
        "extra_mb": significant(needed / 1e6),
        "full_float32_logits_mb": significant(num_tokens * vocab_size * 4 / 1e6),
        "accuracy": accuracy(found, given),
        "error": {name: significant(value, 2) for name, value in sorted(found.items())},
    }
    benchmark.extra_info.update(row)
    record.add(row)
    return row


def significant(value: float, digits: int = 4) -> float:
    """Rounded to some significant digits."""
    return float(f"{value:.{digits}g}")


def results_file() -> Path:
    """GEOGRPO_HEAD_RESULTS, or head_<cpu or gpu>.json among the results."""
    name = "cpu" if DEVICE == "cpu" else re.sub(r"\W+", "_", torch.cuda.get_device_name()).lower()
    return Path(os.environ.get("GEOGRPO_HEAD_RESULTS", RESULTS / f"head_{name}.json"))


def machine() -> dict:  # type: ignore[type-arg]
    """What the numbers depend on."""
    versions = {"torch": torch.__version__, "triton": triton.__version__}
    for peer in PEERS:
        try:
            versions[peer] = importlib.metadata.version(peer)
        except importlib.metadata.PackageNotFoundError:
            versions[peer] = "not installed"
    found = {"versions": versions, "load_average_before": round(os.getloadavg()[0], 2)}
    if DEVICE == "cuda":
        return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda, **found}
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {"device": model[1] if model else platform.processor(), "threads": torch.get_num_threads(), **found}


class Record:
    """One section of the results file, written after each row: what came before a crash is kept."""

    def __init__(self, section: str) -> None:
        self.section, self.file = section, results_file()
        self.rows: list[dict] = []  # type: ignore[type-arg]
        self.skipped: dict[str, str] = {}
        self.machine = machine()

    def add(self, row: dict) -> None:  # type: ignore[type-arg]
        """Keep a measured row."""
        self.rows.append(row)
        self._write()

    def skip(self, name: str, reason: str) -> None:
        """Keep why an implementation was not measured."""
        self.skipped[name] = reason
        self._write()

    def _write(self) -> None:
        everything = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        everything[self.section] = {"machine": self.machine, "rows": self.rows, "skipped": self.skipped}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")

    def find(self, name: str, shape: tuple[int, int, int], dtype: torch.dtype, mode: str) -> list[dict]:  # type: ignore[type-arg]
        """Rows of one implementation."""
        wanted = (name, list(shape), dtype_name(dtype), mode)
        return [row for row in self.rows if (row["implementation"], row["shape"], row["dtype"], row["mode"]) == wanted]

    def fastest_peer(self, shape: tuple[int, int, int], dtype: torch.dtype, mode: str) -> dict | None:  # type: ignore[type-arg]
        """The fastest row of others that is as accurate as float32 logits."""
        wanted = (list(shape), dtype_name(dtype), mode, "float32")
        peers = [
            row
            for row in self.rows
            if (row["shape"], row["dtype"], row["mode"], row["accuracy"]) == wanted
            and not row["implementation"].startswith(OURS)
        ]
        return min(peers, key=lambda row: row["ms_min"], default=None)


def assert_no_peer_is_faster(record: Record, shape: tuple[int, int, int], dtype: torch.dtype, mode: str) -> None:
    """Among those as accurate as float32 logits, by the fastest round: the median moves with what else runs."""
    (ours,) = record.find(OURS, shape, dtype, mode)
    peer = record.fastest_peer(shape, dtype, mode)
    if peer:
        assert ours["ms_min"] <= 1.05 * peer["ms_min"], f"{peer['implementation']} is faster"
