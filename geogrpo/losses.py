"""The policy-gradient objectives: per-token losses, summed by the trainer and divided by one token count.

Deviations from the papers, and why:
* GRPO (arXiv 2402.03300) averages each completion over its own length, then over completions. Here every completion
  token of the step counts the same (as in DAPO, arXiv 2503.14476): one count over all ranks and micro-batches makes
  the gradient independent of how the step was split, and short completions are not favoured.
* With one update per sample the old policy is the current one, so the ratio is 1 and clipping never acts; the old
  log-probs are then the current ones, detached, and cost no forward pass. Values differ from 0 only through the KL;
  gradients are the policy gradient.

Shapes: S scored tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from geogrpo.config import LossConfig


@dataclass(frozen=True)
class TokenLosses:
    """Per-token loss and what is logged about it, each (S,) float32."""

    loss: Tensor
    kl: Tensor
    """k3 estimate of KL(policy || reference), 0 without a reference."""
    is_clipped: Tensor
    """bool: the clipped branch was the smaller one."""


def k3_kl(policy_logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(r) - r - 1 with r = ref - policy: unbiased for KL(policy || reference), never negative.

    Source: J. Schulman, "Approximating KL Divergence", 2020.
    """
    log_ratio = ref_logprobs - policy_logprobs
    # expm1: near equality exp(r) - 1 would round away all of the value
    return log_ratio.expm1() - log_ratio


def grpo_loss(
    policy_logprobs: Tensor,
    old_logprobs: Tensor | None,
    ref_logprobs: Tensor | None,
    advantages: Tensor,
    config: LossConfig,
) -> TokenLosses:
    """-min(ratio * A, clip(ratio) * A) + beta * k3 per token.

    Args:
        policy_logprobs: (S,) with gradient.
        old_logprobs: (S,) of the policy that sampled, or None where that is the current policy.
        ref_logprobs: (S,) of the frozen reference, or None when beta is 0.
        advantages: (S,) the completion's advantage at each of its tokens.
    """
    old = policy_logprobs.detach() if old_logprobs is None else old_logprobs
    ratio = (policy_logprobs - old).exp()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    kl = torch.zeros_like(loss)
    if ref_logprobs is not None:
        kl = k3_kl(policy_logprobs, ref_logprobs)
        loss = loss + config.beta * kl
    return TokenLosses(loss, kl.detach(), (clipped * advantages < ratio * advantages).detach())


LossFunction = Callable[[Tensor, Tensor | None, Tensor | None, Tensor, LossConfig], TokenLosses]

LOSSES: dict[str, LossFunction] = {"grpo": grpo_loss}


def find_loss(name: str) -> LossFunction:
    """The loss called `name`, or a ValueError that lists the known ones."""
    if name not in LOSSES:
        raise ValueError(f"grpo.loss.name {name!r} is unknown. Known: {', '.join(LOSSES)}.")
    return LOSSES[name]
