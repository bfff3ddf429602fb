"""What samples say together, by hand, and the laws of the sphere. Shapes: N images, K samples."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.metrics import FARTHEST_KM
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import Places
from geogrpo.uncertainty import (
    best_sample,
    geometric_median,
    level_confidence,
    sample_clusters,
    sample_radii_km,
    samples,
    summarize_samples,
)
from geogrpo.uncertainty.sphere import answer_distances_km, distances_km, latlon_deg_of, unit_vectors

NOWHERE = (math.nan, math.nan)
DEGREE_KM = math.pi * 6371.0088 / 180
PARIS, VERSAILLES, LYON, BERLIN = (48.85, 2.35), (48.80, 2.13), (45.76, 4.84), (52.52, 13.40)


@pytest.fixture(scope="module")
def index() -> RegionIndex:
    return RegionIndex.build(
        places=Places(
            latlon_deg=np.array([PARIS, VERSAILLES, LYON, BERLIN]),
            population=np.zeros(4, dtype=np.int64),
            country_code=["FR", "FR", "FR", "DE"],
            country=["France", "France", "France", "Germany"],
            state=["Ile-de-France", "Ile-de-France", "Rhone-Alpes", "Berlin"],
            county=["Paris", "Yvelines", None, None],
            city=["Paris", "Versailles", "Lyon", "Berlin"],
        )
    )


def scattered(seed: int, num_samples: int, num_images: int = 5) -> np.ndarray:
    """(N, K, 2): a few places with samples 1 to 3,000 km around them."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(num_images, rng.integers(1, 4), 3))
    chosen = centre[np.arange(num_images)[:, None], rng.integers(0, centre.shape[1], (num_images, num_samples))]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    spread = 10 ** rng.uniform(-4, -0.5, (num_images, 1, 1))
    return latlon_deg_of(chosen + spread * rng.normal(size=chosen.shape))


def rotation(seed: int) -> np.ndarray:
    """(3, 3) a random turn of the sphere."""
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.linalg.det(q)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    """The sets of samples that share a cluster."""
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def test_clusters_are_those_found_by_hand() -> None:
    points = np.array([[(0, 0), NOWHERE, (50, 50), (0, 0.2), (50, 50.1), (0, 0.4), (-30, 0)]])
    # 0.2 degrees are 22 km: a chain of three, though its ends are 44 km apart
    assert sample_clusters(points, linkage_km=25.0).tolist() == [[0, -1, 1, 0, 1, 0, 2]]
    assert sample_clusters(points, linkage_km=20.0).tolist() == [[1, -1, 0, 2, 0, 3, 4]]
    assert sample_clusters(points, linkage_km=20016.0).tolist() == [[0, -1, 0, 0, 0, 0, 0]]


def test_clusters_reach_over_the_date_line_and_the_poles() -> None:
    points = np.array([[(0, 179.95), (0, -179.95), (0, 0)], [(89.95, 0), (89.95, 180), (-89.95, 0)]])
    assert sample_clusters(points).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_samples_without_coordinates_are_in_no_cluster() -> None:
    assert sample_clusters(np.full((2, 3, 2), math.nan)).tolist() == [[-1, -1, -1]] * 2


def test_a_long_chain_is_one_cluster_in_any_order() -> None:
    chain = np.stack([np.zeros(64), np.arange(64) * 0.2], axis=1)
    order = np.random.default_rng(0).permutation(64)
    assert sample_clusters(chain[None, order]).tolist() == [[0] * 64]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10**6), num_samples=st.integers(1, 16))
def test_clusters_stay_when_the_sphere_turns_or_samples_change_places(seed: int, num_samples: int) -> None:
    points = scattered(seed, num_samples)
    turned = latlon_deg_of(unit_vectors(points) @ rotation(seed).T)
    order = np.random.default_rng(seed).permutation(num_samples)
    found, after_turn, after_move = (sample_clusters(x, linkage_km=200.0) for x in (points, turned, points[:, order]))
    for row in range(len(points)):
        assert partition(after_turn[row]) == partition(found[row])
        back = np.empty(num_samples, dtype=np.int64)
        back[order] = after_move[row]
        assert partition(back) == partition(found[row])
        # The largest first
        sizes = np.bincount(found[row])
        assert (np.diff(sizes) <= 0).all()


