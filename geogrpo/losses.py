"""The GRPO family: one function per loss, which says what is minimised over the tokens of a row.

Deviations from the papers, and why:
* Every average is over the whole step: one count over all ranks and micro-batches, so that the gradient does not
  depend on how the step was split. `bnpo`, which TRL averages over the micro-batch at hand, is thereby a token mean.
* In a step's first update the ratio is 1 and clipping never acts; the old log-probs are then the current ones and cost
  no forward pass.
* The entropy bonus is averaged as the loss is; TRL always takes its mean over tokens.
* `rloo` and `reinforce++` are the objectives alone: what a reward is compared with is grpo.advantage_baseline.
* `gspo_token` and `gspo` have the same gradient unless the advantage differs within a completion.

Losses whose gradient at a token needs nothing of other tokens are PolicyObjectives, which the one-pass kernel
minimises; those of a completion's ratio are CompletionObjectives, which take token log-probs.

Shapes: S scored tokens, C completions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective, kl_estimate, linear_exact_kl, linear_grpo_loss, token_logprobs
from geogrpo_kernels.objective import MAX_LOG_RATIO
from torch import Tensor

from geogrpo.config import LossConfig

Average = Literal["token", "completion", "constant"]
"""How token losses become one number: geogrpo_kernels.token_weights has the formulas."""


@dataclass(frozen=True)
class LossInputs:
    """The tokens of a row, as the losses see them."""

    advantages: Tensor
    """(S,) of the completion that the token belongs to; 0 where the token gets no policy gradient."""
    token_weights: Tensor
    """(S,) 1 / denominator."""
    completion: Tensor
    """(S,) int64: which completion of the row the token belongs to, in order."""
    lengths: Tensor
    """(C,) int64 tokens of each completion, host."""
    old_logprobs: Tensor | None = None
    """(S,) of the policy that ratios compare with, or None where that is the current policy."""
    ref_logprobs: Tensor | None = None
    """(S,) of the reference, or None without a KL in the loss."""


@dataclass(frozen=True)
class CompletionObjective:
    """What is minimised where a token's ratio is its completion's: -min(ratio * A, clip(ratio) * A) and the same KL and
    entropy terms as a PolicyObjective.
    """

    inputs: LossInputs
    ratio: Literal["mean", "sum", "token"]
    """Of a completion, exp of the mean (GSPO) or the sum (RLOO) of its tokens' log-ratios; "token": the mean's value,
    the token's own gradient (GSPO-token)."""
    clip_low: float
    clip_high: float
    delta: float | None
    beta: float
    kl_estimator: str
    entropy_coef: float

    def loss(self, logprobs: Tensor, entropy: Tensor) -> PolicyLoss:
        """The loss of differentiable (S,) log-probs and entropy."""
        inputs = self.inputs
        advantages, weights = inputs.advantages.to(logprobs), inputs.token_weights.to(logprobs)
        ratio = self._ratio(logprobs)
        clipped = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        # Only where the advantage is negative: elsewhere the clip is the tighter bound.
        bounded = ratio if self.delta is None else ratio.clamp(max=self.delta)
        gains, clipped_gains = bounded * advantages, clipped * advantages
        is_clipped = ((clipped_gains < gains) | (gains != ratio * advantages)).detach()
        per_token = -torch.minimum(gains, clipped_gains)
        kl = torch.zeros_like(logprobs)
        if inputs.ref_logprobs is not None:
            kl = kl_estimate(logprobs, inputs.ref_logprobs.to(logprobs), self.kl_estimator)
            if self.beta > 0:
                per_token = per_token + self.beta * kl
        per_token = per_token - self.entropy_coef * entropy
        return PolicyLoss((weights * per_token).sum(), logprobs.detach(), entropy.detach(), kl.detach(), is_clipped)

    def _ratio(self, logprobs: Tensor) -> Tensor:
        """(S,) each token's."""
        of_token, lengths = self.inputs.completion, self.inputs.lengths
        old = logprobs.detach() if self.inputs.old_logprobs is None else self.inputs.old_logprobs.to(logprobs)
        total = logprobs.new_zeros(len(lengths)).index_add(0, of_token, logprobs - old)
        if self.ratio != "sum":
            total = total / lengths.to(total)
        ratio = total.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()[of_token]
        return ratio if self.ratio != "token" else ratio.detach() * (logprobs - logprobs.detach()).exp()


