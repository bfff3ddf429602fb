"""Rewards of a step -> advantages: how much better a completion did than what it is compared with.

Shapes: P prompts, G group, K rewards.
"""

import torch
from geogrpo_kernels import group_advantages, has_signal
from geogrpo_kernels.reference.distances import EPSILON
from torch import Tensor

BASELINES = ("group", "leave_one_out", "batch")


def advantages_of(rewards: Tensor, scale: str = "group", baseline: str = "group") -> Tensor:
    """Reward minus a baseline, divided by a standard deviation; in float64, where the rewards are.

    Args:
        rewards: (P, G) float, of all ranks where baseline or scale is "batch".
        scale: "group", "batch" or "none", as in geogrpo_kernels.group_advantages.
        baseline: "group", the mean of the group (GRPO, arXiv 2402.03300); "leave_one_out", the mean of the group's
            others, an unbiased one (RLOO, arXiv 2402.14740); "batch", the mean of all rewards (REINFORCE++, arXiv
            2501.03262).
    Returns:
        (P, G) float32. Exactly 0 where all that is compared is equal: a group of equal rewards, or a batch of them.
    Raises:
        ValueError: as geogrpo_kernels.group_advantages, and on an unknown baseline.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, got {baseline!r}.")
    if baseline == "group":
        return group_advantages(rewards, scale)
    if baseline == "leave_one_out":
        # r - mean of the others = (r - mean) * G / (G - 1)
        group_size = rewards.shape[-1]
        return group_advantages(rewards, scale) * (group_size / max(1, group_size - 1))
    # One group of everything; a deviation of each group has no place in it.
    return group_advantages(rewards.reshape(1, -1), scale).view(rewards.shape)


def decoupled_advantages(rewards: Tensor, weights: Tensor, scale: str = "group", baseline: str = "group") -> Tensor:
    """Weighted sum of each reward's own advantages, divided by its standard deviation over the step.

    So a reward with a small spread counts as much as its weight says, and two rewards that cancel in the sum still
    give a signal. A group in which no reward differs has advantage 0, exactly.

    Args:
        rewards: (K, P, G) float.
        weights: (K,).
        scale, baseline: of each reward's advantages, as in advantages_of.
    Returns:
        (P, G) float32, as advantages_of returns them.
    Source: GDPO, arXiv 2601.05242. It also subtracts the mean over the step, which is 0 here to rounding.
    """
    each = torch.stack([advantages_of(values, scale, baseline) for values in rewards])
    total = (weights.to(each)[:, None, None] * each).sum(0)
    # Without groups, or with one completion in all, there is no deviation.
    return total if total.numel() < 2 else total / (total.std() + EPSILON)


__all__ = ["BASELINES", "EPSILON", "advantages_of", "decoupled_advantages", "group_advantages", "has_signal"]
