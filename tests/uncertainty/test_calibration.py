"""Reliability and calibration error, by hand and for a forecaster who is right as often as he says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.uncertainty import expected_calibration_error, reliability


def test_bins_of_equal_width_are_those_found_by_hand() -> None:
    confidence = np.array([0.0, 0.5, 0.5, 0.6, 1.0, math.nan])
    right = np.array([True, True, False, True, True, True])
    found = reliability(confidence, right, num_bins=4)
    # The upper edge belongs to a bin: 0.5 to the second, and 0 to the first
    assert found.low.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert found.high.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert found.count.tolist() == [1, 2, 1, 1]
    assert found.confidence.tolist() == [0.0, 0.5, 0.6, 1.0]
    assert found.accuracy.tolist() == [1.0, 0.5, 1.0, 1.0]
    assert found.expected_calibration_error == pytest.approx((1.0 + 0 + 0.4 + 0) / 5)


def test_bins_without_images_are_left_out() -> None:
    found = reliability(np.array([0.05, 0.95]), np.array([False, True]))
    assert found.low == pytest.approx([0.0, 0.9])
    assert found.expected_calibration_error == pytest.approx(0.05)


def test_bins_of_equal_mass_are_those_found_by_hand() -> None:
    confidence = np.array([0.1, 0.9, 0.2, 0.8, 0.7, 0.3])
    right = np.array([False, True, False, True, False, True])
    found = reliability(confidence, right, num_bins=3, binning="mass")
    assert found.low.tolist() == [0.1, 0.3, 0.8]
    assert found.high.tolist() == [0.2, 0.7, 0.9]
    assert found.count.tolist() == [2, 2, 2]
    assert found.confidence == pytest.approx([0.15, 0.5, 0.85])
    assert found.accuracy.tolist() == [0.0, 0.5, 1.0]
    assert found.expected_calibration_error == pytest.approx(0.1)


def test_equal_confidences_stay_in_one_bin_of_equal_mass() -> None:
    found = reliability(np.array([0.5] * 9 + [0.7]), np.ones(10, dtype=bool), num_bins=5, binning="mass")
    assert found.count.tolist() == [9, 1]


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_a_calibrated_forecaster_has_no_error_but_chance(binning: str) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(200_000)
    right = rng.random(200_000) < confidence
    # Per bin of 20,000: sqrt(2 / pi) of at most sqrt(.25 / 20,000); twice that is allowed.
    limit = 2 * math.sqrt(2 / math.pi * 0.25 / 20_000)
    assert expected_calibration_error(confidence, right, binning=binning) < limit
    # One who says 0.1 too little is 0.1 off, but at 0.
    too_low = np.maximum(confidence - 0.1, 0)
    assert expected_calibration_error(too_low, right, binning=binning) == pytest.approx(0.095, abs=0.004)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40),
    num_bins=st.integers(1, 15),
    binning=st.sampled_from(["width", "mass"]),
)
def test_bins_hold_every_image_once(rows: list, num_bins: int, binning: str) -> None:
    confidence, right = (np.array(column) for column in zip(*rows, strict=True))
    found = reliability(confidence, right, num_bins=num_bins, binning=binning)
    assert found.count.sum() == len(rows)
    assert len(found.count) <= num_bins
    assert (found.count * found.accuracy).sum() == pytest.approx(right.sum())
    assert (found.count * found.confidence).sum() == pytest.approx(confidence.sum())
    assert (found.low - 1e-12 <= found.confidence).all()
    assert (found.confidence <= found.high + 1e-12).all()
    assert 0 <= found.expected_calibration_error <= 1


@pytest.mark.parametrize(
    ("confidence", "right", "options", "message"),
    [
        (np.ones(3), np.ones(2), {}, r"must both be \(N,\), got \(3,\) and \(2,\)"),
        (np.ones((2, 2)), np.ones((2, 2)), {}, r"must both be \(N,\), got \(2, 2\)"),
        (np.ones(0), np.ones(0), {}, "no image has a confidence"),
        (np.full(2, math.nan), np.ones(2), {}, "no image has a confidence"),
        (np.array([0.5, 1.1]), np.ones(2), {}, r"confidence must be in \[0, 1\], got 0.5 to 1.1"),
        (np.ones(2), np.ones(2), {"num_bins": 0}, "num_bins must be at least 1, got 0"),
        (np.ones(2), np.ones(2), {"binning": "x"}, "binning must be one of width, mass, got 'x'"),
    ],
)
def test_wrong_input_is_rejected(confidence: np.ndarray, right: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reliability(confidence, right, **options)
