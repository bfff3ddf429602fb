"""Averages per country and continent of the truth, and macro averages, in which each of these counts the same.

Shapes: N images, G groups.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from geogrpo.metrics.continents import CONTINENT_OF
from geogrpo.metrics.intervals import Column, Estimate, Z
from geogrpo.metrics.scores import usable_points
from geogrpo.regions.index import RegionIndex


@dataclass(frozen=True)
class GroupMetrics:
    """One country or continent."""

    num_images: int
    values: dict[str, float]
    """Metric -> its mean over the group's images that count, and median_km; metrics that none counts in are absent."""


@dataclass(frozen=True)
class Grouping:
    """Which group each image is in."""

    labels: tuple[str, ...]
    """G names, sorted."""
    group: np.ndarray
    """(N,) intp into labels, -1 for an image in no group."""


def country_and_continent(true_latlon_deg: np.ndarray, index: RegionIndex) -> tuple[Grouping, Grouping]:
    """The groups of the truths: countries by code, or by name where the index has no code, and continents.

    Truths in no country are in no group; so are those whose country code is in no continent.
    """
    ids = index.lookup(usable_points(true_latlon_deg)).country
    is_used = np.zeros(len(index) + 1, dtype=bool)
    is_used[ids] = True
    used = np.flatnonzero(is_used[:-1])
    codes, names = index.codes(used), index.names(used)
    countries = [code or name for code, name in zip(codes, names, strict=True)]
    continents = [CONTINENT_OF.get(code) for code in codes]
    return _grouping(ids, used, countries, len(index)), _grouping(ids, used, continents, len(index))


def _grouping(ids: np.ndarray, used: np.ndarray, names: list, num_regions: int) -> Grouping:
    labels = tuple(sorted({name for name in names if name is not None}))
    number = {label: k for k, label in enumerate(labels)}
    # One more row at the end, for the id -1
    group_of = np.full(num_regions + 1, -1)
    group_of[used] = [number.get(name, -1) for name in names]
    return Grouping(labels, group_of[ids])


def group_metrics(
    columns: Mapping[str, Column], distance_km: np.ndarray, grouping: Grouping
) -> dict[str, GroupMetrics]:
    """Each group's number of images, means and median distance, in the order of the labels.

    Args:
        columns: metric -> values of the N images.
        distance_km: (N,) charged, no NaN.
    """
    num_groups = len(grouping.labels)
    values: list[dict[str, float]] = [{} for _ in range(num_groups)]
    for name, column in columns.items():
        count, mean, _ = _group_moments(column, grouping)
        for found, num_scored, value in zip(values, count.tolist(), mean.tolist(), strict=True):
            if num_scored:
                found[name] = value
    sizes = np.bincount(grouping.group + 1, minlength=num_groups + 1)[1:]
    order = np.argsort(grouping.group, kind="stable")
    ends = np.cumsum(sizes) + (len(order) - sizes.sum())
    for group, (size, end) in enumerate(zip(sizes.tolist(), ends.tolist(), strict=True)):
        values[group]["median_km"] = float(np.median(distance_km[order[end - size : end]]))
    rows = zip(grouping.labels, sizes.tolist(), values, strict=True)
    return {label: GroupMetrics(size, found) for label, size, found in rows}


def macro_estimates(columns: Mapping[str, Column], grouping: Grouping) -> dict[str, Estimate]:
    """The mean over groups of each group's mean, with a 95 % interval over images, the groups held fixed.

    The interval is that of the normal law with each group's own variance, as a bootstrap within groups has it. The
    variance of a group of one image is unknown: it gets that of all groups pooled.
    """
    result = {}
    for name, column in columns.items():
        count, mean, squares = _group_moments(column, grouping)
        has_images = count > 0
        if not has_images.any():
            continue
        count, mean, squares = count[has_images], mean[has_images], squares[has_images]
        spare = count - 1
        pooled = squares.sum() / spare.sum() if spare.sum() else 0.0
        variance = np.where(spare > 0, squares / np.maximum(spare, 1), pooled)
        half = Z * math.sqrt((variance / count).sum()) / len(count)
        value = float(mean.mean())
        low, high = float(column.scored().min()), float(column.scored().max())
        result[name] = Estimate(value, max(value - half, low), min(value + half, high))
    return result


def _group_moments(column: Column, grouping: Grouping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(G,) images that count, their mean (NaN for none), and the sum of squared distances from it."""
    group, num_groups = grouping.group, len(grouping.labels)
    counts_here = group >= 0 if column.is_scored is None else (group >= 0) & column.is_scored
    if counts_here.all():
        values = column.values
    else:
        group, values = group[counts_here], column.values[counts_here]
    values = values.astype(np.float64, copy=False)
    count = np.bincount(group, minlength=num_groups)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(group, weights=values, minlength=num_groups) / count
    squares = np.bincount(group, weights=(values - mean[group]) ** 2, minlength=num_groups)
    return count, mean, squares
