"""Rewards of a group -> advantages: how much better a completion did than its siblings.

Shapes: P prompts, G group, K rewards.
"""

import torch
from geogrpo_kernels import group_advantages, has_signal
from geogrpo_kernels.reference.distances import EPSILON
from torch import Tensor


def decoupled_advantages(rewards: Tensor, weights: Tensor, scale: str = "group") -> Tensor:
    """Weighted sum of each reward's own group advantages, divided by its standard deviation over the step.

    So a reward with a small spread counts as much as its weight says, and two rewards that cancel in the sum still
    give a signal. A group in which no reward differs has advantage 0, exactly.

    Args:
        rewards: (K, P, G) float.
        weights: (K,).
        scale: of each reward's advantages, as in group_advantages.
    Returns:
        (P, G) float32, as group_advantages returns them.
    Source: GDPO, arXiv 2601.05242. It also subtracts the mean over the step, which is 0 here to rounding.
    """
    each = torch.stack([group_advantages(values, scale) for values in rewards])
    total = (weights.to(each)[:, None, None] * each).sum(0)
    # Without groups, or with one completion in all, there is no deviation.
    return total if total.numel() < 2 else total / (total.std() + EPSILON)


__all__ = ["EPSILON", "decoupled_advantages", "group_advantages", "has_signal"]
