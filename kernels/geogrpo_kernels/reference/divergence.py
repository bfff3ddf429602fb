"""Plain PyTorch KL divergences: the CPU path, and what the Triton kernels are tested against.

Shapes: T tokens, V vocabulary, R rows of a chunk.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geogrpo_kernels.checks import check_logits, check_same_logits, check_temperature
from geogrpo_kernels.objective import KL_ESTIMATORS, estimated_kl
from geogrpo_kernels.reference.logprobs import compute_dtype, row_chunks
from geogrpo_kernels.reference.products import row_dot


def kl_estimate(policy_logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """Estimate of KL(policy || reference) from the log-probs of tokens that the policy sampled.

    With r = ref - policy: k1 = -r, unbiased, negative at times, and its gradient has mean 0; k2 = r**2 / 2, biased,
    and its gradient is that of the KL; k3 = exp(r) - 1 - r, unbiased and never negative.

    Args:
        policy_logprobs: any shape, nats.
        ref_logprobs: the same shape, nats, at the same temperature.
        estimator: "k1", "k2" or "k3".
    Returns:
        The inputs' shape, nats, differentiable in both.
    Raises:
        ValueError: on shapes that differ or an unknown estimator.
    Source: J. Schulman, "Approximating KL Divergence", 2020.
    """
    if policy_logprobs.shape != ref_logprobs.shape:
        shapes = f"{tuple(policy_logprobs.shape)} and {tuple(ref_logprobs.shape)}"
        raise ValueError(f"policy_logprobs and ref_logprobs must have one shape, got {shapes}.")
    if estimator not in KL_ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(KL_ESTIMATORS)}, got {estimator!r}.")
    return estimated_kl(ref_logprobs - policy_logprobs, estimator)


def exact_kl_from_logits(logits: Tensor, ref_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Definition of geogrpo_kernels.exact_kl_from_logits, which documents it."""
    check_logits(logits)
    check_same_logits(logits, ref_logits)
    check_temperature(temperature)
    return ExactKL.apply(logits, ref_logits.detach(), 1.0 / temperature)


class ExactKL(torch.autograd.Function):
    """Row by row; keeps both matrices of the caller and one number per row."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ref_logits: Tensor, inv_temperature: float) -> Tensor:
        kl = logits.new_empty(len(logits), dtype=compute_dtype(logits))
        for rows in row_chunks(*logits.shape):
            probs, log_ratio = probs_and_log_ratio(logits[rows], ref_logits[rows], inv_temperature)
            kl[rows] = row_dot(probs, log_ratio)
        ctx.save_for_backward(logits, ref_logits, kl)
        ctx.inv_temperature = inv_temperature
        return kl

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_kl: Tensor) -> tuple[Tensor | None, ...]:
        logits, ref_logits, kl = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for rows in row_chunks(*logits.shape):
            pair = probs_and_log_ratio(logits[rows], ref_logits[rows], ctx.inv_temperature)
            grad[rows] = logit_gradient(*pair, kl[rows], grad_kl[rows], ctx.inv_temperature).to(grad.dtype)
        return grad, None, None


def probs_and_log_ratio(logits: Tensor, ref_logits: Tensor, inv_temperature: float) -> tuple[Tensor, Tensor]:
    """p and log(p / q), 0 where p is 0, both (R, V)."""
    dtype = compute_dtype(logits)
    logprobs, ref_logprobs = ((values.to(dtype) * inv_temperature).log_softmax(-1) for values in (logits, ref_logits))
    probs = logprobs.exp()
    return probs, (logprobs - ref_logprobs).masked_fill_(probs == 0, 0.0)


def logit_gradient(probs: Tensor, log_ratio: Tensor, kl: Tensor, grad_kl: Tensor, inv_temperature: float) -> Tensor:
    """(R, V) from what probs_and_log_ratio gives, overwritten, (R,) KL and its (R,) upstream gradient.

    d KL / d logits = p (log(p / q) - KL) / temperature
    """
    scaled = log_ratio.sub_(kl[:, None]).mul_((grad_kl * inv_temperature)[:, None])
    # Exactly 0 without an upstream gradient, whatever the logits are
    return probs.mul_(scaled).masked_fill_((grad_kl == 0)[:, None], 0.0)
