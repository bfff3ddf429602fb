"""What holds for any index: whatever the input is, its dtype and the number of threads; and mistakes are named.

test_index_places.py and test_index_polygons.py say which region is the right one.
"""

import copy
import math
import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from regions.samples import NOWHERE, box, layer, places_at, random_points

from geogrpo.regions import ops
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.regions.sources.geonames import load_geonames


@pytest.fixture(scope="module")
def mixed() -> RegionIndex:
    """Polygons and places."""
    countries = layer("country", west=box(-60, -180, 60, 0), east=box(-60, 0, 60, 180))
    return RegionIndex.build([countries], load_geonames())


def test_a_point_that_is_none_gives_minus_1_and_leaves_the_others_alone(mixed: RegionIndex) -> None:
    good = (48.8566, 2.3522)
    points = [good]
    for point in NOWHERE:
        points += [point, good]
    for index in (mixed, default_index()):
        found = index.lookup(np.array(points))
        assert (found.ids[1::2] == -1).all()
        assert (found.ids[::2] == found.ids[0]).all()
        assert index.names(found.city)[0] == "Paris"
        assert not found.is_near_coast.any()


def test_without_wrap_a_longitude_beyond_180_is_nowhere(mixed: RegionIndex) -> None:
    points = np.array([(0.0, 180.0), (0.0, -180.0), (0.0, 180.1), (0.0, -190.0), (0.0, 370.0)])
    assert (mixed.lookup(points, wrap=False).country >= 0).tolist() == [True, True, False, False, False]
    assert (mixed.lookup(points).country >= 0).all()


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.uint64, (64, 2)), st.booleans())
def test_any_bits_are_a_point_or_nowhere(bits: np.ndarray, single: bool) -> None:
    index = default_index()
    points = bits.astype(np.uint32).view(np.float32) if single else bits.view(np.float64)
    with np.errstate(invalid="ignore"):
        is_valid = np.isfinite(points).all(axis=1) & (np.abs(points[:, 0]) <= 90)
    assert np.array_equal(index.lookup(points).city >= 0, is_valid)


