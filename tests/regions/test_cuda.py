"""The CUDA lookup against the CPU's, bit for bit."""

import numpy as np
import pytest
import torch
from regions.samples import NOWHERE, box, layer, random_points

from geogrpo.regions import native
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    pytest.mark.skipif(not native.has_cuda(), reason="the region index was built without nvcc"),
]


@pytest.fixture(scope="module")
def indices() -> dict[str, RegionIndex]:
    rng = np.random.default_rng(0)
    shapes = {
        f"c{k}": box(lat, lon, lat + 9.7, lon + 8.3) for k, (lat, lon) in enumerate(rng.uniform(-80, 80, (300, 2)))
    }
    polygons, places = layer("country", **shapes), load_geonames()
    return {
        "polygons": RegionIndex.build([polygons], coast_tolerance_km=40),
        "places": RegionIndex.build(places=places),
        "degrees": RegionIndex.build(places=places, metric="degrees"),
        "both": RegionIndex.build([polygons], places),
    }


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", ["polygons", "places", "degrees", "both"])
def test_cuda_equals_cpu_bit_for_bit(indices: dict[str, RegionIndex], name: str, dtype: torch.dtype) -> None:
    points = np.concatenate([random_points(2_000_000), NOWHERE, [(90, 0), (-90, 180), (0, 180), (0, 540)]])
    tensor = torch.from_numpy(points).to(dtype)
    expected = indices[name].lookup(tensor)
    found = indices[name].lookup(tensor.cuda())
    assert found.ids.is_cuda
    assert torch.equal(found.ids.cpu(), expected.ids)
    assert torch.equal(found.is_near_coast.cpu(), expected.is_near_coast)


def test_any_bits_are_a_point_or_nowhere(indices: dict[str, RegionIndex]) -> None:
    bits = torch.from_numpy(np.random.default_rng(0).integers(0, 2**64, (1_000_000, 2), dtype=np.uint64)).view(
        torch.float64
    )
    for index in indices.values():
        assert torch.equal(index.lookup(bits.cuda()).ids.cpu(), index.lookup(bits).ids)


def test_the_current_stream_and_a_compiled_graph_are_respected(indices: dict[str, RegionIndex]) -> None:
    index, points = indices["places"], torch.from_numpy(random_points(10_000)).cuda()
    expected = index.lookup(points).ids
    with torch.cuda.stream(torch.cuda.Stream()):
        found = index.lookup(points).ids
    torch.cuda.synchronize()
    assert torch.equal(found, expected)
