"""Points per second of the CUDA lookup.

pytest benchmarks/bench_regions_cuda.py        needs a CUDA device and a build with nvcc

Results are kept in benchmarks/results/regions_cuda.json.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from geogrpo.regions import native
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.regions.sources.polygons import read_polygons

RESULT = Path(__file__).parent / "results" / "regions_cuda.json"
DEFAULT_FILE = Path(__file__).parents[2] / "shared/data/naturalearth/ne_10m_admin_0_countries.geojson.gz"
NATURAL_EARTH = Path(os.environ.get("GEOGRPO_NATURAL_EARTH", DEFAULT_FILE))
SIZES = {"4,096": 4096, "100 M": 100_000_000}

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.skipif(not native.has_cuda(), reason="the region index was built without nvcc"),
]


def device_microseconds(run, repeats: int) -> float:  # type: ignore[no-untyped-def]
    """Per call, on the device's own clock, after two calls to warm up."""
    for _ in range(2):
        run()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) * 1e3 / repeats


def test_cuda_lookups() -> None:
    if not NATURAL_EARTH.is_file():
        pytest.skip(f"Natural Earth's countries are not at {NATURAL_EARTH}; GEOGRPO_NATURAL_EARTH names another file")
    countries = read_polygons(NATURAL_EARTH, "country", key="ADM0_A3", name="NAME", code="ISO_A2_EH")
    places = load_geonames()
    rng = np.random.default_rng(0)
    cities = places.latlon_deg[rng.integers(0, len(places), 4_000_000)] + rng.normal(0, 0.1, (4_000_000, 2))
    tensor = torch.from_numpy(cities).clamp(-89.9, 179.9).cuda()
    record: dict = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "us": {},
        "million_points_per_s": {},
    }
    for name, index in (
        ("countries", RegionIndex.build([countries], coast_tolerance_km=0)),
        ("countries, 5 km of coast", RegionIndex.build([countries])),
        ("nearest place", RegionIndex.build(places=places)),
        ("countries and places", RegionIndex.build([countries], places)),
    ):
        for label, size in SIZES.items():
            for dtype in (torch.float32, torch.float64):
                points = tensor.to(dtype).repeat(-(-size // len(tensor)), 1)[:size].contiguous()
                us = device_microseconds(
                    lambda index=index, points=points: index.lookup(points), 200 if size < 1e5 else 5
                )
                key = f"{name}, {label} points, {str(dtype).removeprefix('torch.')}"
                record["us"][key] = round(us, 1)
                record["million_points_per_s"][key] = round(size / us, 1)
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    assert record["million_points_per_s"]["countries, 100 M points, float32"] >= 10_000
    assert record["us"]["countries, 4,096 points, float32"] < 20
