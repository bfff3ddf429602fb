"""Parts of one region that lie in each other are reported with file and feature; parts that do not are not."""

from pathlib import Path

import numpy as np
import pytest
from regions.geojson_documents import FAR, HOLE, SQUARE, collection, feature, polygon, read

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.overlaps import lies_in_another_part
from geogrpo.regions.sources.rings import Rings

INNER = [[4.5, 4.5], [5.5, 4.5], [5.5, 5.5], [4.5, 5.5], [4.5, 4.5]]
SHIFTED = [[x, y + 5] for x, y in SQUARE]
EAST = [[x + 10, y] for x, y in SQUARE]
LINE = "in another part of the region, where the even-odd rule makes the overlap outside"


def multi(*polygons: list) -> dict:
    return {"type": "MultiPolygon", "coordinates": list(polygons)}


@pytest.mark.parametrize(
    ("polygons", "num_rings"),
    [
        ([[SQUARE], [SQUARE]], 2),
        ([[SQUARE], [SQUARE[::-1]]], 2),
        ([[SQUARE], [SQUARE[2:4] + SQUARE[:3]]], 2),
        ([[SQUARE], [HOLE]], 1),
        ([[FAR], [SQUARE], [HOLE], [INNER]], 1),
        # Their sides lie on each other and cross nowhere.
        ([[SQUARE], [SHIFTED]], 1),
    ],
)
def test_a_part_within_a_part_is_reported(tmp_path: Path, polygons: list, num_rings: int) -> None:
    layer = read(tmp_path, collection(feature(polygon(FAR), "B", "Beta"), feature(multi(*polygons))))
    rings = f"{num_rings} ring{'s' if num_rings > 1 else ''}"
    assert layer.repairs == [f"world.geojson: feature 2 ('Alpha'): {rings} lying {LINE}"]
    assert layer.repairs == [line for line in RegionIndex.build([layer]).info.repairs if "itself" not in line]


def test_features_of_one_key_are_parts_of_one_region(tmp_path: Path) -> None:
    inner = feature(polygon(INNER), "A", "Other")
    layer = read(tmp_path, collection(feature(polygon(SQUARE)), inner, feature(polygon(INNER), "B", "Beta")))
    assert layer.repairs == [f"world.geojson: feature 2 ('Other'): 1 ring lying {LINE}"]


@pytest.mark.parametrize(
    "polygons",
    [
        [[SQUARE, HOLE], [INNER], [FAR]],
        [[SQUARE, HOLE], [HOLE]],
        [[SQUARE], [EAST]],
        [[EAST], [SQUARE], [[[x, y + 10] for x, y in SQUARE]]],
    ],
)
def test_islands_in_holes_and_neighbours_are_not_reported(tmp_path: Path, polygons: list) -> None:
    assert read(tmp_path, collection(feature(multi(*polygons)))).repairs == []


def test_pieces_cut_at_the_antimeridian_are_compared_where_they_lie(tmp_path: Path) -> None:
    across = [[x + 175, y] for x, y in SQUARE]
    inner = [[x + 177 - 360, y] for x, y in INNER]
    wrapped = "1 ring beyond longitude +-180 cut at the antimeridian and wrapped"
    layer = read(tmp_path, collection(feature(multi([across], [inner]))))
    assert layer.repairs == [
        f"world.geojson: feature 1 ('Alpha'): {what}" for what in (wrapped, f"1 ring lying {LINE}")
    ]
    assert read(tmp_path, collection(feature(multi([across])))).repairs[1:] == []


@pytest.mark.parametrize("num_probed", [5, 400])
def test_many_boxes_are_told_apart_as_by_brute_force(num_probed: int) -> None:
    rng = np.random.default_rng(num_probed)
    centers, sizes = rng.uniform(0, 100, (num_probed, 2)), rng.uniform(0.1, 12, num_probed)
    vertices = np.concatenate([np.array(SQUARE) / 10 * size + at for at, size in zip(centers, sizes, strict=True)])
    region = rng.integers(0, 3, num_probed)
    rings = Rings(vertices, np.arange(0, 5 * num_probed + 1, 5), np.zeros(num_probed, int), np.zeros(num_probed, bool))
    south, west = centers[:, 1], centers[:, 0]
    probe_lat = south + 0.3819660112501051 * sizes
    expected = []
    for i in range(num_probed):
        around = (south <= probe_lat[i]) & (probe_lat[i] < south + sizes) & (region == region[i])
        around &= (west <= west[i]) & (west[i] < west + sizes)
        expected.append(around.sum() % 2 == 0)
    assert lies_in_another_part(rings, region).tolist() == expected
    assert any(expected) or num_probed < 100


def test_where_a_border_crosses_itself_file_feature_and_point_are_named(tmp_path: Path) -> None:
    tie = [[0, 0], [10, 0], [0, 4], [10, 4], [0, 0]]
    layer = read(tmp_path, collection(feature(polygon(FAR), "B"), feature(polygon(tie), "A", "Alpha")))
    assert RegionIndex.build([layer]).info.repairs == [
        "world.geojson: feature 2 ('Alpha'): the border crosses itself at latitude 2.000000, longitude 5.000000, filled"
        " by the even-odd rule"
    ]
