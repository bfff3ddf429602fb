"""The second half of a step: rewards -> advantages -> what each token is worth -> optimizer steps.

Shapes: P prompts, G group, C completions of this rank, counted through; a completion has `length` tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from geogrpo_kernels import PolicyLoss, kl_estimate
from torch import Tensor

from geogrpo.advantages import advantages_of, decoupled_advantages
from geogrpo.config import GRPOConfig, OverlongConfig
from geogrpo.distributed import all_gather_list, all_sum, rank
from geogrpo.grpo.reference import Reference
from geogrpo.grpo.token_scores import (
    TokenScores,
    exact_kl_of_tokens,
    hidden_of_tokens,
    score_tokens,
)
from geogrpo.losses import ExactKL, Loss, LossInputs, Objective, find_loss
from geogrpo.optimization import Passes, UpdateResult, update
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group
from geogrpo.rewards import Scores
from geogrpo.types import PackedBatch, Rollouts


@dataclass
class Learned:
    """What a step's updates did."""

    advantages: Tensor
    """(P, G) of this rank."""
    updates: list[UpdateResult]
    """One per optimizer step, the same on every rank."""
    groups: list[Group]
    """This rank's, that were trained on."""
    metrics: dict[str, float]
    """Over all ranks."""


@dataclass
class _ReferenceScores:
    """What a KL needs of the reference; nothing where the loss holds none."""

    logprobs: list[Tensor] | None = None
    """(length,) of each completion, for an estimate."""
    hidden: list[Tensor] | None = None
    """(length, W) of each, for an exact KL."""
    head: Tensor | None = None
    """(V, W), for that; None for the policy's own."""


@dataclass
class _Lesson:
    """The completions that are trained on, and their numbers."""

    groups: list[Group]
    advantages: list[Tensor]
    """(length,) of each."""
    weights: list[float]
    """What each of a completion's tokens counts in the loss."""
    sampled: list[Tensor]
    """(length,) of each, the sampler's log-probs."""
    old_logprobs: list[Tensor] | None = None
    """(length,) of each; None where ratios are to the current policy."""
    reference: _ReferenceScores = field(default_factory=_ReferenceScores)
    logprobs: list[Tensor] = field(default_factory=list)
    """(length,) of each, as the last update found them."""


