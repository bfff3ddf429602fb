"""Distance rewards against tables computed by hand, and their laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geogrpo.rewards.distance import geor_code, geor_paper, multiscale

EPS = torch.finfo(torch.float64).eps
HALF_CIRCUMFERENCE_KM = math.pi * 6371.0088
ALL = pytest.mark.parametrize("reward", [multiscale, geor_paper, geor_code])


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


@ALL
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