def test_blocks_of_images_do_not_change_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    points = scattered(0, 6, num_images=11)
    points[3, 2:] = math.nan
    whole = [function(points) for function in (sample_clusters, best_sample, geometric_median)]
    monkeypatch.setattr(samples, "BLOCK_PAIRS", 100)
    for function, expected in zip((sample_clusters, best_sample, geometric_median), whole, strict=True):
        np.testing.assert_allclose(function(points), expected, rtol=0, atol=1e-12)


def test_the_best_sample_is_that_found_by_hand() -> None:
    points = np.array(
        [
            [(0, 0), (0, 3), (0, 4), (0, 10)],
            [(0, 0), (0, 1), NOWHERE, NOWHERE],
            [NOWHERE, (5, 5), NOWHERE, NOWHERE],
            [NOWHERE] * 4,
        ]
    )
    # 0 + 3 + 4 + 10, 3 + 0 + 1 + 7, 4 + 1 + 0 + 6, ...: equal for the second and third, and the first of them counts
    np.testing.assert_array_equal(best_sample(points), [(0, 3), (0, 0), (5, 5), NOWHERE])


def test_the_geometric_median_is_that_known_by_symmetry() -> None:
    # The Fermat point of three points 120 degrees apart around the pole, and across the date line
    points = np.array([[(80, 0), (80, 120), (80, -120)], [(0, 179), (0, -179), (0, 180)]], dtype=np.float64)
    found = geometric_median(points)
    assert distances_km(found, np.array([(90.0, 0.0), (0.0, 180.0)])) == pytest.approx(0, abs=0.01)


def test_the_geometric_median_stays_on_a_sample_that_holds_it() -> None:
    # Three of five at one point: any other is farther from the majority
    points = np.array([[(10, 10), (10, 10), (10, 10), (50, 60), (-40, 100)]], dtype=np.float64)
    np.testing.assert_array_equal(geometric_median(points), [(10, 10)])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), num_samples=st.integers(1, 12))
def test_the_geometric_median_is_no_worse_than_any_sample_or_neighbour(seed: int, num_samples: int) -> None:
    points = scattered(seed, num_samples)
    found = geometric_median(points)
    expected = answer_distances_km(points, found).mean(axis=1)
    for k in range(num_samples):
        assert (expected <= answer_distances_km(points, points[:, k]).mean(axis=1) + 1e-9).all()
    # Nor does a walk of 5 km from it help: a minimum
    rng = np.random.default_rng(seed)
    vector = unit_vectors(found)
    for _ in range(8):
        aside = latlon_deg_of(vector + rng.normal(size=vector.shape) * 5 / 6371 / math.sqrt(3))
        assert (expected <= answer_distances_km(points, aside).mean(axis=1) + 1e-3).all()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_what_the_samples_expect_stays_when_the_sphere_turns(seed: int) -> None:
    points = scattered(seed, 7)
    turned = latlon_deg_of(unit_vectors(points) @ rotation(seed).T)
    before, after = (answer_distances_km(x, geometric_median(x)).mean(axis=1) for x in (points, turned))
    assert after == pytest.approx(before, abs=0.02)


def test_radii_are_those_computed_by_hand() -> None:
    points = np.array([[(0, k) for k in range(10)], [(0, 0)] * 5 + [NOWHERE] * 5], dtype=np.float64)
    answers = np.zeros((2, 2))
    found = sample_radii_km(points, answers, shares=(0.1, 0.5, 0.9, 1.0))
    np.testing.assert_allclose(found[0], np.array([0, 4, 8, 9]) * DEGREE_KM, rtol=1e-12)
    # Half of the samples are elsewhere.
    assert found[1].tolist() == [0.0, 0.0, FARTHEST_KM, FARTHEST_KM]
    assert sample_radii_km(points, np.full((2, 2), math.nan)).tolist() == [[FARTHEST_KM] * 2] * 2


