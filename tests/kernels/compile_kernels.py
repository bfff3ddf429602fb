"""Compiles kernels for GPUs that need not be there, and reports what each costs, as JSON.

python tests/kernels/compile_kernels.py [part of a label]        without TRITON_INTERPRET

To add a kernel: a line in KERNELS.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURES = (80, 90, 100)
"""A100, H100 and H200, B200."""


@dataclass(frozen=True)
class Kernel:
    """One kernel as it is launched: the arguments that its speed depends on."""

    module: str
    name: str
    signature: dict[str, str]
    """Triton's type of each argument that is no constant."""
    constants: dict[str, Any]
    num_warps: int
    aligned: tuple[str, ...]
    """Arguments divisible by 16, as Triton finds pointers of whole tensors and most sizes to be."""
    wide_loads: int = 1
    """How many loads must be 128 bits wide."""
    note: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    """What else the report counts per program, e.g. {"pairs": 512}: instructions_per_<key> is that of a thread."""

    @property
    def label(self) -> str:
        return f"{self.name}{f' {self.note}' if self.note else ''}"


def _haversine(block: int, num_warps: int) -> Kernel:
    pointers = ("a_ptr", "b_ptr", "km_ptr")
    return Kernel(
        "geogrpo_kernels.distances",
        "_haversine_kernel",
        {**dict.fromkeys(pointers, "*fp32"), "num_pairs": "i32"},
        {"BLOCK": block},
        num_warps,
        pointers,
        counts={"pair": block},
    )


def _group_distance(reward: str, block: int, num_warps: int) -> Kernel:
    from geogrpo_kernels.reference.distances import EPSILON, DistanceReward

    described = {
        "exponential": DistanceReward("exponential", (1.0, 25.0, 200.0, 750.0, 2500.0)),
        "piecewise": DistanceReward("piecewise", (0.0, 750.0, 2500.0, 20000.0), (1.0, 0.5, 0.2, 0.0)),
        "threshold": DistanceReward("threshold", (1.0, 25.0, 200.0, 750.0, 2500.0)),
    }[reward]
    outputs = ("km_ptr", "reward_ptr", "advantage_ptr")
    pointers = ("predicted_ptr", "true_ptr", *outputs, "has_signal_ptr")
    return Kernel(
        "geogrpo_kernels.distances",
        "_group_distance_kernel",
        {**dict.fromkeys(pointers[:-1], "*fp32"), "has_signal_ptr": "*i1", "group_size": "i32"},
        {
            "KIND": reward,
            "KM": described.km,
            "VALUES": described.values,
            "SCALE": "group",
            "EPS": EPSILON,
            "BLOCK": block,
        },
        num_warps,
        pointers,
        # Groups are short and of any length: their loads are masked.
        wide_loads=0,
        note=f"{reward} {block}",
    )


MATRICES = {"x_ptr": "x_stride", "y_ptr": "y_stride", "grad_ptr": "grad_stride"}
PER_ROW = ("largest", "log_total", "entropy", "grad_logprobs", "grad_entropy", "grad_kl", "advantages", "weights")
PER_ROW += ("old_logprobs", "ref_logprobs", "outputs", "statistics")


# Loads of logits: GROUPS of them in each loop over a row or, of the bfloat16 ones, as many that hold twice as much
WIDE_LOADS = {
    "_row_statistics_kernel": 4,
    "_logit_gradient_kernel": 4,
    "_exact_kl_kernel": 16,
    "_exact_kl_gradient_kernel": 8,
    "_policy_loss_kernel": 8,
}


def _rows(module: str, name: str, logits: str, grad: str, note: str = "", **constants: Any) -> Kernel:
    """A kernel over rows of logits, with the arguments that its signature names."""
    import inspect

    from geogrpo_kernels.rows import NUM_WARPS

    module = f"geogrpo_kernels.{module}"
    names = [
        name
        for name in inspect.signature(getattr(importlib.import_module(module), name).fn).parameters
        if name not in constants
    ]
    types = {"x_ptr": f"*{logits}", "y_ptr": f"*{logits}", "grad_ptr": f"*{grad}", "targets_ptr": "*i64"}
    types |= {f"{name}_ptr": "*fp32" for name in PER_ROW}
    types |= dict.fromkeys((*MATRICES.values(), "outputs_stride", "statistics_stride", "num_rows", "num_cols"), "i32")
    scalars = ("inv_temperature", "ratio_low", "ratio_high", "largest_ratio", "tau_positive", "tau_negative")
    types |= dict.fromkeys((*scalars, "beta", "entropy_coef"), "fp32")
    aligned = tuple(name for name in names if name in (*MATRICES, *MATRICES.values(), "num_cols"))
    signature = {name: types[name] for name in names}
    return Kernel(module, name, signature, constants, NUM_WARPS, aligned, WIDE_LOADS[name], note=note or logits)


