"""95 % intervals: the plain bootstrap, the same one for many metrics at once, and its limit for many images.

Up to MAX_BOOTSTRAP_IMAGES, `mean_estimates` and `median_estimate` draw the very resamples of `bootstrap`, as counts of
how often each image was drawn: means of all metrics are one matrix product, medians a cumulative sum in sorted order.
Above, the bootstrap's own limit is taken: the normal law for means, and for the median the order statistics between
which the bootstrap's median falls.

Shapes: N images, B resamples, M metrics.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

STATISTICS: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "median": np.median}
PERCENTILES = (2.5, 97.5)
Z = NormalDist().inv_cdf(0.975)
MAX_BOOTSTRAP_IMAGES = 20_000
"""Evaluating so many with 2,000 resamples takes 0.7 s on one core."""
BLOCK_COUNTS = 1 << 21
"""Counts in memory at once: 16 MiB."""


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Column:
    """A metric of each image, whose mean is reported."""

    values: np.ndarray
    """(N,) bool or float64."""
    is_scored: np.ndarray | None = None
    """(N,) bool: which images count, as where the truth has a county; None for all. The others' values are ignored."""

    @property
    def num_scored(self) -> int:
        """How many images count."""
        return len(self.values) if self.is_scored is None else int(self.is_scored.sum())

    def scored(self) -> np.ndarray:
        """(num_scored,) float64."""
        values = self.values if self.is_scored is None else self.values[self.is_scored]
        return values.astype(np.float64, copy=False)

    def filled(self) -> np.ndarray:
        """(N,) float64, 0 where an image does not count."""
        return (self.values if self.is_scored is None else np.where(self.is_scored, self.values, 0)).astype(np.float64)

    def weights(self) -> np.ndarray:
        """(N,) float64, 1 where an image counts, else 0."""
        return np.ones(len(self.values)) if self.is_scored is None else self.is_scored.astype(np.float64)


def bootstrap(values: np.ndarray, *, num_samples: int, seed: int = 0, statistic: str = "mean") -> Estimate:
    """Percentile bootstrap over images.

    Args:
        values: (N,) one number per image, N > 0.
        num_samples: resamples, at least 1.
        statistic: a key of STATISTICS.
    """
    check_values(values)
    check_num_samples(num_samples)
    if statistic not in STATISTICS:
        raise ValueError(f"statistic must be one of {', '.join(STATISTICS)}, got {statistic!r}.")
    compute = STATISTICS[statistic]
    rng = np.random.default_rng(seed)
    draws = np.empty(num_samples)
    for i in range(num_samples):
        draws[i] = compute(values[rng.integers(0, len(values), len(values))])
    low, high = np.percentile(draws, PERCENTILES)
    return Estimate(float(compute(values)), float(low), float(high))


def paired_difference(before: np.ndarray, after: np.ndarray, *, num_samples: int, seed: int = 0) -> Estimate:
    """Mean of after - before on the same images, with its 95 % bootstrap interval."""
    if before.shape != after.shape:
        raise ValueError(f"before and after must be the same images, got {before.shape} and {after.shape}.")
    return bootstrap(after - before, num_samples=num_samples, seed=seed)


def mean_estimates(columns: Mapping[str, Column], *, num_samples: int, seed: int = 0) -> dict[str, Estimate]:
    """The mean of each metric over the images that count, with its interval; metrics that no image counts in are
    left out.

    Args:
        columns: name -> metric, all of the same images.
        num_samples: resamples; not used above MAX_BOOTSTRAP_IMAGES.
    """
    check_num_samples(num_samples)
    kept = {name: column for name, column in columns.items() if column.num_scored}
    sizes = {len(column.values) for column in kept.values()}
    if len(sizes) > 1:
        raise ValueError(f"columns must be of the same images, got {sorted(sizes)}.")
    if not kept:
        return {}
    if sizes.pop() > MAX_BOOTSTRAP_IMAGES:
        return {name: _normal_estimate(column.scored()) for name, column in kept.items()}
    draws = bootstrap_means(list(kept.values()), num_samples=num_samples, seed=seed)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(draws, PERCENTILES, axis=0)
    values = (float(column.scored().mean()) for column in kept.values())
    return {
        name: Estimate(value, float(a), float(b)) for name, value, a, b in zip(kept, values, low, high, strict=True)
    }


