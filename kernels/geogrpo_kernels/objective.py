"""What a policy loss minimises, token by token, with its derivatives: what the reference and the kernel agree on.

Deviations from the papers: none in the per-token terms. How tokens are averaged is in the token weights, which the
caller chooses (`token_weights` has the papers' ways), so that one denominator can span ranks and micro-batches.

Shapes: T tokens, C completions, R rows of a chunk.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from geogrpo_kernels.checks import check_per_token

SURROGATES = ("clip", "cispo", "reinforce", "sapo")
KL_ESTIMATORS = ("k1", "k2", "k3")
MAX_LOG_RATIO = 20.0
"""|logprob - old_logprob| beyond this counts as this: exp would overflow, and 0 * inf is NaN."""


@dataclass(frozen=True)
class PolicyObjective:
    """Sum over the tokens of token_weights * (surrogate + beta * kl - entropy_coef * entropy).

    | loss | surrogate | clip_low, clip_high | token_weights | source |
    |---|---|---|---|---|
    | GRPO | clip | 0.2, 0.2 | "completion" | arXiv 2402.03300 |
    | DAPO | clip | 0.2, 0.28 | "token" | arXiv 2503.14476 |
    | Dr. GRPO | clip | 0.2, 0.2 | "constant" | arXiv 2503.20783 |
    | CISPO | cispo | 1 (no lower bound), 0.28 or more | "token" | arXiv 2506.13585 |
    | SAPO | sapo | - | "completion" | arXiv 2511.20347 |
    | maximum likelihood | reinforce, advantages of 1 | - | "token" | |
    """

    advantages: Tensor
    """(T,) of the completion that the token belongs to."""
    token_weights: Tensor
    """(T,) 1 / denominator; where 0 the token has no loss and no gradient."""
    old_logprobs: Tensor | None = None
    """(T,) of the policy that sampled, nats, same temperature. None: it is the current policy, the ratio is 1."""
    ref_logprobs: Tensor | None = None
    """(T,) of the frozen reference, nats, at the same temperature. None: no KL."""
    surrogate: str = "clip"
    """clip: -min(ratio * A, clip(ratio) * A). cispo: -clip(ratio) * A * logprob, the clipped ratio a constant.
    reinforce: -A * logprob. sapo: -A * (4 / tau) * sigmoid(tau * (ratio - 1)), tau by the sign of A: its gradient is
    -A at a ratio of 1, as that of the others, and fades away from there; nothing is clipped."""
    clip_low: float = 0.2
    """The ratio is clipped below 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above 1 + clip_high."""
    beta: float = 0.0
    """Factor of the estimate of KL(policy || reference)."""
    entropy_coef: float = 0.0
    """Factor of the entropy, which is rewarded."""
    delta: float | None = None
    """Where the advantage is negative the ratio counts at most as delta, without gradient above it; more than
    1 + clip_high. None: no bound. For "clip" only. It is `delta` of TRL (two-sided clipping, INTELLECT-2,
    arXiv 2505.07291) and the constant of dual clip (arXiv 1912.09729; `clip_ratio_c` of verl), which are the same."""
    tau_positive: float = 1.0
    """For "sapo": how fast the gradient fades where the advantage is positive."""
    tau_negative: float = 1.05
    """For "sapo": how fast it fades elsewhere; faster, because there other tokens' logits are raised."""
    kl_estimator: str = "k3"
    """Which estimate of the KL: kl_estimate has the formulas of "k1", "k2" and "k3"."""

    def __post_init__(self) -> None:
        check_per_token(
            len(self.advantages),
            self.advantages.device,
            advantages=self.advantages,
            token_weights=self.token_weights,
            old_logprobs=self.old_logprobs,
            ref_logprobs=self.ref_logprobs,
        )
        if self.surrogate not in SURROGATES:
            raise ValueError(f"surrogate must be one of {', '.join(SURROGATES)}, got {self.surrogate!r}.")
        if self.kl_estimator not in KL_ESTIMATORS:
            raise ValueError(f"kl_estimator must be one of {', '.join(KL_ESTIMATORS)}, got {self.kl_estimator!r}.")
        for name in ("clip_low", "clip_high", "beta"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}.")
        for name in ("tau_positive", "tau_negative"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}.")
        self._check_delta()
        if self.beta > 0 and self.ref_logprobs is None:
            raise ValueError("beta is above 0, so ref_logprobs are needed.")

    def _check_delta(self) -> None:
        if self.delta is None:
            return
        if self.surrogate != "clip":
            raise ValueError(f"delta is for surrogate='clip', got {self.surrogate!r}: leave it None.")
        if not self.delta > 1 + self.clip_high:
            raise ValueError(f"delta must be > 1 + clip_high = {1 + self.clip_high}, got {self.delta}.")

    @property
    def largest_ratio(self) -> float:
        """What a ratio counts as at most where the advantage is negative: delta, or infinity without one."""
        return float("inf") if self.delta is None else self.delta

    def as_float32(self) -> "PolicyObjective":
        """The same with contiguous float32 tensors, as kernels read them."""
        names = ("advantages", "token_weights", "old_logprobs", "ref_logprobs")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(self, **{name: value.detach().float().contiguous() for name, value in given.items()})