class StepLearner:
    """Trains the policy on what a step sampled.

    Args:
        policy, optimizer: that train.
        reference: what the KL is measured from; None where beta is 0.
        passes: how groups go through a policy.
    """

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        reference: Reference | None,
        config: GRPOConfig,
        passes: Passes,
    ) -> None:
        self._policy, self._optimizer, self._reference = policy, optimizer, reference
        self._config, self._passes = config, passes
        self._loss: Loss = find_loss(config.loss)

    def learn(self, rollouts: Rollouts, scores: Scores) -> Learned:
        """All of a step's updates. Every rank must call this, with any number of groups."""
        config = self._config
        groups = [Group(p, ids) for p, ids in zip(rollouts.prompts, rollouts.token_ids, strict=True)]
        sampled = [logprobs.to(self._policy.device) for of_group in rollouts.logprobs for logprobs in of_group]
        own, reference = self._own_scores(groups), self._reference_scores(groups)
        metrics: dict[str, float] = {}
        rewards = scores.total - overlong_penalties(rollouts, config).view_as(scores.total)
        if config.loss.beta > 0 and config.loss.kl_in == "reward":
            kl = self._kl_of_tokens(groups, sampled if own is None else own.logprobs, reference)
            rewards = rewards - config.loss.beta * _sums(kl, rewards)
            metrics["kl"] = _mean_over_ranks(kl)
            reference = _ReferenceScores()
        with self._passes.clock.phase("communication"):
            advantages = advantages_over_ranks(rewards, scores, config)
        per_token = [a.expand(len(ids)) for a, ids in zip(advantages.flatten(), _flat(rollouts.token_ids), strict=True)]
        if own is not None:
            per_token = self._reweighted(per_token, own, sampled, metrics)
        lesson = self._lesson(rollouts, per_token, sampled, reference)
        updates = [self._update(lesson)]
        metrics |= self._sampler_differences(lesson)
        # The first update's log-probs are those of the policy that sampled.
        lesson.old_logprobs = lesson.old_logprobs or lesson.logprobs.copy()
        updates += [self._update(lesson) for _ in range(1, config.updates_per_sample)]
        return Learned(advantages, updates, lesson.groups, metrics)

    def _own_scores(self, groups: Sequence[Group]) -> TokenScores | None:
        """The policy's own log-probs and entropy before the updates, where something needs them."""
        loss = self._config.loss
        if loss.top_entropy_share == 1 and self._config.sampling.correction == "none":
            return None
        return score_tokens(self._policy, groups, self._passes, "old_logprobs")

    def _reference_scores(self, groups: Sequence[Group]) -> _ReferenceScores:
        """The reference's log-probs, or its hidden states and head for an exact KL; nothing without a reference."""
        if self._reference is None:
            return _ReferenceScores()
        with self._reference.applied() as reference:
            if self._config.loss.kl_estimator == "exact":
                hidden = hidden_of_tokens(reference, groups, self._passes, "reference")
                return _ReferenceScores(hidden=hidden, head=self._reference.head_weight())
            return _ReferenceScores(score_tokens(reference, groups, self._passes, "reference").logprobs)

    def _kl_of_tokens(
        self, groups: Sequence[Group], logprobs: Sequence[Tensor], reference: _ReferenceScores
    ) -> list[Tensor]:
        """The (length,) KL of each completion's tokens, for the reward."""
        if reference.hidden is not None:
            return exact_kl_of_tokens(
                self._policy, groups, self._passes, "reference", ref_hidden=reference.hidden, ref_weight=reference.head
            )
        assert reference.logprobs is not None
        estimator = self._config.loss.kl_estimator
        return [kl_estimate(own, ref, estimator) for own, ref in zip(logprobs, reference.logprobs, strict=True)]

    def _reweighted(
        self, per_token: list[Tensor], own: TokenScores, sampled: Sequence[Tensor], metrics: dict[str, float]
    ) -> list[Tensor]:
        """Advantages times what corrects for another sampler, 0 at tokens of low entropy."""
        device = self._policy.device
        factors = [torch.ones(len(values), device=device) for values in per_token]
        if self._config.sampling.correction != "none":
            factors = self._corrections(own.logprobs, sampled, metrics)
        share = self._config.loss.top_entropy_share
        if share < 1:
            threshold = _quantile_over_ranks(own.entropy, 1 - share)
            factors = [f * (entropy >= threshold) for f, entropy in zip(factors, own.entropy, strict=True)]
        return [values.to(device) * factor for values, factor in zip(per_token, factors, strict=True)]

    def _corrections(
        self, logprobs: Sequence[Tensor], sampled: Sequence[Tensor], metrics: dict[str, float]
    ) -> list[Tensor]:
        """Policy / sampler probability of each token, or of each completion at each of its tokens, cut off."""
        level, _, cut = self._config.sampling.correction.partition("_")
        cap = self._config.sampling.correction_cap
        log_ratios = [own - theirs for own, theirs in zip(logprobs, sampled, strict=True)]
        if level == "sequence":
            log_ratios = [log_ratio.sum().expand(len(log_ratio)) for log_ratio in log_ratios]
        ratios = [log_ratio.exp() for log_ratio in log_ratios]
        name = "sampling/importance_sampling_ratio"
        with self._passes.clock.phase("communication"):
            metrics |= {f"{name}/{key}": value for key, value in _statistics_over_ranks(ratios).items()}
        if cut == "truncate":
            return [ratio.clamp(max=cap) for ratio in ratios]
        return [ratio.masked_fill(ratio > cap, 0.0) for ratio in ratios]

    def _lesson(
        self,
        rollouts: Rollouts,
        per_token: Sequence[Tensor],
        sampled: Sequence[Tensor],
        reference: _ReferenceScores,
    ) -> _Lesson:
        """Choose the completions that are trained on: all but those cut off, where they are masked, and those without
        any gradient. What has no gradient counts in the loss's denominator all the same.
        """
        config = self._config
        is_finished, token_ids = _flat(rollouts.is_finished), _flat(rollouts.token_ids)
        counted = [k for k, done in enumerate(is_finished) if done or not config.overlong.mask_truncated]
        pulls_everywhere = config.loss.has_kl_in_loss or config.loss.entropy_coef != 0
        chosen = [k for k in counted if pulls_everywhere or bool(per_token[k].any())]
        with self._passes.clock.phase("communication"):
            num_tokens, num_completions = all_sum(
                torch.tensor([sum(len(token_ids[k]) for k in counted), len(counted)])
            ).tolist()
        weights = {
            "token": lambda length: 1 / num_tokens,
            "completion": lambda length: 1 / (length * num_completions),
            "constant": lambda length: 1 / (config.sampling.max_new_tokens * num_completions),
        }[self._loss.average]

        own_sampled = [sampled[k] for k in chosen]

        def of_chosen(values: Sequence[Tensor] | None) -> list[Tensor] | None:
            return None if values is None else [values[k] for k in chosen]

        return _Lesson(
            groups=_groups_of(rollouts, chosen),
            advantages=[per_token[k] for k in chosen],
            weights=[weights(len(token_ids[k])) for k in chosen],
            sampled=own_sampled,
            old_logprobs=own_sampled if config.old_logprobs == "sampler" else None,
            reference=_ReferenceScores(of_chosen(reference.logprobs), of_chosen(reference.hidden), reference.head),
            logprobs=[torch.empty(0)] * len(chosen),
        )

    def _update(self, lesson: _Lesson) -> UpdateResult:
        """One optimizer step."""
        return update(
            self._policy,
            self._optimizer,
            lesson.groups,
            lambda completions, batch: self._objective(lesson, completions, batch),
            lambda completions, batch, loss: self._row_metrics(lesson, completions, batch, loss),
            passes=self._passes,
            max_grad_norm=self._config.optimizer.max_grad_norm,
        )

    def _sampler_differences(self, lesson: _Lesson) -> dict[str, float]:
        """What the sampler and the policy disagree about, before the first update; 0 but for rounding."""
        pairs = zip(lesson.logprobs, lesson.sampled, strict=True)
        with self._passes.clock.phase("communication"):
            found = _statistics_over_ranks([(own - theirs).abs() for own, theirs in pairs])
        return {f"sampling/sampling_logp_difference/{name}": found[name] for name in ("mean", "max") if name in found}

    def _objective(self, lesson: _Lesson, completions: list[int], batch: PackedBatch) -> Objective:
        device = self._policy.device

        def of_row(values: Sequence[Tensor] | None) -> Tensor | None:
            return None if values is None else torch.cat([values[k] for k in completions]).to(device)

        lengths = batch.completion_lengths + 1
        advantages = of_row(lesson.advantages)
        assert advantages is not None
        inputs = LossInputs(
            advantages=advantages,
            token_weights=torch.tensor([lesson.weights[k] for k in completions]).repeat_interleave(lengths).to(device),
            completion=batch.target_completion.to(device),
            lengths=lengths,
            old_logprobs=of_row(lesson.old_logprobs),
            ref_logprobs=of_row(lesson.reference.logprobs),
        )
        objective = self._loss.function(inputs, self._config.loss)
        ref_hidden = of_row(lesson.reference.hidden)
        if ref_hidden is None:
            return objective
        return ExactKL(objective, ref_hidden, lesson.reference.head, inputs.token_weights, self._config.loss.beta)

    def _row_metrics(
        self, lesson: _Lesson, completions: list[int], batch: PackedBatch, loss: PolicyLoss
    ) -> dict[str, Tensor]:
        parts = loss.logprobs.split((batch.completion_lengths + 1).tolist())
        for k, part in zip(completions, parts, strict=True):
            lesson.logprobs[k] = part
        advantages = torch.cat([lesson.advantages[k] for k in completions]).to(loss.is_clipped.device)
        # Without a reference a KL of 0 would be a claim.
        kl = {"kl": loss.kl} if self._config.loss.has_kl_in_loss else {}
        return {
            "entropy": loss.entropy,
            **kl,
            "clip_ratio/region_mean": loss.is_clipped,
            "clip_ratio/low_mean": loss.is_clipped & (advantages < 0),
            "clip_ratio/high_mean": loss.is_clipped & (advantages > 0),
        }