def bootstrap_means(columns: list[Column], *, num_samples: int, seed: int) -> np.ndarray:
    """(num_samples, M) the mean of each column in each resample, NaN where a resample holds no image that counts."""
    sums = np.stack([column.filled() for column in columns], axis=1)
    weights = np.stack([column.weights() for column in columns], axis=1)
    all_count = bool(weights.all())
    draws = []
    for counts in resample_counts(len(sums), num_samples, seed):
        total = len(sums) if all_count else counts @ weights
        with np.errstate(invalid="ignore"):
            draws.append((counts @ sums) / total)
    return np.concatenate(draws)


def resample_counts(num_images: int, num_samples: int, seed: int) -> Iterator[np.ndarray]:
    """(B, N) float64 blocks: how often each image is in each of `bootstrap`'s resamples, in its order."""
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_COUNTS // num_images)
    for start in range(0, num_samples, block):
        counts = np.empty((min(block, num_samples - start), num_images))
        for row in counts:
            row[:] = np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)
        yield counts


def median_estimate(values: np.ndarray, *, num_samples: int, seed: int = 0) -> Estimate:
    """The median and its interval.

    Args:
        values: (N,) float, N > 0, no NaN.
        num_samples: resamples; not used above MAX_BOOTSTRAP_IMAGES.
    """
    check_values(values)
    check_num_samples(num_samples)
    if len(values) > MAX_BOOTSTRAP_IMAGES:
        return _order_statistic_estimate(values)
    order = np.argsort(values, kind="stable")
    draws = [
        counted_median(values[order], counts[:, order]) for counts in resample_counts(len(values), num_samples, seed)
    ]
    low, high = np.percentile(np.concatenate(draws), PERCENTILES)
    return Estimate(float(np.median(values)), float(low), float(high))


def counted_median(sorted_values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(B,) medians of N draws.

    Args:
        sorted_values: (N,) rising.
        counts: (B, N) how often each value was drawn; each row sums to N.
    """
    num_images = len(sorted_values)
    cumulative = counts.cumsum(axis=1)
    lower = (cumulative >= (num_images + 1) // 2).argmax(axis=1)
    upper = (cumulative >= num_images // 2 + 1).argmax(axis=1)
    # Halves first would round differently from np.median
    return (sorted_values[lower] + sorted_values[upper]) / 2


def _normal_estimate(values: np.ndarray) -> Estimate:
    mean, half = float(values.mean()), Z * float(values.std()) / math.sqrt(len(values))
    # No resample's mean lies outside the values.
    return Estimate(mean, max(mean - half, float(values.min())), min(mean + half, float(values.max())))


def _order_statistic_estimate(values: np.ndarray) -> Estimate:
    """A resample's median is at most the k-th value where at least half of its draws are, and these are binomial."""
    num_images = len(values)
    half = Z * math.sqrt(num_images) / 2
    low = max(math.floor(num_images / 2 - half), 0)
    high = min(math.ceil(num_images / 2 + half), num_images - 1)
    middle = ((num_images - 1) // 2, num_images // 2)
    ranked = np.partition(values, sorted({low, high, *middle}))
    return Estimate(float(ranked[list(middle)].mean()), float(ranked[low]), float(ranked[high]))


def check_values(values: np.ndarray) -> None:
    """Raise ValueError unless these are (N,) with N > 0."""
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be (N,) with N > 0, got {values.shape}.")


def check_num_samples(num_samples: int) -> None:
    """Raise ValueError unless there is at least one."""
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