@dataclass(frozen=True)
class ExactKL:
    """Another objective, plus beta times the KL to the reference over the whole vocabulary at each token."""

    objective: "Objective"
    """Without a KL of its own."""
    ref_hidden: Tensor
    """(S, W) the reference's hidden states that predict the targets."""
    ref_weight: Tensor | None
    """(V, W) its head; None where that is the policy's own, which does not train."""
    token_weights: Tensor
    """(S,)."""
    beta: float


Objective = PolicyObjective | CompletionObjective | ExactKL


def head_loss(
    hidden: Tensor, weight: Tensor, target_ids: Tensor, objective: Objective, **distribution: Any
) -> PolicyLoss:
    """The objective's loss of (S, W) hidden states and the (V, W) head, its gradient computed with it where it can be.

    Args:
        distribution: temperature and forbidden_ids of geogrpo_kernels.token_logprobs.
    """
    if isinstance(objective, PolicyObjective):
        return linear_grpo_loss(hidden, weight, target_ids, objective, **distribution)
    if isinstance(objective, CompletionObjective):
        return objective.loss(*token_logprobs(hidden, weight, target_ids, **distribution))
    result = head_loss(hidden, weight, target_ids, objective.objective, **distribution)
    ref_weight = weight.detach() if objective.ref_weight is None else objective.ref_weight
    kl = linear_exact_kl(hidden, weight, objective.ref_hidden, ref_weight, **distribution)
    loss = result.loss + objective.beta * (objective.token_weights * kl).sum()
    return result._replace(loss=loss, kl=kl.detach())


def _token_level(inputs: LossInputs, config: LossConfig, surrogate: str = "clip") -> PolicyObjective:
    clip_low, clip_high = clips(config)
    return PolicyObjective(
        advantages=inputs.advantages,
        token_weights=inputs.token_weights,
        old_logprobs=inputs.old_logprobs,
        ref_logprobs=inputs.ref_logprobs,
        surrogate=surrogate,
        clip_low=clip_low,
        clip_high=clip_high,
        delta=config.delta,
        tau_positive=config.tau_positive,
        tau_negative=config.tau_negative,
        beta=_beta_of_estimate(config),
        kl_estimator="k3" if config.kl_estimator == "exact" else config.kl_estimator,
        entropy_coef=config.entropy_coef,
    )


def _completion_level(
    inputs: LossInputs, config: LossConfig, ratio: Literal["mean", "sum", "token"]
) -> CompletionObjective:
    clip_low, clip_high = clips(config)
    return CompletionObjective(
        inputs,
        ratio,
        clip_low=clip_low,
        clip_high=clip_high,
        delta=config.delta,
        beta=_beta_of_estimate(config),
        kl_estimator="k3" if config.kl_estimator == "exact" else config.kl_estimator,
        entropy_coef=config.entropy_coef,
    )


def _beta_of_estimate(config: LossConfig) -> float:
    """Beta where the KL is in the loss and estimated from the sampled tokens; an exact one is added by ExactKL."""
    return config.beta if config.has_kl_in_loss and config.kl_estimator != "exact" else 0.0


def grpo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """-min(ratio * A, clip(ratio) * A) per token, averaged per completion, then over completions (arXiv 2402.03300)."""
    return _token_level(inputs, config)


def dapo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """The same averaged over all tokens, with more room above than below (arXiv 2503.14476)."""
    return _token_level(inputs, config)


def dr_grpo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """The same summed over a completion and divided by the length limit: no bias by length (arXiv 2503.20783).

    As published with grpo.advantage_scale: none.
    """
    return _token_level(inputs, config)


