"""Numerical ops of geogrpo that are useful alone: Triton kernels on a GPU, plain PyTorch on a CPU."""

from geogrpo_kernels.distances import group_distance_rewards, haversine_km
from geogrpo_kernels.divergence import exact_kl_from_logits, kl_estimate, sampled_kl_from_logits
from geogrpo_kernels.linear_divergence import linear_exact_kl
from geogrpo_kernels.logprobs import token_logprobs, token_logprobs_from_logits
from geogrpo_kernels.objective import PolicyLoss, PolicyObjective, token_weights
from geogrpo_kernels.policy_loss import linear_grpo_loss
from geogrpo_kernels.reference.distances import (
    DISTANCE_REWARDS,
    EARTH_RADIUS_KM,
    DistanceReward,
    GroupDistanceRewards,
    distance_reward,
    group_advantages,
    has_signal,
)

__all__ = [
    "DISTANCE_REWARDS",
    "EARTH_RADIUS_KM",
    "DistanceReward",
    "GroupDistanceRewards",
    "PolicyLoss",
    "PolicyObjective",
    "distance_reward",
    "exact_kl_from_logits",
    "group_advantages",
    "group_distance_rewards",
    "has_signal",
    "haversine_km",
    "kl_estimate",
    "linear_exact_kl",
    "linear_grpo_loss",
    "sampled_kl_from_logits",
    "token_logprobs",
    "token_logprobs_from_logits",
    "token_weights",
]