class PolicyLoss(NamedTuple):
    """A loss with gradient, and what is logged about its tokens (without gradient)."""

    loss: Tensor
    """() sum over the tokens."""
    logprobs: Tensor
    """(T,) of the targets, nats."""
    entropy: Tensor
    """(T,) of the distributions, nats."""
    kl: Tensor
    """(T,) the objective's estimate of KL(policy || reference), 0 without ref_logprobs."""
    is_clipped: Tensor
    """(T,) bool: the clipped ratio, or delta, counted instead of the ratio."""


class TokenTerms(NamedTuple):
    """A token's loss and its derivatives, each (R,)."""

    loss: Tensor
    grad_logprobs: Tensor
    grad_entropy: Tensor
    kl: Tensor
    is_clipped: Tensor


def token_terms(logprobs: Tensor, entropy: Tensor, objective: PolicyObjective, rows: slice) -> TokenTerms:
    """Loss of each token of `rows` and its derivatives, weighted.

    Args:
        logprobs, entropy: (R,) of those rows.
    """
    dtype = logprobs.dtype
    advantages = objective.advantages[rows].to(dtype)
    log_ratio = torch.zeros_like(logprobs)
    if objective.old_logprobs is not None:
        log_ratio = logprobs - objective.old_logprobs[rows].to(dtype)
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    loss, grad, is_clipped = _surrogate_terms(logprobs, ratio, advantages, objective)
    kl = torch.zeros_like(loss)
    if objective.ref_logprobs is not None:
        ref_log_ratio = objective.ref_logprobs[rows].to(dtype) - logprobs
        kl = estimated_kl(ref_log_ratio, objective.kl_estimator)
        # It may be infinite where it is only logged.
        if objective.beta > 0:
            loss = loss + objective.beta * kl
            grad = grad + objective.beta * _kl_gradient(ref_log_ratio, objective.kl_estimator)
    loss = loss - objective.entropy_coef * entropy
    weights = objective.token_weights[rows].to(dtype)
    grad_entropy = -objective.entropy_coef * weights
    # A masked token may hold anything, infinity included: 0 * inf would be NaN.
    is_masked = weights == 0
    loss, grad = ((weights * value).masked_fill(is_masked, 0.0) for value in (loss, grad))
    return TokenTerms(loss, grad, grad_entropy, kl, is_clipped)


def _surrogate_terms(
    logprobs: Tensor, ratio: Tensor, advantages: Tensor, objective: PolicyObjective
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each token, its derivative by the log-prob, and whether a bound counted instead of the ratio."""
    clipped = ratio.clamp(1 - objective.clip_low, 1 + objective.clip_high)
    is_free = torch.zeros_like(ratio, dtype=torch.bool)
    if objective.surrogate == "clip":
        is_held = (advantages < 0) & (ratio > objective.largest_ratio)
        bounded = ratio.masked_fill(is_held, objective.largest_ratio)
        is_outside = clipped * advantages < bounded * advantages
        loss = -torch.where(is_outside, clipped, bounded) * advantages
        is_clipped = is_outside | is_held
        return loss, torch.where(is_clipped, 0.0, loss), is_clipped
    if objective.surrogate == "sapo":
        tau = torch.full_like(ratio, objective.tau_negative).masked_fill(advantages > 0, objective.tau_positive)
        gate = (tau * (ratio - 1)).sigmoid()
        # 1 - gate would round to 0 far from the sampling policy
        rest = (tau * (1 - ratio)).sigmoid()
        return -advantages * (4 / tau) * gate, -advantages * 4 * gate * rest * ratio, is_free
    grad = -clipped * advantages if objective.surrogate == "cispo" else -advantages
    return grad * logprobs, grad, clipped != ratio if objective.surrogate == "cispo" else is_free


def estimated_kl(log_ratio: Tensor, estimator: str) -> Tensor:
    """KL(policy || reference) from ref - policy log-probs, any shape; kl_estimate documents the estimators."""
    if estimator == "k1":
        return -log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    # expm1: near equality exp(r) - 1 would round away all of the value
    return log_ratio.expm1() - log_ratio


def _kl_gradient(log_ratio: Tensor, estimator: str) -> Tensor:
    """Derivative of estimated_kl by the policy's log-prob."""
    if estimator == "k1":
        return torch.ones_like(log_ratio)
    return -log_ratio if estimator == "k2" else -log_ratio.expm1()


def token_weights(completion_lengths: Tensor, average: str, max_length: int | None = None) -> Tensor:
    """Weights that average token losses as the papers do, for packed completions.

    Args:
        completion_lengths: (C,) int64 tokens of each completion; their sum is T.
        average: "completion": over the tokens of each completion, then over completions (GRPO); "token": over all
            tokens (DAPO); "constant": the sum of each completion divided by max_length, then over completions
            (Dr. GRPO).
        max_length: the length limit of a completion; for "constant" only.
    Returns:
        (T,) float32, completion after completion.
    Raises:
        ValueError: on another average, or a max_length that is missing or given without use.
    """
    if (average == "constant") != (max_length is not None):
        raise ValueError(f"max_length is for average='constant', and needed there; got {average!r}, {max_length}.")
    num_completions = len(completion_lengths)
    if average == "token":
        denominators = completion_lengths.sum().expand(num_completions)
    elif average == "completion":
        denominators = completion_lengths * num_completions
    elif max_length is not None:
        denominators = torch.full_like(completion_lengths, max_length * num_completions)
    else:
        raise ValueError(f"average must be completion, token or constant, got {average!r}.")
    # A completion without tokens has no weight to give.
    return (1.0 / denominators.clamp(min=1)).repeat_interleave(completion_lengths)
