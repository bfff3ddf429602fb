"""Answering only when sure: risk against coverage, and a coarser answer when unsure.

Shapes: N images, L levels, from the coarsest to the finest.
"""

import math
from dataclasses import dataclass

import numpy as np

MAX_THRESHOLDS = 1000


@dataclass(frozen=True)
class RiskCoverage:
    """What it costs to answer the images one is surest of."""

    coverage: np.ndarray
    """(N,) 1/N, 2/N, ..., 1: share of the images that are answered."""
    risk: np.ndarray
    """(N,) mean loss over those."""
    threshold: np.ndarray
    """(N,) the least confidence among those."""

    @property
    def area(self) -> float:
        """AURC: mean risk over all coverages (Geifman et al., "Bias-reduced uncertainty estimation", 2019)."""
        return float(self.risk.mean())


def risk_coverage(confidence: np.ndarray, loss: np.ndarray) -> RiskCoverage:
    """The curve, the surest images first; images of equal confidence enter with their mean loss.

    Args:
        confidence: (N,) any real numbers, N > 0, higher for surer, such as minus a radius. NaN is the least sure.
        loss: (N,) what an answer costs: 1 for a wrong country, km, or any other number.
    """
    confidence, loss = np.asarray(confidence, dtype=np.float64), np.asarray(loss, dtype=np.float64)
    if confidence.ndim != 1 or confidence.shape != loss.shape or len(loss) == 0:
        raise ValueError(f"confidence and loss must both be (N,) with N > 0, got {confidence.shape} and {loss.shape}.")
    if not np.isfinite(loss).all():
        raise ValueError("loss must be finite: charge answers without coordinates (charged_km).")
    key = np.where(np.isnan(confidence), -np.inf, confidence)
    unique, group, count = np.unique(-key, return_inverse=True, return_counts=True)
    mean_loss = np.bincount(group, weights=loss) / count
    answered = np.arange(1, len(loss) + 1)
    risk = np.repeat(mean_loss, count).cumsum() / answered
    return RiskCoverage(answered / len(loss), risk, np.repeat(-unique, count))


@dataclass(frozen=True)
class BackOff:
    """A threshold for `backed_off_level`, and what it gave on the images it was chosen on."""

    threshold: float
    """inf where none reaches the target: nothing is answered."""
    accuracy: float
    """Of the answered images at the levels they were answered at; NaN where none was."""
    coverage: float
    """Share of the images answered at any level."""


def backed_off_level(confidence: np.ndarray, threshold: float) -> np.ndarray:
    """(N,) int64: the finest level whose confidence reaches the threshold, -1 where none does.

    Args:
        confidence: (N, L), as of level_confidence; NaN where there is no such level.
    """
    confidence = np.asarray(confidence, dtype=np.float64)
    if confidence.ndim != 2 or 0 in confidence.shape:
        raise ValueError(f"confidence must be (N, L) with N, L > 0, got {confidence.shape}.")
    reaches = confidence >= threshold
    finest = confidence.shape[1] - 1 - reaches[:, ::-1].argmax(axis=1)
    return np.where(reaches.any(axis=1), finest, -1)


def choose_back_off(confidence: np.ndarray, is_right: np.ndarray, target_accuracy: float) -> BackOff:
    """The least threshold at which the answered images reach a target accuracy: the finest answers that do.

    The target holds on these images; on others it holds about as well as they are alike and many. With more than
    MAX_THRESHOLDS different confidences as many quantiles of them are tried.

    Args:
        confidence: (N, L) of a held-out split.
        is_right: (N, L) bool, whether the answer is right at each level.
        target_accuracy: in [0, 1].
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(is_right, dtype=bool)
    if confidence.shape != right.shape:
        raise ValueError(f"confidence and is_right must both be (N, L), got {confidence.shape} and {right.shape}.")
    if not 0 <= target_accuracy <= 1:
        raise ValueError(f"target_accuracy must be in [0, 1], got {target_accuracy}.")
    thresholds = np.unique(confidence[~np.isnan(confidence)])
    if len(thresholds) > MAX_THRESHOLDS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, MAX_THRESHOLDS).round().astype(np.int64)]
    for threshold in thresholds.tolist():
        level = backed_off_level(confidence, threshold)
        answered = np.flatnonzero(level >= 0)
        accuracy = float(right[answered, level[answered]].mean())
        if accuracy >= target_accuracy:
            return BackOff(threshold, accuracy, len(answered) / len(level))
    return BackOff(math.inf, math.nan, 0.0)
