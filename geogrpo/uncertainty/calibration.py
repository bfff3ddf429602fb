"""Whether a confidence of 70 % is right seven times in ten.

Shapes: N images, B bins.
"""

from dataclasses import dataclass

import numpy as np

BINNINGS = ("width", "mass")


@dataclass(frozen=True)
class Reliability:
    """The data of a reliability diagram, of the bins that hold an image."""

    low: np.ndarray
    """(B,) lower edge; for equal mass the bin's lowest confidence."""
    high: np.ndarray
    """(B,) upper edge; for equal mass the bin's highest confidence."""
    confidence: np.ndarray
    """(B,) mean confidence."""
    accuracy: np.ndarray
    """(B,) share that is right."""
    count: np.ndarray
    """(B,) int64 images."""

    @property
    def expected_calibration_error(self) -> float:
        """Mean distance between accuracy and confidence, each bin weighted by its images."""
        return float((self.count * np.abs(self.accuracy - self.confidence)).sum() / self.count.sum())


def reliability(
    confidence: np.ndarray, is_right: np.ndarray, *, num_bins: int = 10, binning: str = "width"
) -> Reliability:
    """Accuracy against confidence.

    Args:
        confidence: (N,) in [0, 1]; images of NaN (no such level) are left out.
        is_right: (N,) bool.
        num_bins: at least 1.
        binning: "width": [0, 1] in equal parts, the upper edge of each in it. "mass": as equal numbers of images as
            equal confidences allow, which stay together.
    Raises:
        ValueError: also when no image has a confidence.
    """
    confidence, right = check_confidence(confidence, is_right)
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}.")
    if binning not in BINNINGS:
        raise ValueError(f"binning must be one of {', '.join(BINNINGS)}, got {binning!r}.")
    if binning == "width":
        edges = np.linspace(0, 1, num_bins + 1)
        group = np.maximum(np.searchsorted(edges, confidence, side="left") - 1, 0)
    else:
        rank = np.searchsorted(np.sort(confidence), confidence, side="left")
        group = rank * num_bins // len(confidence)
    used, group, count = np.unique(group, return_inverse=True, return_counts=True)
    if binning == "width":
        low, high = edges[used], edges[used + 1]
    else:
        low, high = np.full(len(used), np.inf), np.full(len(used), -np.inf)
        np.minimum.at(low, group, confidence)
        np.maximum.at(high, group, confidence)
    return Reliability(
        low=low,
        high=high,
        confidence=np.bincount(group, weights=confidence) / count,
        accuracy=np.bincount(group, weights=right) / count,
        count=count.astype(np.int64),
    )


def expected_calibration_error(
    confidence: np.ndarray, is_right: np.ndarray, *, num_bins: int = 10, binning: str = "width"
) -> float:
    """Mean distance between accuracy and confidence over the bins; arguments as `reliability`.

    Never negative, and above 0 for a finite number of images even where the confidence is perfect.
    """
    return reliability(confidence, is_right, num_bins=num_bins, binning=binning).expected_calibration_error


def check_confidence(confidence: np.ndarray, is_right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 (M,) of the images that have a confidence, of which there must be one."""
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    if confidence.ndim != 1 or confidence.shape != right.shape:
        raise ValueError(f"confidence and is_right must both be (N,), got {confidence.shape} and {right.shape}.")
    has_confidence = ~np.isnan(confidence)
    confidence, right = confidence[has_confidence], right[has_confidence]
    if len(confidence) == 0:
        raise ValueError("no image has a confidence.")
    if confidence.min() < 0 or confidence.max() > 1:
        raise ValueError(f"confidence must be in [0, 1], got {confidence.min()} to {confidence.max()}.")
    return confidence, right
