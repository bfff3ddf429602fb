"""Rewards of a group -> advantages: how much better a completion did than its siblings.

Shapes: P prompts, G group.
"""

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to the standard deviation, as in TRL and the Geo-R code."""


def has_signal(rewards: Tensor) -> Tensor:
    """Whether the completions of a group earned different rewards: (P, G) -> (P,) bool.

    Compares the largest with the smallest exactly. A mean of equal fractions such as 0.9 is not 0.9 in floating
    point, so `reward - mean != 0` would see a signal where there is none.
    """
    if rewards.numel() == 0:
        return torch.zeros(len(rewards), dtype=torch.bool)
    return rewards.amax(-1) != rewards.amin(-1)


def group_advantages(rewards: Tensor, scale: str = "group") -> Tensor:
    """Reward minus the group's mean, divided by a standard deviation.

    Args:
        rewards: (P, G) float.
        scale: "group" divides by each group's own deviation (GRPO, arXiv 2402.03300); "batch" by the deviation of all
            P * G rewards (arXiv 2508.08221); "none" not at all (Dr. GRPO, arXiv 2503.20783).
    Returns:
        (P, G) float32; each row sums to 0, and a group of equal rewards is exactly 0.
    Raises:
        ValueError: on another shape, an unknown scale, or a reward that is not finite.
    """
    if rewards.ndim != 2:
        raise ValueError(f"rewards must be (P, G), got {tuple(rewards.shape)}.")
    if not rewards.isfinite().all():
        raise ValueError("rewards must be finite; a completion that cannot be scored earns 0.")
    if scale not in ("group", "batch", "none"):
        raise ValueError(f"scale must be group, batch or none, got {scale!r}.")
    if rewards.numel() == 0:
        return rewards.float()
    exact = rewards.double()
    centered = exact - exact.mean(-1, keepdim=True)
    if scale == "group":
        centered = centered / (exact.std(-1, keepdim=True) + EPSILON)
    elif scale == "batch":
        centered = centered / (exact.std() + EPSILON)
    return torch.where(has_signal(rewards)[:, None], centered, 0.0).float()