def bnpo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """TRL's bnpo: the token mean, with equal room above and below."""
    return _token_level(inputs, config)


def gspo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """The ratio of a completion: the geometric mean of its tokens' ratios, clipped as a whole (arXiv 2507.18071)."""
    return _completion_level(inputs, config, "mean")


def gspo_token_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """GSPO's ratio and clip, the gradient through each token's own log-prob (arXiv 2507.18071, section 4.3)."""
    return _completion_level(inputs, config, "token")


def cispo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """-clip(ratio) * A * logprob, the clipped ratio a constant: no token loses its gradient (arXiv 2506.13585)."""
    return _token_level(inputs, config, "cispo")


def sapo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """A smooth gate in place of the clip: -A * 4 / tau * sigmoid(tau * (ratio - 1)) (arXiv 2511.20347)."""
    return _token_level(inputs, config, "sapo")


def reinforce_plus_plus_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """The clipped token mean of REINFORCE++ (arXiv 2501.03262).

    As published with grpo.advantage_baseline: batch, advantage_scale: batch, and loss.kl_in: reward with k1.
    """
    return _token_level(inputs, config)


def rloo_loss(inputs: LossInputs, config: LossConfig) -> Objective:
    """The clipped ratio of whole completions, the product of their tokens' ratios (arXiv 2402.14740).

    As published with grpo.advantage_baseline: leave_one_out, advantage_scale: none, and loss.kl_in: reward with k1.
    """
    return _completion_level(inputs, config, "sum")


@dataclass(frozen=True)
class Loss:
    """A member of the family."""

    function: Callable[[LossInputs, LossConfig], Objective]
    """What is minimised over a row."""
    average: Average
    """How its token losses are averaged."""
    clip_low: float = 0.2
    """As published."""
    clip_high: float = 0.2
    """As published; where a paper gives a range, the value that is most used."""


LOSSES: dict[str, Loss] = {
    "grpo": Loss(grpo_loss, "completion"),
    "dapo": Loss(dapo_loss, "token", clip_high=0.28),
    "dr_grpo": Loss(dr_grpo_loss, "constant"),
    "bnpo": Loss(bnpo_loss, "token"),
    "gspo": Loss(gspo_loss, "completion", clip_low=3e-4, clip_high=4e-4),
    "gspo_token": Loss(gspo_token_loss, "completion", clip_low=3e-4, clip_high=4e-4),
    # The paper bounds ratios above only and does not say where; TRL recommends 5.
    "cispo": Loss(cispo_loss, "token", clip_low=1.0, clip_high=4.0),
    "sapo": Loss(sapo_loss, "completion"),
    "reinforce++": Loss(reinforce_plus_plus_loss, "token"),
    "rloo": Loss(rloo_loss, "completion"),
}


def find_loss(config: LossConfig) -> Loss:
    """The loss that the configuration names.

    Raises:
        ValueError: listing the known ones, or naming an option that it cannot take.
    """
    if config.name not in LOSSES:
        raise ValueError(f"grpo.loss.name {config.name!r} is unknown. Known: {', '.join(LOSSES)}.")
    if config.delta is not None:
        if config.name in ("cispo", "sapo"):
            raise ValueError(f"grpo.loss.delta bounds a clipped ratio, and {config.name} clips none: leave it out.")
        highest = 1 + clips(config)[1]
        if config.delta <= highest:
            raise ValueError(
                f"grpo.loss.delta must be above 1 + clip_high ({highest:g}), got {config.delta:g}:"
                " it bounds the ratios that the clip leaves free."
            )
    return LOSSES[config.name]


def clips(config: LossConfig) -> tuple[float, float]:
    """clip_low and clip_high: the configured ones, else the loss's own."""
    loss = LOSSES[config.name]
    return (
        loss.clip_low if config.clip_low is None else config.clip_low,
        loss.clip_high if config.clip_high is None else config.clip_high,
    )