@pytest.mark.parametrize("num_points", [0, 1, 127, 128, 129, 40_000, 100_001])
def test_the_number_of_threads_and_of_points_does_not_matter(
    mixed: RegionIndex, num_points: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = random_points(num_points, 5)
    answers = []
    for threads in (1, 2, 7):
        monkeypatch.setattr(ops, "num_threads", lambda threads=threads: threads)
        answers.append(mixed.lookup(points))
    for other in answers[1:]:
        assert np.array_equal(answers[0].ids, other.ids)
        assert np.array_equal(answers[0].is_near_coast, other.is_near_coast)
    if num_points:
        some = np.random.default_rng(0).integers(0, num_points, 50)
        alone = np.concatenate([mixed.lookup(points[i : i + 1]).ids for i in some])
        assert np.array_equal(answers[0].ids[some], alone)


def test_a_lookup_takes_no_more_threads_than_torch_may() -> None:
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        assert ops.num_threads() == 1
        torch.set_num_threads(10_000)
        assert ops.num_threads() == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(num_threads)


def test_float32_points_are_widened_exactly(mixed: RegionIndex) -> None:
    points = random_points(5000).astype(np.float32)
    assert np.array_equal(mixed.lookup(points).ids, mixed.lookup(points.astype(np.float64)).ids)


def test_other_dtypes_and_layouts_are_converted(mixed: RegionIndex) -> None:
    points = np.array([(48, 2), (-33, 151)])
    expected = mixed.lookup(points.astype(np.float64)).ids
    assert np.array_equal(mixed.lookup(points).ids, expected)
    assert np.array_equal(mixed.lookup(np.asfortranarray(points.astype(np.float64))).ids, expected)
    assert np.array_equal(mixed.lookup(torch.tensor(points)).ids.numpy(), expected)


def test_tensors_get_tensors_through_the_operator(mixed: RegionIndex) -> None:
    points = torch.from_numpy(random_points(1000))
    found = mixed.lookup(points)
    assert np.array_equal(found.ids.numpy(), mixed.lookup(points.numpy()).ids)
    assert np.array_equal(found.is_near_coast.numpy(), mixed.lookup(points.numpy()).is_near_coast)
    torch.library.opcheck(ops.region_lookup, (points, mixed._handle, True, True))
    with torch.device("meta"):
        ids, is_near_coast = ops.region_lookup(torch.empty(7, 2), mixed._handle, True, True)
    assert (ids.shape, ids.dtype, is_near_coast.shape, is_near_coast.dtype) == ((7, 4), torch.int32, (7,), torch.bool)


def test_a_handle_outlived_by_its_index_is_refused() -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    handle = index._handle
    del index
    with pytest.raises(ValueError, match="is gone. Keep a reference"):
        ops.region_lookup(torch.zeros(1, 2), handle, True, True)


@pytest.mark.parametrize("shape", [(), (3,), (0,), (3, 3), (1, 2, 1)])
def test_points_of_another_shape_are_rejected(shape: tuple[int, ...]) -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    for points in (np.zeros(shape), torch.zeros(shape)):
        with pytest.raises(ValueError, match=r"latlon_deg must be \(..., 2\), got") as error:
            index.lookup(points)
        assert f"got {shape}" in str(error.value)


@pytest.mark.parametrize("shape", [(), (60,), (5, 12), (2, 5, 6), (0, 4)])
def test_leading_dimensions_are_kept(mixed: RegionIndex, shape: tuple[int, ...]) -> None:
    points = random_points(60)[: math.prod(shape)].reshape(*shape, 2)
    rows = mixed.lookup(points.reshape(-1, 2))
    for given_points in (points, torch.from_numpy(points)):
        found = mixed.lookup(given_points)
        assert type(found.ids) is type(given_points)
        assert tuple(found.ids.shape) == (*shape, 4)
        assert found.ids.reshape(-1, 4).tolist() == rows.ids.tolist()
        assert found.is_near_coast.reshape(-1).tolist() == rows.is_near_coast.tolist()
        assert found.city.tolist() == rows.city.reshape(shape).tolist()
        assert mixed.nearest(given_points).tolist() == mixed.nearest(points.reshape(-1, 2)).reshape(shape).tolist()


def test_a_list_of_pairs_is_an_array(mixed: RegionIndex) -> None:
    pairs = [(48.8566, 2.3522), (35, 139)]
    assert mixed.lookup(pairs).ids.tolist() == mixed.lookup(np.array(pairs)).ids.tolist()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([(1, 2), (3,)], r"latlon_deg must be \(..., 2\) numbers"),
        ([("1", "2")], "latlon_deg must be real numbers, got <U1"),
        (None, "latlon_deg must be real numbers, got object"),
        (np.zeros((1, 2), np.complex128), "latlon_deg must be real numbers, got complex128"),
        (np.zeros((1, 2), bool), "latlon_deg must be real numbers, got bool"),
        (torch.zeros(1, 2, dtype=torch.complex64), "latlon_deg must be real numbers, got torch.complex64"),
        (torch.zeros(1, 2, dtype=torch.bool), "latlon_deg must be real numbers, got torch.bool"),
        (np.ma.masked_array(np.zeros((1, 2)), mask=True), "must not be a masked array; a point that is none is NaN"),
    ],
)
def test_what_is_no_point_is_rejected(points: Any, message: str) -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    for look in (index.lookup, index.nearest, index.nearest_with_distance):
        with pytest.raises(ValueError, match=message):
            look(points)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_are_widened(mixed: RegionIndex, dtype: torch.dtype) -> None:
    points = torch.from_numpy(random_points(500)).to(dtype)
    assert torch.equal(mixed.lookup(points).ids, mixed.lookup(points.double()).ids)


