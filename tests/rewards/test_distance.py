"""Distance rewards against tables computed by hand, and their laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.rewards.distance import (
    DISTANCE_FUNCTIONS,
    geoagent,
    geor_code,
    geor_paper,
    geoscore,
    gre,
    logarithmic,
    multiscale,
    thresholds,
    twm,
)

EPS = torch.finfo(torch.float64).eps
HALF_CIRCUMFERENCE_KM = math.pi * 6371.0088
ALL = pytest.mark.parametrize("reward", DISTANCE_FUNCTIONS)


def km(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("distance_km", "expected"),
    # Pieces through (0, 1), (750, 0.5), (2500, 0.2), (20000, 0); between them the middle of a piece
    [(0, 1), (375, 0.75), (750, 0.5), (1625, 0.35), (2500, 0.2), (11250, 0.1), (20000, 0)],
)
def test_geor_as_printed_is_that_computed_by_hand(distance_km: float, expected: float) -> None:
    assert float(geor_paper(km(distance_km))) == pytest.approx(expected, abs=4 * EPS)


@pytest.mark.parametrize(
    ("distance_km", "expected"),
    [(0, 1), (375, 0.75), (750, 0.5), (1875, 0.35), (3000, 0.2), (11500, 0.1), (20000, 0)],
)
def test_geor_as_in_its_repository_is_that_computed_by_hand(distance_km: float, expected: float) -> None:
    assert float(geor_code(km(distance_km))) == pytest.approx(expected, abs=4 * EPS)


@pytest.mark.parametrize(
    ("distance_km", "expected"),
    [(0, 1), (1, 0.864), (25, 0.642), (100, 0.492), (200, 0.411), (750, 0.226), (2500, 0.081), (5000, 0.027)],
)
def test_multiscale_is_that_computed_by_hand(distance_km: float, expected: float) -> None:
    assert float(multiscale(km(distance_km))) == pytest.approx(expected, abs=0.0005)


def test_multiscale_is_the_mean_of_five_exponentials() -> None:
    expected = sum(math.exp(-100 / scale) for scale in (1, 25, 200, 750, 2500)) / 5
    assert float(multiscale(km(100.0))) == pytest.approx(expected, abs=4 * EPS)


@ALL
@settings(deadline=None)
@given(distances=st.lists(st.floats(0, HALF_CIRCUMFERENCE_KM), min_size=2, max_size=20))
def test_a_reward_falls_with_distance_and_stays_between_0_and_1(reward, distances: list[float]) -> None:  # type: ignore[no-untyped-def]
    values = reward(km(*sorted(distances)))
    # Pieces meet, and exponentials add up, to within their rounding.
    assert (values.diff() <= 8 * EPS).all()
    assert ((values >= 0) & (values <= 1)).all()


@pytest.mark.parametrize("reward", [multiscale, geor_paper, geor_code, geoscore, gre, logarithmic])
def test_a_reward_falls_strictly_where_answers_differ(reward) -> None:  # type: ignore[no-untyped-def]
    assert (reward(torch.arange(0, 20000, 25, dtype=torch.float64)).diff() < 0).all()


@ALL
def test_the_antipode_earns_no_less_than_0(reward) -> None:  # type: ignore[no-untyped-def]
    assert 0 <= float(reward(km(HALF_CIRCUMFERENCE_KM))) < 1e-4


@ALL
def test_no_coordinates_earn_0(reward) -> None:  # type: ignore[no-untyped-def]
    values = reward(km(math.nan, 0.0, math.nan))
    assert values.tolist() == [0.0, 1.0, 0.0]


@ALL
def test_any_shape_is_scored_element_by_element(reward) -> None:  # type: ignore[no-untyped-def]
    distances = torch.tensor([[0.5, 30.0, math.nan], [900.0, 4000.0, 20010.0]], dtype=torch.float64)
    assert reward(distances).tolist() == [[float(reward(d[None])) for d in row] for row in distances]


TABLE_KM = (1, 25, 100, 200, 750, 2500, 5000)


@pytest.mark.parametrize(
    ("reward", "expected", "digits"),
    # As the project's survey prints them, but for two last digits that it rounds the wrong way: exp(-0.125) = 0.8825-
    # and 1 - ln(201) / ln(20016) = 0.4645+
    [
        (geor_paper, (0.9993, 0.9833, 0.933, 0.867, 0.500, 0.200, 0.171), 3),
        (geor_code, (0.9993, 0.9833, 0.933, 0.867, 0.500, 0.267, 0.176), 3),
        (geoagent, (0.995, 0.882, 0.607, 0.368, 0.024, 0.0, 0.0), 3),
        (geoscore, (0.9993, 0.983, 0.935, 0.875, 0.605, 0.187, 0.035), 3),
        (gre, (0.9975, 0.938, 0.755, 0.538, 0.046, 0.0, 0.0), 3),
        (twm, (0.80, 0.20, 0.20, 0.10, 0.0, 0.0, 0.0), 3),
        (thresholds, (1.0, 0.8, 0.6, 0.6, 0.4, 0.2, 0.0), 3),
        (logarithmic, (0.930, 0.671, 0.534, 0.465, 0.331, 0.210, 0.140), 3),
        (multiscale, (0.864, 0.642, 0.492, 0.411, 0.226, 0.081, 0.027), 3),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rewards_have_the_values_of_the_survey(reward: object, expected: tuple, digits: int) -> None:
    assert reward(km(*TABLE_KM)).tolist() == pytest.approx(expected, abs=0.5 * 10**-digits + 1e-9)


@pytest.mark.parametrize(
    ("distance_km", "expected"), [(0.49, 1.0), (0.5, 0.8), (2, 0.6), (24.9, 0.4), (749, 0.1), (750, 0)]
)
def test_steps_of_thinking_with_map_are_open_at_their_end(distance_km: float, expected: float) -> None:
    assert float(twm(km(distance_km))) == expected


def test_geoagents_reward_ends_before_2000_km() -> None:
    km = torch.tensor([1999.999, 2000.0], dtype=torch.float64)
    assert geoagent(km).tolist() == [pytest.approx(math.exp(-10), rel=1e-4), 0.0]
