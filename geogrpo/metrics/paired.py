"""Two runs on the same images: the difference of each metric, its interval, and whether chance explains it.

Shapes: N images, B resamples or flips.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geogrpo.metrics.evaluate import Protocol, image_columns
from geogrpo.metrics.intervals import (
    BLOCK_COUNTS,
    MAX_BOOTSTRAP_IMAGES,
    PERCENTILES,
    Column,
    Z,
    check_num_samples,
    counted_median,
    mean_estimates,
    resample_counts,
)
from geogrpo.regions.index import RegionIndex


@dataclass(frozen=True)
class Answers:
    """One run's answers."""

    ids: Sequence[str]
    """N names of images."""
    latlon_deg: np.ndarray
    """(N, 2) degrees, NaN without coordinates."""


@dataclass(frozen=True)
class Difference:
    """A metric of two runs on the same images."""

    before: float
    after: float
    value: float
    """After minus before."""
    low: float
    """Of the 95 % interval of the value, images drawn in pairs."""
    high: float
    p_value: float
    """Two-sided, of the hypothesis that before and after are exchangeable on each image."""


def compare_runs(
    before: Answers,
    after: Answers,
    true_latlon_deg: np.ndarray,
    *,
    index: RegionIndex | None = None,
    osv_index: RegionIndex | None = None,
    osv_labels: Mapping[str, Sequence[Any]] | None = None,
    protocol: Protocol | None = None,
    num_samples: int = 2000,
    num_flips: int = 10_000,
    seed: int = 0,
) -> dict[str, Difference]:
    """The difference of every metric of evaluate_predictions.

    The p-value is that of the sign-flip test: the share of random exchanges of before and after, image by image, that
    differ at least as much, the observed one counted. Above MAX_BOOTSTRAP_IMAGES it is the normal law's, as are the
    intervals; the median's then come from its influence function.

    Args:
        before, after: the same ids in the same order.
        true_latlon_deg: (N, 2) degrees, in that order.
        index, osv_index, osv_labels, protocol: as for evaluate_predictions; without an index there are no metrics of
            regions.
        num_samples: bootstrap resamples.
        num_flips: random exchanges; the least p-value is 1 / (num_flips + 1).
    Raises:
        ValueError: when the two runs did not answer the same images.
    """
    check_num_samples(num_samples)
    if num_flips < 1:
        raise ValueError(f"num_flips must be at least 1, got {num_flips}.")
    _check_ids(before, after, len(true_latlon_deg))
    (first, first_km), (second, second_km) = (
        image_columns(
            answers.latlon_deg,
            true_latlon_deg,
            index=index,
            osv_index=osv_index,
            osv_labels=osv_labels,
            protocol=protocol,
        )
        for answers in (before, after)
    )
    changes = {
        name: Column(column.filled() - first[name].filled(), column.is_scored)
        for name, column in second.items()
        if column.num_scored
    }
    estimates = mean_estimates(changes, num_samples=num_samples, seed=seed)
    p_values = _mean_p_values(changes, num_flips, seed)
    result = {
        name: Difference(
            before=float(first[name].scored().mean()),
            after=float(second[name].scored().mean()),
            value=estimate.value,
            low=estimate.low,
            high=estimate.high,
            p_value=p_values[name],
        )
        for name, estimate in estimates.items()
    }
    result["median_km"] = _median_difference(first_km, second_km, num_samples, num_flips, seed)
    return result


def _check_ids(before: Answers, after: Answers, num_images: int) -> None:
    lengths = (len(before.ids), len(before.latlon_deg), len(after.ids), len(after.latlon_deg), num_images)
    if len(set(lengths)) != 1:
        raise ValueError(
            f"both runs must answer the same images, got {lengths[0]} ids with {lengths[1]} points before,"
            f" {lengths[2]} ids with {lengths[3]} points after, and {num_images} truths."
        )
    for position, (one, other) in enumerate(zip(before.ids, after.ids, strict=True)):
        if one != other:
            raise ValueError(
                f"both runs must answer the same images in the same order, got {one!r} before and {other!r} after at"
                f" position {position}."
            )


