"""Imports run one way: a module imports from its own level or from a lower one."""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the lowest to the highest; a package stands for all of its modules.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("geogrpo_kernels",),
    (
        "geogrpo.types",
        "geogrpo.config",
        "geogrpo.config_files",
        "geogrpo.config_names",
        "geogrpo.prompts",
        "geogrpo.parsing",
        "geogrpo.images",
        "geogrpo.seeds",
        "geogrpo.chat_server",
        "geogrpo.resumable",
        "geogrpo.clock",
    ),
    (
        "geogrpo.policy",
        "geogrpo.regions",
        "geogrpo.losses",
        "geogrpo.advantages",
        "geogrpo.metrics",
        "geogrpo.uncertainty",
        "geogrpo.checkpoint",
        "geogrpo.distributed",
        "geogrpo.optimization",
    ),
    ("geogrpo.rollout", "geogrpo.rewards", "geogrpo.data", "geogrpo.plan", "geogrpo.accounting"),
    ("geogrpo.evaluation", "geogrpo.labelling", "geogrpo.auditing", "geogrpo.grpo"),
    ("geogrpo.report", "geogrpo.supervised", "geogrpo.trainer", "geogrpo.prediction"),
    ("geogrpo.run",),
    # The bare package holds the names for library users, which come from everywhere.
    (
        *("geogrpo.train", "geogrpo.label", "geogrpo.evaluate", "geogrpo.audit", "geogrpo.predict", "geogrpo.serve"),
        *("geogrpo.__main__", "geogrpo"),
    ),
)
LEVEL_OF = {unit: level for level, units in enumerate(LEVELS) for unit in units}
KERNEL_LIBRARIES = {"torch", "triton", "geogrpo_kernels", *sys.stdlib_module_names}


def unit_of(module: str) -> str | None:
    """The entry of LEVELS a module belongs to; None for other libraries."""
    parts = module.split(".")
    if parts[0] not in ("geogrpo", "geogrpo_kernels"):
        return None
    return ".".join(parts[:2]) if parts[0] == "geogrpo" else "geogrpo_kernels"


def imported_modules(source: str, module: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, absolute name) of every import, also inside functions. What is imported from the bare package is a
    module of it, or a name that the package itself must first have imported.
    """
    parent = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            relative = "." * node.level + (node.module or "")
            base = importlib.util.resolve_name(relative, parent)
            inside = [f"{base}.{alias.name}" for alias in node.names] if base == "geogrpo" else [base]
            names = [name if unit_of(name) in {None, *LEVEL_OF} else base for name in inside]
            yield from ((node.lineno, name) for name in names)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """One message per import of `module` that goes up, or out of what the kernels may use."""
    own = unit_of(module)
    found = []
    for line, name in imported_modules(source, module, is_package):
        unit = unit_of(name)
        if own == "geogrpo_kernels" and name.split(".")[0] not in KERNEL_LIBRARIES:
            found.append(f"{module}:{line} imports {name}: geogrpo_kernels may import torch and triton only")
        elif unit is not None and LEVEL_OF[unit] > LEVEL_OF[own]:
            found.append(f"{module}:{line} imports {name}, level {LEVEL_OF[unit]} above its own {LEVEL_OF[own]}")
    return found


def source_files() -> list[tuple[Path, str, bool]]:
    """(file, module, whether it is a package's __init__) of both packages."""
    files = []
    for folder, package in ((ROOT, "geogrpo"), (ROOT / "kernels", "geogrpo_kernels")):
        for file in sorted((folder / package).rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            files.append((file, ".".join(parts[:-1] if is_package else parts), is_package))
    return files


def unknown_units(modules: list[str]) -> set[str]:
    """Parts of our packages that no level names."""
    return {str(unit_of(module)) for module in modules} - set(LEVEL_OF)


def test_every_module_has_a_level_and_every_level_its_modules() -> None:
    modules = [module for _, module, _ in source_files()]
    unknown = unknown_units(modules)
    assert not unknown, f"{sorted(unknown)} in no level: add to LEVELS in {__file__}, above everything they import."
    gone = set(LEVEL_OF) - {unit_of(module) for module in modules}
    assert not gone, f"{sorted(gone)} no longer exist: take them out of LEVELS in {__file__}."


@pytest.mark.parametrize(
    ("file", "module", "is_package"), source_files(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_imports_run_one_way(file: Path, module: str, is_package: bool) -> None:
    assert violations(file.read_text(encoding="utf-8"), module, is_package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("geogrpo.policy.model", "from geogrpo.trainer import train_grpo"),
        ("geogrpo.policy.model", "import geogrpo.trainer"),
        ("geogrpo.policy.model", "import torch, geogrpo.trainer as t"),
        ("geogrpo.policy.model", "from geogrpo import trainer"),
        ("geogrpo.policy.model", "from geogrpo import types, trainer as t"),
        ("geogrpo.policy.model", "from ..trainer import train_grpo"),
        ("geogrpo.policy.model", "from .. import trainer"),
        ("geogrpo.policy.model", "import geogrpo"),
        ("geogrpo.policy.model", "from geogrpo import Example"),
        ("geogrpo.policy.model", "def f():\n    from geogrpo.data.loader import load_batches"),
        ("geogrpo.policy.model", "try:\n    import geogrpo.run\nexcept ImportError:\n    pass"),
        ("geogrpo.types", "from geogrpo.losses import find_loss"),
        ("geogrpo.rewards", "from geogrpo.evaluation import predict_held_out"),
        ("geogrpo.evaluation", "from geogrpo.report.summary import write_report"),
        ("geogrpo.trainer", "from geogrpo.run import Run"),
        ("geogrpo.run", "from geogrpo.train import main"),
        ("geogrpo_kernels.reference", "from geogrpo.types import Example"),
        ("geogrpo_kernels.reference", "import numpy as np"),
        ("geogrpo_kernels.reference", "def f():\n    from transformers import AutoModel"),
    ],
)
def test_an_upward_import_is_caught(module: str, source: str) -> None:
    (message,) = violations(source, module)
    assert message.startswith(f"{module}:")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "geogrpo.policy.model",
            "import torch\nfrom geogrpo import types\nfrom geogrpo.policy.load import load_policy",
        ),
        ("geogrpo.policy.model", "from .load import load_policy\nfrom ..types import Example\nfrom . import load"),
        ("geogrpo.checkpoint", "from geogrpo.policy.model import Policy"),
        ("geogrpo.trainer", "from geogrpo.supervised import train_supervised\nimport numpy"),
        (
            "geogrpo_kernels.logprobs",
            "import math\nimport triton.language as tl\nfrom .reference import token_logprobs",
        ),
        ("geogrpo_kernels.logprobs", "from torch.autograd import Function\nfrom geogrpo_kernels import reference"),
    ],
)
def test_an_import_from_below_or_beside_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


def test_a_new_module_is_missed_in_the_levels() -> None:
    assert unknown_units(["geogrpo", "geogrpo.trainer", "geogrpo.judge", "geogrpo.judge.client"]) == {"geogrpo.judge"}
