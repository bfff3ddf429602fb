"""The promise of split conformal prediction, and its edges. Shapes: N calibration images, M test images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.metrics import FARTHEST_KM, charged_km
from geogrpo.uncertainty import conformal_quantile, conformal_radius_km, scaled_conformal_radius_km

NUM_TRIALS = 2000


def test_the_quantile_is_that_found_by_hand() -> None:
    scores = np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 7.0, 6.0, 8.0])
    # (9 + 1) * 0.9 = 9, (9 + 1) * 0.5 = 5, and 10 * (1 - 0.7) = 3.0000000000000004
    assert conformal_quantile(scores, 0.1) == 9.0
    assert conformal_quantile(scores, 0.5) == 5.0
    assert conformal_quantile(scores, 0.7) == 3.0
    assert conformal_quantile(scores, 0.55) == 5.0
    # Nine scores cannot promise more than nine in ten.
    assert conformal_quantile(scores, 0.09) == math.inf
    assert conformal_radius_km(scores, 0.09) == FARTHEST_KM


@pytest.mark.parametrize(("num_images", "alpha"), [(9, 0.1), (25, 0.1), (99, 0.05), (40, 0.5)])
def test_the_truth_lies_within_as_often_as_promised_and_hardly_more(num_images: int, alpha: float) -> None:
    rng = np.random.default_rng(0)
    distance_km = rng.exponential(500, (NUM_TRIALS, num_images + 1)).clip(0, FARTHEST_KM)
    covered = [row[-1] <= conformal_radius_km(row[:-1], alpha) for row in distance_km]
    # Exactly ceil((n + 1) (1 - alpha)) / (n + 1) for distances that all differ; four deviations of a share of 2,000
    promised = math.ceil((num_images + 1) * (1 - alpha) - 1e-9) / (num_images + 1)
    assert promised >= 1 - alpha - 1e-12
    assert np.mean(covered) == pytest.approx(promised, abs=4 * math.sqrt(promised * (1 - promised) / NUM_TRIALS))


def test_a_radius_in_proportion_to_the_spread_holds_as_often_and_is_smaller_where_samples_agree() -> None:
    rng = np.random.default_rng(1)
    spread_km = 10 ** rng.uniform(0, 3, (NUM_TRIALS, 40))
    distance_km = spread_km * rng.exponential(1, spread_km.shape)
    radii, covered = [], []
    for distance, spread in zip(distance_km, spread_km, strict=True):
        (radius_km,) = scaled_conformal_radius_km(distance[:-1], spread[:-1], spread[-1:], 0.2)
        radii.append(radius_km)
        covered.append(distance[-1] <= radius_km)
    promised = math.ceil(40 * 0.8) / 40
    assert np.mean(covered) == pytest.approx(promised, abs=4 * math.sqrt(promised * (1 - promised) / NUM_TRIALS))
    # At every size of spread, where one radius for all would hold all of the small ones and few of the large
    covered_array, is_small = np.array(covered), spread_km[:, -1] < 30
    assert covered_array[is_small].mean() == pytest.approx(covered_array[~is_small].mean(), abs=0.08)
    assert np.median(radii) < conformal_radius_km(distance_km[:, 0], 0.2)


def test_answers_without_coordinates_are_held_by_the_whole_earth_alone() -> None:
    rng = np.random.default_rng(2)
    distance_km = rng.exponential(500, (NUM_TRIALS, 20))
    distance_km[rng.random(distance_km.shape) < 0.15] = math.nan
    radii = np.array([conformal_radius_km(row[:-1], 0.1) for row in distance_km])
    covered = charged_km(distance_km[:, -1]) <= radii
    assert covered.mean() >= 0.9 - 4 * math.sqrt(0.09 / NUM_TRIALS)
    assert (radii == FARTHEST_KM).mean() > 0.5
    assert conformal_radius_km(np.full(30, math.nan), 0.5) == FARTHEST_KM


@settings(deadline=None)
@given(
    distances=st.lists(st.floats(0, 20015), min_size=1, max_size=40).map(np.array),
    alphas=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)),
)
def test_a_surer_promise_needs_a_radius_no_smaller(distances: np.ndarray, alphas: tuple[float, float]) -> None:
    low, high = sorted(alphas)
    assert conformal_radius_km(distances, low) >= conformal_radius_km(distances, high)
    spread = np.ones(len(distances))
    surer = scaled_conformal_radius_km(distances, spread, np.array([0.0, 5.0]), low)
    assert (surer >= scaled_conformal_radius_km(distances, spread, np.array([0.0, 5.0]), high)).all()
    assert (surer <= FARTHEST_KM).all()


def test_a_radius_in_proportion_is_that_computed_by_hand() -> None:
    # Scores 2, 1 and 5; the second of three for alpha 0.5
    found = scaled_conformal_radius_km(
        np.array([2.0, 10.0, 50.0]), np.array([0.0, 9.0, 9.0]), np.array([0.0, 99.0]), 0.5
    )
    assert found.tolist() == [2.0, 200.0]


@pytest.mark.parametrize("alpha", [0.0, 1.0, 5.0, math.nan])
def test_a_wrong_alpha_is_rejected(alpha: float) -> None:
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\), got"):
        conformal_quantile(np.ones(3), alpha)


def test_wrong_scores_are_rejected() -> None:
    for scores in (np.ones(0), np.ones((2, 2))):
        with pytest.raises(ValueError, match=r"scores must be \(N,\) with N > 0, got"):
            conformal_quantile(scores, 0.1)
    with pytest.raises(ValueError, match="scores must not be NaN"):
        conformal_quantile(np.array([1.0, math.nan]), 0.1)
    with pytest.raises(ValueError, match=r"must be of the same images, got \(3,\) and \(2,\)"):
        scaled_conformal_radius_km(np.ones(3), np.ones(2), np.ones(1), 0.1)
    for spread in (np.array([-1.0]), np.array([math.nan]), np.ones((1, 1))):
        with pytest.raises(ValueError, match=r"spreads must be \(N,\) km >= 0"):
            scaled_conformal_radius_km(np.ones(1), np.ones(1), spread, 0.1)