def _head_kernels() -> list[Kernel]:
    """With float32 logits in place and bfloat16 gradients, as the head has them, and with a caller's bfloat16."""
    from geogrpo_kernels.rows import GROUPS, LANES_OF_BYTES

    found = []
    for logits, num_bytes in (("fp32", 4), ("bf16", 2)):
        grouped = {"GROUPS": GROUPS, "LANES": LANES_OF_BYTES[num_bytes]}
        block = {"BLOCK": GROUPS * LANES_OF_BYTES[num_bytes]}
        found += [
            _rows("rows", "_row_statistics_kernel", logits, "bf16", **grouped),
            _rows("rows", "_logit_gradient_kernel", logits, "bf16", IN_PLACE=logits == "fp32", **block),
            _rows("divergence", "_exact_kl_kernel", logits, logits, **grouped),
            _rows("divergence", "_exact_kl_gradient_kernel", logits, logits, IN_PLACE=False, **block),
        ]
        if logits == "fp32":
            in_place = {"note": "in place", "IN_PLACE": True}
            found.append(_rows("divergence", "_exact_kl_gradient_kernel", logits, "bf16", **in_place, **block))
    return found


def _policy_losses() -> list[Kernel]:
    """Every surrogate, every estimate of the KL, and those that a first update without a reference has."""
    from geogrpo_kernels.objective import KL_ESTIMATORS, SURROGATES
    from geogrpo_kernels.rows import GROUPS, LANES_OF_BYTES

    def policy_loss(note: str, surrogate: int, estimator: int, is_compared: bool) -> Kernel:
        options = {"SURROGATE": surrogate, "KL_ESTIMATOR": estimator, "HAS_OLD": is_compared, "HAS_REF": is_compared}
        options |= {"WRITE_GRAD": True, "GROUPS": GROUPS, "LANES": LANES_OF_BYTES[4]}
        return _rows("policy_loss", "_policy_loss_kernel", "fp32", "bf16", note, **options)

    k3 = KL_ESTIMATORS.index("k3")
    found = [policy_loss(f"clip {name}", 0, i, True) for i, name in enumerate(KL_ESTIMATORS) if i != k3]
    found += [policy_loss(name, i, k3, True) for i, name in enumerate(SURROGATES)]
    found += [policy_loss(f"{name} on policy", SURROGATES.index(name), k3, False) for name in ("clip", "sapo")]
    return found


def kernels() -> list[Kernel]:
    """Every kernel, as its launcher launches it."""
    from geogrpo_kernels.distances import NUM_WARPS, PAIRS_PER_PROGRAM

    return [
        *_head_kernels(),
        *_policy_losses(),
        _haversine(PAIRS_PER_PROGRAM, NUM_WARPS),
        _group_distance("exponential", 1, 1),
        _group_distance("exponential", 16, 1),
        _group_distance("piecewise", 1024, 8),
        _group_distance("threshold", 8192, 16),
    ]


def report(kernel: Kernel, architecture: int, folder: Path) -> dict[str, Any]:
    """What the kernel costs on that architecture, from the machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    fn = getattr(importlib.import_module(kernel.module), kernel.name)
    names = fn.arg_names
    source = ASTSource(
        fn=fn,
        signature={name: "constexpr" if name in kernel.constants else kernel.signature[name] for name in names},
        constexprs={(names.index(name),): value for name, value in kernel.constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in kernel.aligned},
    )
    options = {"num_warps": kernel.num_warps}
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    usage = _run(tools / "cuobjdump", "--dump-resource-usage", cubin)
    instructions = _instructions(_run(tools / "nvdisasm", "-c", cubin))
    resources = {key.lower(): int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", usage)}
    counted = Counter(op.split(".")[0] for op in instructions)
    threads = 32 * kernel.num_warps
    return {
        "kernel": kernel.label,
        "architecture": architecture,
        "triton": triton.__version__,
        **resources,
        "spills": counted["STL"] + counted["LDL"],
        "loads_128": sum(op.startswith("LDG.E.128") for op in instructions),
        "stores_128": sum(op.startswith("STG.E.128") for op in instructions),
        "expects_loads_128": kernel.wide_loads,
        "barriers": counted["BAR"],
        "has_f64": ".f64" in compiled.asm["ptx"],
        "instructions": len(instructions),
        **{f"instructions_per_{key}": len(instructions) * threads / count for key, count in kernel.counts.items()},
    }


def _instructions(sass: str) -> list[str]:
    """Operations in order, without the padding after the end."""
    operations = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", sass)
    return [op for op in operations if op != "NOP"]


def _run(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        sys.exit("unset TRITON_INTERPRET: the interpreter compiles nothing")
    sys.path.insert(0, str(Path(__file__).parents[2] / "kernels"))
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as folder:
        # Nothing from an earlier version of the source, nothing left behind
        os.environ["TRITON_CACHE_DIR"] = folder
        chosen = [kernel for kernel in kernels() if wanted in kernel.label]
        rows = [report(kernel, architecture, Path(folder)) for kernel in chosen for architecture in ARCHITECTURES]
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