def overlong_penalties(rollouts: Rollouts, config: GRPOConfig) -> Tensor:
    """(P, G) float64: what each completion loses for its length.

    Source: DAPO (arXiv 2503.14476), equation 13. A completion of exactly the limit that ended by itself loses, like one
    cut off, all of the penalty.
    """
    overlong: OverlongConfig = config.overlong
    lengths = torch.tensor([[len(ids) for ids in group] for group in rollouts.token_ids], dtype=torch.float64)
    if overlong.buffer_tokens == 0:
        return torch.zeros_like(lengths)
    free = config.sampling.max_new_tokens - overlong.buffer_tokens
    return overlong.penalty * ((lengths - free) / overlong.buffer_tokens).clamp(0, 1)


def advantages_over_ranks(rewards: Tensor, scores: Scores, config: GRPOConfig) -> Tensor:
    """This rank's (P, G) advantages; a mean or deviation over the step is taken over all ranks.

    Args:
        rewards: (P, G), what counts of scores.total.
    """
    num_prompts = len(rewards)
    # (P, K, G): prompts first, to be put together over ranks
    is_decoupled = config.rewards.aggregation == "normalize_then_sum"
    mine = scores.terms.transpose(0, 1) if is_decoupled else rewards
    per_rank = all_gather_list([mine])
    offset = sum(len(part) for part in per_rank[: rank()])
    # A rank whose images were all unreadable has no groups, and no group size either.
    everything = torch.cat([part for part in per_rank if len(part)] or [mine])
    how = {"scale": config.advantage_scale, "baseline": config.advantage_baseline}
    if is_decoupled:
        advantages = decoupled_advantages(everything.transpose(0, 1), scores.term_weights, **how)
    else:
        advantages = advantages_of(everything, **how)
    return advantages[offset : offset + num_prompts]


