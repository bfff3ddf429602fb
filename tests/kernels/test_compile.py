"""What the kernels cost on GPUs that need not be there, from their machine code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "compile_kernels.py"
MAX_INSTRUCTIONS_PER_PAIR = 110
"""The branch for the last program counted, too. At 138 an H200 would compute as long as it copies."""


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """One per kernel and architecture. In a process of its own: Triton's interpreter is chosen at import."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TRITON_")}
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def wrong(rows: list[dict[str, Any]], *columns: str) -> list[str]:
    """The rows in which any of these columns is not 0 or False."""
    return [f"{row['kernel']} sm_{row['architecture']}: {row}" for row in rows if any(row[x] for x in columns)]


def test_every_kernel_compiles_for_every_architecture(rows: list[dict[str, Any]]) -> None:
    assert {row["architecture"] for row in rows} == {80, 90, 100}
    assert len(rows) == 3 * len({row["kernel"] for row in rows})


def test_no_kernel_spills_or_uses_local_memory(rows: list[dict[str, Any]]) -> None:
    assert wrong(rows, "spills", "stack", "local") == []


def test_no_kernel_computes_in_float64(rows: list[dict[str, Any]]) -> None:
    assert wrong(rows, "has_f64") == []


def test_long_loads_are_128_bits_wide(rows: list[dict[str, Any]]) -> None:
    assert [row for row in rows if row["loads_128"] < row["expects_loads_128"]] == []


def test_distances_need_few_instructions_and_no_exchange_between_threads(rows: list[dict[str, Any]]) -> None:
    distances = [row for row in rows if "instructions_per_pair" in row]
    assert len(distances) == 3
    assert all(row["instructions_per_pair"] <= MAX_INSTRUCTIONS_PER_PAIR for row in distances)
    assert wrong(distances, "shared", "barriers") == []
