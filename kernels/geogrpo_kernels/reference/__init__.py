"""Plain PyTorch twin of every op: its definition, its CPU path, and what its kernel is tested against."""

from geogrpo_kernels.reference.distances import haversine_km
from geogrpo_kernels.reference.divergence import exact_kl_from_logits, kl_estimate
from geogrpo_kernels.reference.linear_divergence import linear_exact_kl
from geogrpo_kernels.reference.logprobs import token_logprobs, token_logprobs_from_logits
from geogrpo_kernels.reference.policy_loss import linear_grpo_loss

__all__ = [
    "exact_kl_from_logits",
    "haversine_km",
    "kl_estimate",
    "linear_exact_kl",
    "linear_grpo_loss",
    "token_logprobs",
    "token_logprobs_from_logits",
]
