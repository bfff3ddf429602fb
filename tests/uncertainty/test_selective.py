"""Risk against coverage and back-off, by hand and by law. Shapes: N images, L levels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.uncertainty import BackOff, backed_off_level, choose_back_off, risk_coverage, selective

ROWS = st.lists(st.tuples(st.integers(0, 5), st.floats(0, 100)), min_size=1, max_size=30)


def test_the_curve_is_that_computed_by_hand() -> None:
    found = risk_coverage(np.array([0.2, 0.9, 0.5, 0.7]), np.array([1.0, 0.0, 1.0, 0.0]))
    assert found.coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.risk == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert found.threshold.tolist() == [0.9, 0.7, 0.5, 0.2]
    assert found.area == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_images_of_equal_confidence_enter_with_their_mean_loss() -> None:
    found = risk_coverage(np.array([0.5, 0.5, math.nan]), np.array([0.0, 1.0, 4.0]))
    assert found.risk == pytest.approx([0.5, 0.5, 5 / 3])
    assert found.threshold.tolist() == [0.5, 0.5, -math.inf]


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_the_curve_ends_at_the_overall_risk_whatever_the_order(rows: list, seed: int) -> None:
    confidence, loss = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    found = risk_coverage(confidence, loss)
    assert found.coverage[-1] == 1.0
    assert found.risk[-1] == pytest.approx(loss.mean())
    assert (np.diff(found.threshold) <= 0).all()
    order = np.random.default_rng(seed).permutation(len(loss))
    assert risk_coverage(confidence[order], loss[order]).risk == pytest.approx(found.risk)


@settings(deadline=None)
@given(rows=ROWS)
def test_no_order_has_less_area_than_that_of_the_losses(rows: list) -> None:
    confidence, loss = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    best, worst = risk_coverage(-loss, loss).area, risk_coverage(loss, loss).area
    assert best - 1e-9 <= risk_coverage(confidence, loss).area <= worst + 1e-9


def test_wrong_curves_are_rejected() -> None:
    for confidence, loss in ((np.ones(2), np.ones(3)), (np.ones(0), np.ones(0)), (np.ones((2, 2)), np.ones((2, 2)))):
        with pytest.raises(ValueError, match=r"must both be \(N,\) with N > 0"):
            risk_coverage(confidence, loss)
    with pytest.raises(ValueError, match="loss must be finite"):
        risk_coverage(np.ones(2), np.array([1.0, math.nan]))


CONFIDENCE = np.array(
    [[1.0, 0.9, 0.8, 0.7], [0.9, 0.5, 0.3, 0.1], [0.6, 0.6, math.nan, 0.6], [0.2, 0.1, 0.1, 0.1], [math.nan] * 4]
)


def test_the_level_is_the_finest_that_is_sure_enough() -> None:
    assert backed_off_level(CONFIDENCE, 0.6).tolist() == [3, 0, 3, -1, -1]
    assert backed_off_level(CONFIDENCE, 0.75).tolist() == [2, 0, -1, -1, -1]
    assert backed_off_level(CONFIDENCE, 0.0).tolist() == [3, 3, 3, 3, -1]
    assert backed_off_level(CONFIDENCE, math.inf).tolist() == [-1] * 5


def test_the_threshold_is_the_least_that_reaches_the_target() -> None:
    right = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    # At 0.3 the levels are 3, 2, 3, -1: one of three right; at 0.5 3, 1, 3; at 0.7 3, 0, -1.
    assert choose_back_off(CONFIDENCE, right, 0.6) == BackOff(0.5, 2 / 3, 3 / 5)
    assert choose_back_off(CONFIDENCE, right, 1.0) == BackOff(0.7, 1.0, 2 / 5)
    assert choose_back_off(CONFIDENCE, right, 0.0).threshold == 0.1


def test_a_target_out_of_reach_answers_nothing() -> None:
    for confidence in (np.full((3, 4), 0.5), np.full((3, 4), math.nan)):
        found = choose_back_off(confidence, np.zeros((3, 4), dtype=bool), 0.5)
        assert (found.threshold, found.coverage) == (math.inf, 0.0)
        assert math.isnan(found.accuracy)
        assert (backed_off_level(confidence, found.threshold) == -1).all()


def test_the_chosen_threshold_reaches_the_target_on_other_images() -> None:
    rng = np.random.default_rng(0)

    def draw(num_images: int) -> tuple[np.ndarray, np.ndarray]:
        # Each level is right with its confidence, and only where the coarser one is.
        confidence = np.cumprod(rng.beta(4, 1, (num_images, 4)), axis=1)
        step = confidence / np.concatenate([np.ones((num_images, 1)), confidence[:, :-1]], axis=1)
        return confidence, np.logical_and.accumulate(rng.random((num_images, 4)) < step, axis=1)

    chosen = choose_back_off(*draw(4000), 0.8)
    confidence, right = draw(40_000)
    level = backed_off_level(confidence, chosen.threshold)
    answered = level >= 0
    accuracy = right[answered, level[answered]].mean()
    # Four deviations of a share of 4,000 and of 40,000
    assert accuracy == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / 4000 + 0.16 / 40_000))
    assert answered.mean() == pytest.approx(chosen.coverage, abs=4 * math.sqrt(0.25 / 4000 + 0.25 / 40_000))
    # Finer answers than at the country, yet not always
    assert 0 < (level > 0).mean() < 1


def test_many_confidences_are_tried_by_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    confidence = np.linspace(0, 1, 101)[:, None]
    right = confidence >= 0.5
    assert choose_back_off(confidence, right, 1.0).threshold == 0.5
    monkeypatch.setattr(selective, "MAX_THRESHOLDS", 5)
    assert choose_back_off(confidence, right, 1.0).threshold == 0.5
    monkeypatch.setattr(selective, "MAX_THRESHOLDS", 4)
    assert choose_back_off(confidence, right, 1.0).threshold == pytest.approx(0.67)


def test_wrong_back_offs_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"confidence must be \(N, L\) with N, L > 0, got \(3,\)"):
        backed_off_level(np.ones(3), 0.5)
    with pytest.raises(ValueError, match=r"must both be \(N, L\), got \(3, 4\) and \(3, 2\)"):
        choose_back_off(np.ones((3, 4)), np.ones((3, 2)), 0.5)
    with pytest.raises(ValueError, match=r"target_accuracy must be in \[0, 1\], got 80"):
        choose_back_off(np.ones((3, 4)), np.ones((3, 4)), 80)
