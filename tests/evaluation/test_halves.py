"""What is chosen on one half and observed on the other: by hand, and that neither half sees the other."""

import math
from dataclasses import replace

import numpy as np
import pytest

from geogrpo.evaluation.halves import ALPHA, Outcomes, choose, is_calibrated_on, observe
from geogrpo.metrics import FARTHEST_KM


def outcomes(num_images: int, seed: int = 0) -> Outcomes:
    """Confidence that means what it says, and errors in proportion to the spread."""
    rng = np.random.default_rng(seed)
    confidence = np.sort(rng.random((num_images, 4)))[:, ::-1]
    spread_km = rng.lognormal(4, 1, num_images)
    return Outcomes(
        confidence=confidence,
        is_right=rng.random((num_images, 1)) < confidence,
        distance_km=np.minimum(spread_km * rng.lognormal(0, 1, num_images), FARTHEST_KM),
        spread_km=spread_km,
    )


def test_an_images_half_depends_on_its_id_alone_and_halves_are_halves() -> None:
    # b2sum of the first begins with 3, of the second with c; a file name that is no UTF-8 has a half, too
    assert [is_calibrated_on(name) for name in ("a", "b")] == [False, True]
    assert is_calibrated_on("\udce9.jpg") in (False, True)
    share = np.mean([is_calibrated_on(f"image-{i}") for i in range(10_000)])
    # Four deviations
    assert share == pytest.approx(0.5, abs=4 * 0.005)


def test_radii_and_threshold_are_those_found_by_hand() -> None:
    # Nine images: the ninth least of 9 + 1 is the quantile for 0.1
    confidence = np.tile([[1.0, 0.5, np.nan, 0.5]], (9, 1))
    is_right = np.zeros((9, 4), dtype=bool)
    is_right[:, 0] = True
    is_right[:4, 1] = is_right[:3, 3] = True
    km = np.arange(1.0, 10.0) * 100
    chosen = choose(Outcomes(confidence, is_right, km, np.full(9, 99.0)), 0.8)
    assert chosen.radius_km == 900
    assert chosen.spread_factor == 9.0
    assert chosen.scaled_radius_km(np.array([0.0, 49.0, 1e6])).tolist() == [9.0, 450.0, FARTHEST_KM]
    # At 0.5 cities are answered, three of nine right; at 1 countries, all right
    assert (chosen.back_off.threshold, chosen.back_off.accuracy, chosen.back_off.coverage) == (1.0, 1.0, 1.0)
    assert chosen.level(np.array([[0.9, 0.9, 0.9, 0.9], [1.0, 1.0, np.nan, 0.1]])).tolist() == [-1, 1]


def test_what_is_observed_is_that_counted_by_hand() -> None:
    chosen = choose(outcomes(300), 0.9)
    fixed = replace(chosen, radius_km=251.0, spread_factor=2.0, back_off=replace(chosen.back_off, threshold=0.5))
    others = Outcomes(
        confidence=np.array(
            [[0.9, 0.6, 0.2, np.nan], [0.5, 0.4, 0.1, 0.1], [0.4, 0.2, np.nan, np.nan], [1, 1, 1, 1.0]]
        ),
        is_right=np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]], dtype=bool),
        distance_km=np.array([250.0, 251.0, 10.0, FARTHEST_KM]),
        spread_km=np.array([124.0, 200.0, 1.0, 9.0]),
    )
    found = observe(others, fixed, bootstrap_samples=100)
    assert found.num_images == 4
    assert found.back_off_counts == {"country": 1, "state": 1, "county": 0, "city": 1, "none": 1}
    assert found.back_off_coverage.value == 0.75
    assert found.back_off_accuracy is not None
    assert found.back_off_accuracy.value == pytest.approx(1 / 3)
    assert found.radius_coverage.value == 0.75
    # Radii 250, 402, 4 and 20
    assert found.scaled_coverage.value == 0.5
    assert found.scaled_median_km == 135


def test_images_like_those_calibrated_on_are_covered_as_promised() -> None:
    coverages = []
    for seed in range(30):
        chosen = choose(outcomes(200, seed), 0.8)
        found = observe(outcomes(1000, 1000 + seed), chosen, bootstrap_samples=1)
        coverages.append([found.radius_coverage.value, found.scaled_coverage.value, found.back_off_accuracy.value])
    plain, scaled, accuracy = np.mean(coverages, axis=0)
    # The mean over draws is between 1 - ALPHA and 1 / (N + 1) more; four deviations of 30 draws of 200.
    slack = 4 * math.sqrt(ALPHA * (1 - ALPHA) / 200 / 30)
    for coverage in (plain, scaled):
        assert 1 - ALPHA - slack <= coverage <= 1 - ALPHA + 1 / 201 + slack
    assert accuracy == pytest.approx(0.8, abs=0.03)


def test_where_no_threshold_reaches_the_aim_nothing_is_answered() -> None:
    some = replace(outcomes(50), is_right=np.zeros((50, 4), dtype=bool))
    chosen = choose(some, 0.5)
    assert math.isinf(chosen.back_off.threshold)
    found = observe(some, chosen, bootstrap_samples=10)
    assert found.back_off_accuracy is None
    assert found.back_off_counts["none"] == 50