def test_a_share_that_rounding_pushes_over_a_whole_number_counts_as_whole() -> None:
    points = np.array([[(0, k / 10) for k in range(100)]])
    assert sample_radii_km(points, np.zeros((1, 2)), shares=(0.07,)) == pytest.approx(0.6 * DEGREE_KM)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 1))
def test_a_radius_holds_its_share_and_no_smaller_one_does(seed: int, share: float) -> None:
    points = scattered(seed, 9)
    answers = geometric_median(points)
    (radius_km,) = sample_radii_km(points, answers, shares=(share,)).T
    distance_km = answer_distances_km(points, answers)
    assert ((distance_km <= radius_km[:, None]).mean(axis=1) >= share - 1e-9).all()
    assert ((distance_km < radius_km[:, None]).mean(axis=1) < share).all()


def test_confidence_is_the_share_of_samples_in_the_answers_regions(index: RegionIndex) -> None:
    points = np.array([[PARIS, VERSAILLES, PARIS, LYON, BERLIN, NOWHERE, PARIS, NOWHERE]] * 3)
    found = level_confidence(points, np.array([PARIS, LYON, NOWHERE]), index)
    np.testing.assert_array_equal(found[0], np.array([5, 4, 3, 3]) / 8)
    # Lyon has no county; what is nowhere has nothing
    np.testing.assert_array_equal(found[1], [5 / 8, 1 / 8, math.nan, 1 / 8])
    assert np.isnan(found[2]).all()


def test_the_summary_is_made_of_the_parts(index: RegionIndex) -> None:
    points = np.array([[PARIS, PARIS, PARIS, LYON], [BERLIN, NOWHERE, NOWHERE, NOWHERE], [NOWHERE] * 4])
    found = summarize_samples(points, index)
    np.testing.assert_array_equal(found.answer_latlon_deg, [PARIS, BERLIN, NOWHERE])
    far = float(distances_km(np.array(PARIS), np.array(LYON)))
    assert found.expected_km == pytest.approx([far / 4, FARTHEST_KM * 3 / 4, FARTHEST_KM])
    assert found.radius_50_km == pytest.approx([0, FARTHEST_KM, FARTHEST_KM])
    assert found.radius_90_km == pytest.approx([far, FARTHEST_KM, FARTHEST_KM])
    assert found.cluster.tolist() == [[0, 0, 0, 1], [0, -1, -1, -1], [-1] * 4]
    np.testing.assert_array_equal(found.level_confidence[0], [1, 0.75, 0.75, 0.75])
    np.testing.assert_array_equal(found.level_confidence[1], [0.25, 0.25, math.nan, 0.25])


@pytest.mark.parametrize("shape", [(3, 2), (0, 4, 2), (2, 0, 2), (2, 4, 3)])
def test_wrong_shapes_are_rejected(shape: tuple[int, ...], index: RegionIndex) -> None:
    for function in (sample_clusters, best_sample, geometric_median, lambda points: summarize_samples(points, index)):
        with pytest.raises(ValueError, match=r"must be \(N, K, 2\) with N, K > 0, got"):
            function(np.zeros(shape))


def test_wrong_options_are_rejected(index: RegionIndex) -> None:
    points = np.zeros((2, 3, 2))
    for linkage_km in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="linkage_km must be > 0"):
            sample_clusters(points, linkage_km=linkage_km)
    for shares in ((), (0.0,), (0.5, 1.1)):
        with pytest.raises(ValueError, match=r"shares must be one or more numbers in \(0, 1\]"):
            sample_radii_km(points, np.zeros((2, 2)), shares=shares)
    for answers in (np.zeros((3, 2)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"answer_latlon_deg must be \(2, 2\)"):
            level_confidence(points, answers, index)
