"""Deliberately wrong kernels: each must fail the check that the right kernel passes.

A mutant is one text of one source file replaced by another. They are listed in tests/kernels/mutants/*.toml.
"""

import importlib
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import geogrpo_kernels

SOURCE = Path(geogrpo_kernels.__file__).parent
FOLDER = Path(__file__).parent / "kernels" / "mutants"


@dataclass(frozen=True)
class Mutant:
    """One wrong version of the package."""

    kernel: str
    name: str
    file: str
    old: str
    new: str

    def __str__(self) -> str:
        return self.name


def mutants_of(kernel: str) -> list[Mutant]:
    """The wrong versions of a kernel, from <kernel>.toml."""
    entries = tomllib.loads((FOLDER / f"{kernel}.toml").read_text(encoding="utf-8"))
    return [Mutant(kernel, name, **entry) for name, entry in entries.items()]


def mutated_package(mutant: Mutant, folder: Path) -> ModuleType:
    """A copy of geogrpo_kernels under another name, with the mutant's text replaced, imported."""
    name = f"geogrpo_kernels_{mutant.kernel}_{mutant.name}"
    assert name not in sys.modules, f"two mutants are called {mutant.name}."
    shutil.copytree(SOURCE, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / name / mutant.file
    source = path.read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1, f"{mutant.old!r} occurs {source.count(mutant.old)} times in {mutant.file}."
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    for copy in (folder / name).rglob("*.py"):
        copy.write_text(copy.read_text(encoding="utf-8").replace("geogrpo_kernels", name), encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))
