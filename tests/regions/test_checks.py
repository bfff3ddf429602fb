"""Layers and places made by hand: what native code could not take is refused, by field and row."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from regions.samples import box, layer, places_at

LAYER = layer("country", a=box(0, 0, 1, 1), b=[box(2, 2, 3, 3), box(4, 4, 5, 5)])
PLACES = places_at((0, 0), (1, 1), (2, 2))


def changed(array: np.ndarray, row: Any, value: float) -> np.ndarray:
    copy = array.copy()
    copy[row] = value
    return copy


def vertices(row: Any, value: float) -> dict[str, np.ndarray]:
    return {"vertices_latlon_deg": changed(LAYER.vertices_latlon_deg, row, value)}


BAD_LAYERS: dict[str, tuple[dict[str, Any], str]] = {
    "latitude": (vertices((7, 0), 200), r"vertices_latlon_deg .* within \+-90 .* got \(200.0, .* in row 7"),
    "longitude": (vertices((7, 1), -180.5), r"vertices_latlon_deg .*-180.5\) in row 7"),
    "nan": (vertices((3, 1), np.nan), r"vertices_latlon_deg .*nan\) in row 3"),
    "infinity": (vertices((3, 0), np.inf), r"vertices_latlon_deg .*\(inf, .* in row 3"),
    "open ring": (vertices((9, 0), 2.5), "vertices_latlon_deg: ring 1 must end where it begins"),
    "list of vertices": ({"vertices_latlon_deg": [[0, 0]]}, r"vertices_latlon_deg must be an \(N, 2\) array, got list"),
    "columns": ({"vertices_latlon_deg": np.zeros((15, 3))}, r"vertices_latlon_deg must be .* got \(15, 3\)"),
    "text": ({"vertices_latlon_deg": np.full((15, 2), "1")}, "vertices_latlon_deg must be numbers, got <U1"),
    "region": ({"ring_region": np.array([0, 1, 2])}, "ring_region must be from 0 to 1, got 2 in row 2"),
    "negative region": ({"ring_region": np.array([0, -1, 1])}, "ring_region must be from 0 to 1, got -1 in row 1"),
    "fraction": ({"ring_region": np.array([0, 1.0, 1])}, r"ring_region must be an \(N,\) array of .* got float64"),
    "offset": ({"ring_offset": np.array([0, 5, 10, 99])}, "ring_offset must be from 0 to 15, got 99 in row 3"),
    "end": ({"ring_offset": np.array([0, 5, 10, 14])}, "ring_offset must be 4 offsets from 0 to 15"),
    "order": ({"ring_offset": np.array([0, 10, 5, 15])}, "ring_offset: ring 1 must have 4 vertices or more"),
    "rings": ({"ring_offset": np.array([0, 5, 15])}, "ring_offset must be 4 offsets .* got 3"),
    "names": ({"name": ["a"]}, "name must have 2 rows, got 1"),
    "no text": ({"code": ["a", None]}, "code must be text, got NoneType in row 1"),
    "half a pair": ({"name": ["a", "\ud800"]}, "name must be valid Unicode: surrogates not allowed"),
    "parent": ({"parent_key": [None, 5]}, "parent_key must be text, got int in row 1"),
    "keys": ({"key": ["a", "a"]}, "key must be unique, got 'a' again in row 1"),
    "level": ({"level": "planet"}, "level must be one of country, state, county, city, got 'planet'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_LAYERS)
def test_a_layer_that_does_not_fit_is_refused_by_field_and_row(what: str) -> None:
    fields, message = BAD_LAYERS[what]
    with pytest.raises(ValueError, match=f"layer test: {message}"):
        replace(LAYER, **fields)


BAD_PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "latitude": ({"latlon_deg": changed(PLACES.latlon_deg, (1, 0), -90.1)}, r"latlon_deg .*-90.1, 1.0\) in row 1"),
    "longitude": ({"latlon_deg": changed(PLACES.latlon_deg, (2, 1), 181)}, r"latlon_deg .*181.0\) in row 2"),
    "nan": ({"latlon_deg": changed(PLACES.latlon_deg, 0, np.nan)}, r"latlon_deg .*nan.* in row 0"),
    "rows": ({"latlon_deg": np.zeros((2, 2))}, "population must have 2 rows, got 3"),
    "population": ({"population": np.zeros(3)}, r"population must be an \(N,\) array of integers, got float64"),
    "people": ({"population": np.array([0, -5, 0])}, "population must be from 0 to .* got -5 in row 1"),
    "city": ({"city": ["a", "b"]}, "city must have 3 rows, got 2"),
    "no city": ({"city": ["a", "b", None]}, "city must be text, got NoneType in row 2"),
    "state": ({"state": [None, 5, None]}, "state must be text, got int in row 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_PLACES)
def test_places_that_do_not_fit_are_refused_by_field_and_row(what: str) -> None:
    fields, message = BAD_PLACES[what]
    with pytest.raises(ValueError, match=f"places: {message}"):
        replace(PLACES, **fields)


@pytest.mark.parametrize("make", [lambda: replace(LAYER), lambda: replace(PLACES), places_at])
def test_what_fits_is_accepted(make: Callable[[], object]) -> None:
    assert make() is not None
