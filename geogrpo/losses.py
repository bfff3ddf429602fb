"""The policy-gradient objectives, as what the one-pass kernel minimises: one function each.

Deviations from the papers, and why:
* GRPO (arXiv 2402.03300) averages each completion over its own length, then over completions. Here every completion
  token of the step counts the same (as in DAPO, arXiv 2503.14476): one count over all ranks and micro-batches makes
  the gradient independent of how the step was split, and short completions are not favoured.
* With one update per sample the old policy is the current one, so the ratio is 1 and clipping never acts; the old
  log-probs are then the current ones and cost no forward pass. Values differ from 0 only through the KL; gradients are
  the policy gradient.

Shapes: S scored tokens.
"""

from collections.abc import Callable

from geogrpo_kernels import PolicyObjective
from torch import Tensor

from geogrpo.config import LossConfig

LossFunction = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, LossConfig], PolicyObjective]


def grpo_loss(
    advantages: Tensor,
    token_weights: Tensor,
    old_logprobs: Tensor | None,
    ref_logprobs: Tensor | None,
    config: LossConfig,
) -> PolicyObjective:
    """-min(ratio * A, clip(ratio) * A) + beta * k3 per token.

    Args:
        advantages: (S,) the completion's advantage at each of its tokens.
        token_weights: (S,) 1 / the token count that divides the loss.
        old_logprobs: (S,) of the policy that sampled, or None where that is the current policy.
        ref_logprobs: (S,) of the frozen reference; needed when beta is above 0.
    """
    return PolicyObjective(
        advantages=advantages,
        token_weights=token_weights,
        old_logprobs=old_logprobs,
        ref_logprobs=ref_logprobs,
        surrogate="clip",
        clip_low=0.2 if config.clip_low is None else config.clip_low,
        clip_high=0.2 if config.clip_high is None else config.clip_high,
        beta=config.beta,
    )


LOSSES: dict[str, LossFunction] = {"grpo": grpo_loss, "dapo": grpo_loss}


def find_loss(name: str) -> LossFunction:
    """The loss called `name`, or a ValueError that lists the known ones."""
    if name not in LOSSES:
        raise ValueError(f"grpo.loss.name {name!r} is unknown. Known: {', '.join(LOSSES)}.")
    return LOSSES[name]
