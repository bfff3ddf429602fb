"""Which backend runs, and traps that other projects' kernels fell into."""

import ast
import logging
from collections.abc import Callable
from pathlib import Path

import geogrpo_kernels
import pytest
import torch
import triton
import triton.language as tl
from geogrpo_kernels import PolicyObjective, launch, linear_grpo_loss, rows, token_logprobs, token_logprobs_from_logits
from geogrpo_kernels.rows import store_rounded
from kernel_oracles import NUM_TOKENS, make_inputs, make_logits

SOURCES = sorted(Path(geogrpo_kernels.__file__).parent.rglob("*.py"))


def test_a_cpu_runs_the_reference_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GEOGRPO_KERNELS", raising=False)
    monkeypatch.setattr(launch, "_logged", set())
    caplog.set_level(logging.INFO)
    assert not launch.use_triton(torch.zeros(1))
    assert not launch.use_triton(torch.zeros(1))
    assert [record.getMessage() for record in caplog.records] == [
        "geogrpo_kernels on cpu torch.float32: PyTorch reference"
    ]


def test_float64_is_for_the_reference(kernel_device: torch.device) -> None:
    assert launch.use_triton(torch.zeros(1, device=kernel_device))
    assert not launch.use_triton(torch.zeros(1, device=kernel_device, dtype=torch.float64))


@pytest.mark.parametrize("num_columns", [32, 33, 515])
@pytest.mark.parametrize("product", [launch.matmul_f32, launch.matmul_rounded, launch.add_matmul_f32])
def test_products_read_nothing_beyond_the_rows_of_a_part(product: Callable, num_columns: int) -> None:
    """As gradients have it that lie in the memory of float32 logits: oneDNN's bfloat16 product does, with AMX."""
    a = torch.full((18, 2 * num_columns), torch.nan, dtype=torch.bfloat16)[:, :num_columns]
    a.copy_(torch.randn(18, num_columns))
    b = torch.randn(num_columns, 64, dtype=torch.bfloat16)
    out = torch.zeros(18, 64, dtype=torch.bfloat16 if product is launch.matmul_rounded else torch.float32)
    actual = product(out, a, b) if product is launch.add_matmul_f32 else product(a, b, out)
    torch.testing.assert_close(actual.double(), a.double() @ b.double(), rtol=1e-2, atol=1e-2)


def test_an_unknown_backend_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOGRPO_KERNELS", "cuda")
    with pytest.raises(ValueError, match="GEOGRPO_KERNELS must be one of auto, reference, triton, got 'cuda'"):
        launch.use_triton(torch.zeros(1))


def test_kernels_without_a_gpu_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOGRPO_KERNELS", "triton")
    monkeypatch.setattr(launch, "is_interpreted", False)
    with pytest.raises(ValueError, match="GEOGRPO_KERNELS=triton, but a tensor is on cpu; kernels need a GPU"):
        launch.use_triton(torch.zeros(1))


def compiled(caller: Callable, **options: object) -> Callable:
    torch._dynamo.reset()
    return torch.compile(caller, backend="aot_eager", **options)


def test_a_compiled_caller_gives_the_same_values_and_gradients(device: torch.device) -> None:
    inputs = make_inputs("flat", 515, device)

    def caller(hidden: torch.Tensor, weight: torch.Tensor, temperature: float) -> torch.Tensor:
        logprobs, entropy = token_logprobs(hidden * 2, weight, inputs[2], temperature=temperature)
        return (logprobs + entropy).exp().sum()

    # Twice with floats that differ: specialised as float64, the second would be wrong or fail (Liger-Kernel #1366).
    for temperature in (0.7, 1.3):
        expected = caller(*inputs[:2], temperature)
        actual = compiled(caller)(*inputs[:2], temperature)
        torch.testing.assert_close(actual, expected)
        for gradient, wanted in zip(
            torch.autograd.grad(actual, inputs[:2]), torch.autograd.grad(expected, inputs[:2]), strict=True
        ):
            torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("op", [token_logprobs_from_logits, linear_grpo_loss])
def test_a_caller_compiled_as_one_graph_is_refused_with_the_reason(op: Callable, device: torch.device) -> None:
    ones = torch.ones(NUM_TOKENS, device=device)
    arguments = {
        token_logprobs_from_logits: make_logits("flat", 515, device, torch.float32),
        linear_grpo_loss: (*make_inputs("flat", 515, device), PolicyObjective(ones, ones)),
    }[op]
    with pytest.raises(torch._dynamo.exc.Unsupported, match="leave out fullgraph=True"):
        compiled(lambda: op(*arguments), fullgraph=True)()


@triton.jit
def _round_trip_kernel(x_ptr, y_ptr, N: tl.constexpr):
    offsets = tl.arange(0, N)
    store_rounded(y_ptr + offsets, tl.load(x_ptr + offsets), offsets < N)


def test_bfloat16_is_rounded_to_nearest_also_in_the_interpreter(kernel_device: torch.device) -> None:
    """On its own Triton's interpreter cuts the digits off, which doubles the error of every gradient."""
    x = torch.randn(1024, device=kernel_device)
    x[:4] = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.00390625])
    y = torch.empty(1024, device=kernel_device, dtype=torch.bfloat16)
    _round_trip_kernel[(1,)](x, y, N=1024)
    torch.testing.assert_close(y, x.bfloat16(), rtol=0, atol=0, equal_nan=True)


def kernels_of(source: Path) -> list[ast.FunctionDef]:
    tree = ast.parse(source.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(ast.unparse(d) == "triton.jit" for d in f.decorator_list)]


def test_no_kernel_multiplies_matrices() -> None:
    """A dot product of a transposed register is miscompiled for Hopper by Triton 3.4 to 3.7.0 (fla #640): cuBLAS
    multiplies.
    """
    for source in SOURCES:
        for kernel in kernels_of(source):
            called = {ast.unparse(node.func) for node in ast.walk(kernel) if isinstance(node, ast.Call)}
            assert not called & {"tl.dot", "tl.dot_scaled", "tl.trans"}, f"{source.name}: {kernel.name}"


def test_floats_are_converted_right_after_each_load() -> None:
    """bfloat16 arithmetic is silently wrong in the interpreter, and imprecise everywhere."""
    for kernel in kernels_of(Path(rows.__file__)):
        text = ast.unparse(kernel)
        converted = text.count("=LOWEST_LOGIT).to(tl.float32)") + text.count("other=0.0).to(tl.float32)")
        assert text.count("tl.load(x_ptr") == converted, kernel.name


def test_no_kernel_uses_atomics() -> None:
    """Sums in a fixed order: the same gradients in every run."""
    for source in SOURCES:
        for kernel in kernels_of(source):
            assert "atomic" not in ast.unparse(kernel), f"{source.name}: {kernel.name}"