def _flat(groups: Sequence[Sequence]) -> list:
    return [value for group in groups for value in group]


def _groups_of(rollouts: Rollouts, chosen: Sequence[int]) -> list[Group]:
    """Groups of the chosen completions alone; a prompt with none of them is left out."""
    kept, first = set(chosen), 0
    groups = []
    for prompt, token_ids in zip(rollouts.prompts, rollouts.token_ids, strict=True):
        completions = [ids for k, ids in enumerate(token_ids, first) if k in kept]
        first += len(token_ids)
        if completions:
            groups.append(Group(prompt, completions))
    return groups


def _sums(per_token: Sequence[Tensor], like: Tensor) -> Tensor:
    """Each completion's sum, shaped like the (P, G) rewards."""
    return torch.tensor([float(values.double().sum()) for values in per_token], dtype=like.dtype).view(like.shape)


def _over_ranks(values: Sequence[Tensor]) -> Tensor:
    """All tokens of all ranks, on the host; empty without any."""
    mine = torch.cat([value.detach().float().cpu() for value in values]) if values else torch.empty(0)
    return torch.cat(all_gather_list([mine]))


def _mean_over_ranks(values: Sequence[Tensor]) -> float:
    everything = _over_ranks(values)
    return float(everything.double().mean()) if len(everything) else float("nan")


def _quantile_over_ranks(values: Sequence[Tensor], share: float) -> float:
    everything = _over_ranks(values)
    # Of the sorted values themselves: torch.quantile takes 16 million at most.
    return float(everything.sort().values[int(share * len(everything))]) if len(everything) else 0.0


def _statistics_over_ranks(values: Sequence[Tensor]) -> dict[str, float]:
    everything = _over_ranks(values)
    if not len(everything):
        return {}
    return {name: float(getattr(everything, name)()) for name in ("min", "mean", "max")}
