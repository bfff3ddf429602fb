"""Both packages and the native region index. Everything else is in pyproject.toml."""

from setuptools import Extension, find_packages, setup

setup(
    packages=find_packages(include=["geogrpo*"]) + find_packages("kernels"),
    package_dir={"geogrpo_kernels": "kernels/geogrpo_kernels"},
    package_data={"geogrpo": ["recipes/*.yaml", "py.typed"], "geogrpo_kernels": ["py.typed"]},
    ext_modules=[
        # A plain shared library for ctypes, whatever setuptools calls it: it defines no Python module.
        Extension(
            "geogrpo.regions._region_index",
            ["csrc/region_lookup.cpp"],
            language="c++",
            # No contraction into fused multiply-add: distances, and so ties, are the same on every machine.
            extra_compile_args=["-std=c++17", "-O3", "-ffp-contract=off", "-pthread"],
            extra_link_args=["-pthread"],
        )
    ],
)
