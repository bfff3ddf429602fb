"""Both packages and the native region index. Everything else is in pyproject.toml."""

import os
import shutil
import subprocess
from glob import glob
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

CUDA_SOURCE = "csrc/region_lookup.cu"
# A100, H100 and B200; later ones compile the last one's PTX
CUDA_ARCHITECTURES = ("80", "90", "100")


def find_nvcc() -> str | None:
    """The CUDA compiler, or None where there is none or GEOGRPO_CUDA=0 leaves the CUDA part out."""
    if os.environ.get("GEOGRPO_CUDA") == "0":
        return None
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    installed = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    return next(filter(None, map(shutil.which, [*installed, "nvcc"])), None)


class build_region_index(build_ext):
    """Adds the CUDA lookup to the library where nvcc is found. cudart is linked statically: no driver, no problem."""

    def build_extension(self, ext: Extension) -> None:
        nvcc = find_nvcc()
        if nvcc:
            ext.extra_objects = [self.compile_cuda(nvcc)]
            toolkit = Path(nvcc).resolve().parents[1]
            folders = [toolkit / "lib64", *toolkit.glob("targets/*/lib")]
            ext.extra_link_args += [f"-L{folder}" for folder in folders] + ["-lcudart_static", "-ldl", "-lrt"]
        super().build_extension(ext)

    def compile_cuda(self, nvcc: str) -> str:
        output = Path(self.build_temp) / "region_lookup_cuda.o"
        output.parent.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run([nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout
        known = [arch for arch in CUDA_ARCHITECTURES if f"compute_{arch}\n" in listed]
        if not known:
            wanted = ", ".join(f"compute_{arch}" for arch in CUDA_ARCHITECTURES)
            raise SystemExit(f"{nvcc} knows none of {wanted}. GEOGRPO_CUDA=0 builds without CUDA.")
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in known]
        targets.append(f"-gencode=arch=compute_{known[-1]},code=compute_{known[-1]}")
        # No fused multiply-add: every double comes out as on the CPU.
        options = ["-std=c++17", "-O3", "--fmad=false", "-cudart=static", "-Xcompiler=-fPIC", *targets]
        try:
            subprocess.run([nvcc, *options, "-c", CUDA_SOURCE, "-o", str(output)], check=True)
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{nvcc} could not compile {CUDA_SOURCE}. GEOGRPO_CUDA=0 builds without CUDA.") from error
        return str(output)


setup(
    packages=find_packages(include=["geogrpo*"]) + find_packages("kernels"),
    package_dir={"geogrpo_kernels": "kernels/geogrpo_kernels"},
    package_data={
        "geogrpo": ["recipes/*.yaml", "report/page/*.*", "prediction/page/*.css", "py.typed"],
        "geogrpo_kernels": ["py.typed"],
    },
    cmdclass={"build_ext": build_region_index},
    ext_modules=[
        # A plain shared library for ctypes, whatever setuptools calls it: it defines no Python module.
        Extension(
            "geogrpo.regions._region_index",
            ["csrc/region_build.cpp", "csrc/region_lookup.cpp"],
            depends=[*glob("csrc/*.h"), CUDA_SOURCE],
            language="c++",
            # No contraction into fused multiply-add: distances, and so ties, are the same on every machine.
            # -fno-math-errno: rounding to an integer is then one instruction.
            extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-pthread"],
            extra_link_args=["-pthread"],
        )
    ],
)