def test_an_index_survives_pickle_copy_and_a_spawned_process(mixed: RegionIndex) -> None:
    points = random_points(2000)
    expected = mixed.lookup(points).ids
    for copied in (pickle.loads(pickle.dumps(mixed)), copy.deepcopy(mixed)):
        assert np.array_equal(copied.lookup(points).ids, expected)
        assert (copied.sha256, copied.info) == (mixed.sha256, mixed.info)
    # As a DataLoader hands it to its workers
    with torch.multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(_lookup, (mixed, points)), expected)
    assert np.array_equal(mixed.lookup(points).ids, expected)


def _lookup(index: RegionIndex, points: np.ndarray) -> np.ndarray:
    return index.lookup(points).ids


def test_nothing_to_build_from_is_rejected() -> None:
    with pytest.raises(ValueError, match="needs a polygon layer or at least one place"):
        RegionIndex.build()
    with pytest.raises(ValueError, match="needs a polygon layer or at least one place"):
        RegionIndex.build(places=places_at())
    with pytest.raises(ValueError, match="metric must be one of sphere, degrees"):
        RegionIndex.build(places=places_at((0, 0)), metric="manhattan")
    with pytest.raises(ValueError, match="no places"):
        RegionIndex.build([layer("country", a=box(0, 0, 1, 1))]).nearest(np.zeros((1, 2)))


def test_layers_that_do_not_fit_are_rejected_by_name() -> None:
    country = layer("country", land=box(0, 0, 1, 1))
    with pytest.raises(ValueError, match="state 'left' has the parent 'sea'"):
        RegionIndex.build([country, layer("state", ["sea"], left=box(0, 0, 1, 1))])
    with pytest.raises(ValueError, match="two layers of level 'country'"):
        RegionIndex.build([country, country])
    with pytest.raises(ValueError, match="level must be one of country, state, county, city, got 'planet'"):
        RegionIndex.build([layer("planet", earth=box(0, 0, 1, 1))])


def test_ids_that_stand_for_nothing_are_rejected() -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    assert index.names([[-1, 0]]).tolist() == [[None, "0"]]
    assert index.levels([-1, 0, 1]).tolist() == [-1, 0, 3]
    assert np.isnan(index.place_latlon_deg(-1)).all()
    for ids in ([2], [-2], [0.5]):
        with pytest.raises(ValueError, match="ids must be integers from -1 to 1"):
            index.names(ids)
    with pytest.raises(ValueError, match="only places have coordinates"):
        index.place_latlon_deg([0])
    without_places = RegionIndex.build([layer("country", a=box(0, 0, 1, 1))])
    assert np.isnan(without_places.place_latlon_deg([-1])).all()
    assert without_places.place_latlon_deg([[-1, -1]]).shape == (1, 2, 2)


def test_one_id_has_one_name() -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    for number in (1, np.int32(1), torch.tensor(1)):
        assert (index.names(number).shape, index.codes(number - 1).shape) == ((), ())
        assert (index.names(number).item(), index.codes(number - 1).item()) == ("0", "0")
        assert index.codes(number).item() is None
        assert (int(index.parents(number)), int(index.levels(number))) == (0, 3)
    assert index.names(-1).item() is None


def test_parents_of_a_tensor_are_a_tensor() -> None:
    index = RegionIndex.build(places=places_at((0, 0)))
    parents = index.parents(torch.tensor([[1, 0], [-1, 1]]))
    assert (parents.dtype, parents.tolist()) == (torch.int32, [[0, -1], [-1, 0]])


def test_building_twice_gives_the_same_tables() -> None:
    countries = layer("country", west=box(-60, -180, 60, 0), east=box(-60, 0, 60, 180))
    first, second = (RegionIndex.build([countries], places_at((0, 1), (0, 2))) for _ in range(2))
    assert first.sha256 == second.sha256
