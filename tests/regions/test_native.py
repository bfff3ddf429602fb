"""The native library without threads or memory to be had, and its build: a slower answer or an error, never a crash."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

MEGABYTE = 2**20
NO_MORE_MEMORY = """
import resource, sys
import numpy as np
from geogrpo.regions import native, ops
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames

def limit(megabytes):
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + megabytes * 2**20, resource.RLIM_INFINITY))
"""
LOOKUP = """
index = RegionIndex.build(places=load_geonames(1_000_000))
points = np.random.default_rng(0).uniform(-80, 80, (400_000, 2))
expected = index.lookup(points).ids
ops.num_threads = lambda: 16
limit(100)
assert np.array_equal(index.lookup(points).ids, expected)
"""
BUILD = """
vectors = native.place_vectors(load_geonames().latlon_deg, "sphere")
native.build_place_tree(vectors[:1000].copy(), "sphere", int(sys.argv[1]))
limit(20)
try:
    native.build_place_tree(vectors, "sphere", int(sys.argv[1]))
except MemoryError as error:
    print(error)
"""


def run(program: str, *arguments: str, stack_megabytes: int) -> str:
    """Output of a Python program whose threads want stacks of that size."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if hard != resource.RLIM_INFINITY and hard < stack_megabytes * MEGABYTE:
        pytest.skip(f"stacks may not be larger than {hard} bytes here")
    ended = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'ulimit -s {stack_megabytes * 1024}; exec "$@"',
            "sh",
            sys.executable,
            "-c",
            program,
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits the address space")
def test_a_thread_that_cannot_start_is_not_missed() -> None:
    run(NO_MORE_MEMORY + LOOKUP, stack_megabytes=512)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and limits the address space")
@pytest.mark.parametrize("num_threads", [1, 4])
def test_no_memory_in_a_worker_is_an_error(num_threads: int) -> None:
    assert run(NO_MORE_MEMORY + BUILD, str(num_threads), stack_megabytes=1) == "out of memory\n"


def test_a_cuda_compiler_without_any_of_the_architectures_is_named(tmp_path: Path) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho compute_35\necho compute_50\n")
    nvcc.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(tmp_path), "--build-temp", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"CUDA_HOME": str(tmp_path), "GEOGRPO_CUDA": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    expected = f"{nvcc} knows none of compute_80, compute_90, compute_100. GEOGRPO_CUDA=0 builds without CUDA."
    assert ended.stderr.splitlines()[-1] == expected
