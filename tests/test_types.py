"""What an example refuses, and where the first completion token stands."""

import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from geogrpo.types import EncodedPrompt, Example, check_latlon


@given(lat=st.floats(-90, 90), lon=st.floats(-180, 180))
@example(lat=90.0, lon=180.0)
@example(lat=-90.0, lon=-180.0)
def test_every_point_on_earth_is_accepted(lat: float, lon: float) -> None:
    assert Example("x", "x.jpg", (lat, lon)).latlon_deg == (lat, lon)


@given(lat=st.floats().filter(lambda x: not -90 <= x <= 90), lon=st.floats(-180, 180))
@example(lat=math.nan, lon=0.0)
@example(lat=math.nextafter(90, 91), lon=0.0)
def test_every_other_latitude_is_rejected(lat: float, lon: float) -> None:
    with pytest.raises(ValueError, match=r"example 'x': latitude must be a number in \[-90, 90\], got "):
        Example("x", "x.jpg", (lat, lon))


@given(lat=st.floats(-90, 90), lon=st.floats().filter(lambda x: not -180 <= x <= 180))
@example(lat=0.0, lon=math.nan)
@example(lat=0.0, lon=math.nextafter(-180, -181))
def test_every_other_longitude_is_rejected(lat: float, lon: float) -> None:
    with pytest.raises(ValueError, match=r"example 'x': longitude must be a number in \[-180, 180\], got "):
        Example("x", "x.jpg", (lat, lon))


@pytest.mark.parametrize(
    ("latlon_deg", "is_swapped"),
    [
        ((142.6, 43.5), True),
        ((-180.0, 90.0), True),
        ((91.0, 91.0), False),
        ((181.0, 10.0), False),
        ((math.nan, 10.0), False),
        ((100.0, math.nan), False),
    ],
)
def test_swapped_coordinates_are_suspected_only_where_swapping_helps(
    latlon_deg: tuple[float, float], is_swapped: bool
) -> None:
    with pytest.raises(ValueError, match=rf"^here: latitude must be .*, got {latlon_deg[0]}\.") as error:
        check_latlon(latlon_deg, "here")
    assert str(error.value).endswith("Are latitude and longitude swapped?") == is_swapped


def test_an_example_cannot_be_changed() -> None:
    one = Example("x", "x.jpg", (1.0, 2.0))
    with pytest.raises(AttributeError, match="latlon_deg"):
        one.latlon_deg = (200.0, 0.0)  # type: ignore[misc]


def test_the_first_completion_token_stands_after_the_largest_position_of_any_axis() -> None:
    # Three axes: a picture of 1 x 2 x 5 patches between text; the width reaches farthest.
    positions = torch.tensor([[0, 1, 1, 1, 2], [0, 1, 2, 1, 2], [0, 1, 2, 5, 2]])
    empty = torch.zeros(0)
    prompt = EncodedPrompt(Example("x", "x.jpg", (0.0, 0.0)), empty, positions, empty, empty, question="")
    assert prompt.next_position == 6