def _mean_p_values(changes: dict[str, Column], num_flips: int, seed: int) -> dict[str, float]:
    """Of the hypothesis that each image's change is as likely to be its negative."""
    if len(next(iter(changes.values())).values) > MAX_BOOTSTRAP_IMAGES:
        return {name: _normal_p_value(column.scored()) for name, column in changes.items()}
    values = np.stack([column.filled() for column in changes.values()], axis=1)
    observed = np.abs(values.sum(axis=0))
    # Sums in another order round otherwise: a tie must count as one.
    slack = 1e-12 * np.abs(values).sum(axis=0)
    num_as_far = np.zeros(values.shape[1])
    for is_flipped in _flips(len(values), num_flips, seed):
        sums = (1.0 - 2.0 * is_flipped) @ values
        num_as_far += (np.abs(sums) >= observed - slack).sum(axis=0)
    return dict(zip(changes, ((1 + num_as_far) / (1 + num_flips)).tolist(), strict=True))


def _normal_p_value(changes: np.ndarray) -> float:
    scale = math.sqrt(float((changes**2).sum()))
    return math.erfc(abs(float(changes.sum())) / (scale * math.sqrt(2))) if scale else 1.0


def _median_difference(
    before_km: np.ndarray, after_km: np.ndarray, num_samples: int, num_flips: int, seed: int
) -> Difference:
    before, after = float(np.median(before_km)), float(np.median(after_km))
    value = after - before
    if len(before_km) > MAX_BOOTSTRAP_IMAGES:
        deviation = (_median_influence(after_km) - _median_influence(before_km)).std() / math.sqrt(len(before_km))
        p_value = math.erfc(abs(value) / (deviation * math.sqrt(2))) if deviation else float(value == 0)
        return Difference(before, after, value, value - Z * deviation, value + Z * deviation, p_value)
    orders = [np.argsort(km, kind="stable") for km in (before_km, after_km)]
    draws = []
    for counts in resample_counts(len(before_km), num_samples, seed):
        first, second = (
            counted_median(km[order], counts[:, order]) for km, order in zip((before_km, after_km), orders, strict=True)
        )
        draws.append(second - first)
    low, high = np.percentile(np.concatenate(draws), PERCENTILES)
    num_as_far = 0
    for is_flipped in _flips(len(before_km), num_flips, seed):
        first = np.median(np.where(is_flipped, after_km, before_km), axis=1)
        second = np.median(np.where(is_flipped, before_km, after_km), axis=1)
        num_as_far += int((np.abs(second - first) >= abs(value) * (1 - 1e-12)).sum())
    return Difference(before, after, value, float(low), float(high), (1 + num_as_far) / (1 + num_flips))


def _median_influence(values: np.ndarray) -> np.ndarray:
    """(N,) how much each value moves the median, times N: sign / (2 density there).

    The density is that between the order statistics N^(-1/5) / 4 of the values away on either side (Siddiqui 1960).
    """
    num_images = len(values)
    reach = max(1, round(num_images**0.8 / 4))
    ranks = (num_images // 2 - reach, num_images // 2 + reach)
    below, above = np.partition(values, ranks)[list(ranks)]
    spacing = (above - below) * num_images / (2 * reach)
    return np.sign(values - np.median(values)) / 2 * spacing


def _flips(num_images: int, num_flips: int, seed: int) -> Iterator[np.ndarray]:
    """(B, N) bool blocks of fair coins, num_flips rows in all."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_COUNTS // num_images)
    num_bytes = -(-num_images // 8)
    for start in range(0, num_flips, block):
        rows = min(block, num_flips - start)
        packed = np.frombuffer(rng.bytes(rows * num_bytes), np.uint8).reshape(rows, num_bytes)
        yield np.unpackbits(packed, axis=1, count=num_images).astype(bool)
