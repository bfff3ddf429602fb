"""Stage 2: GRPO. Read this file from top to bottom; each name is one step of the algorithm.

    sample G completions per image -> reward -> group advantage -> clipped policy gradient + beta * KL -> one update

Deviations from GRPO (arXiv 2402.03300), and why:
* One update per sample: the ratio is exactly 1, so old log-probs are the current ones and cost no forward pass.
* Token mean over the whole step instead of a mean per completion: see losses.py.
* Groups whose completions all earned the same (exact max == min) have advantage 0; when beta is 0 they are counted
  and skip the forward and backward pass, which changes no gradient.
* With beta 0 no reference model exists.

Shapes: P prompts, G group, S scored tokens.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective
from torch import Tensor

from geogrpo.accounting import Accounting
from geogrpo.advantages import decoupled_advantages, group_advantages
from geogrpo.checkpoint import Progress
from geogrpo.clock import Clock
from geogrpo.config import GRPOConfig
from geogrpo.data.loader import Batch, load_batches
from geogrpo.distributed import all_gather_list, rank
from geogrpo.losses import LossFunction, find_loss
from geogrpo.optimization import (
    RowMetrics,
    RowObjective,
    StepCounter,
    UpdateResult,
    make_optimizer,
    num_tokens_of_all_ranks,
    set_learning_rate,
    update,
)
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, check_row
from geogrpo.policy.processing import Processor
from geogrpo.rewards import Reward, Scores, check_columns, find_rewards, score
from geogrpo.rollout import Engine, make_engine
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example, PackedBatch, Rollouts


@dataclass(frozen=True)
class StepRecord:
    """What one step did, on every rank."""

    step: int
    """Steps done, this one included."""
    metrics: dict[str, float]
    """Over all ranks."""
    completions: list[dict[str, Any]]
    """Every sampled completion of all ranks with its rewards, ready for JSON."""


def train_grpo(
    policy: Policy,
    processor: Processor,
    examples: Sequence[Example],
    config: GRPOConfig,
    *,
    rewards: Mapping[str, Reward] | None = None,
    reference: Policy | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Progress | None = None,
    tokens_per_microbatch: int = 16384,
    communicate_once: bool = False,
    num_loaders: int | None = None,
    seed: int = 0,
    on_step: Callable[[StepRecord], None] = lambda record: None,
) -> None:
    """Train from progress.step to config.steps.

    Args:
        policy: from distributed.load_sharded.
        rewards: your own, by the names that config.rewards uses.
        reference: the frozen policy of the KL; needed when config.loss.beta > 0.
        optimizer: AdamW as config.optimizer says, when None.
        progress: where to start, updated after every step; the beginning, when None.
        tokens_per_microbatch: budget of a packed row in unique tokens.
        communicate_once: see optimization.update.
        num_loaders: threads that read and encode images ahead of the step; None as data.loader.load_batches.
        seed: of the order of the examples and of the samples.
        on_step: called after every step, on every rank.
    Raises:
        ValueError: on unknown names, when beta > 0 and there is no reference, naming the first image when none can be
            read for a whole epoch, or naming an example that is too long for tokens_per_microbatch.
    """
    if config.loss.beta > 0 and reference is None:
        raise ValueError("grpo.loss.beta is above 0, so train_grpo needs a reference policy.")
    policy.train()
    optimizer = optimizer or make_optimizer(policy, config.optimizer)
    progress = progress or Progress(stage="grpo")
    engine = make_engine(config.sampling.engine, processor, max_rows=config.sampling.max_rows)
    chosen_rewards, loss_function = find_rewards(config.rewards, rewards), find_loss(config.loss.name)
    check_columns(chosen_rewards, examples)
    dummy = processor.dummy_group()
    steps, per_step = range(progress.step, config.steps), config.prompts_per_step
    counter = StepCounter(progress, num_examples=len(examples), per_step=per_step, num_steps=config.steps)
    accounting = Accounting(policy)
    clock = accounting.clock
    loading = load_batches(
        examples, processor.encode_prompt, per_step=per_step, seed=seed, steps=steps, num_threads=num_loaders
    )
    with contextlib.closing(loading) as batches:
        for step in steps:
            started = time.perf_counter()
            with clock.phase("data"):
                batch = next(batches)
            for prompt in batch.prompts:
                # Before sampling, not when a completion happens to be long
                check_row(prompt, config.sampling.max_new_tokens - 1, tokens_per_microbatch)
            rollouts = _sample(engine, policy, batch, config, seed, step, chosen_rewards, clock)
            with clock.phase("reward"):
                scores = score(rollouts, chosen_rewards, config.rewards)
            with clock.phase("communication"):
                advantages = _advantages_over_ranks(scores, config)
                num_tokens = num_tokens_of_all_ranks(rollouts.token_ids)
            set_learning_rate(optimizer, step, config.steps, config.optimizer)
            groups, objective, row_metrics = _groups_and_objective(rollouts, advantages, config, loss_function)
            result = update(
                policy,
                optimizer,
                groups,
                objective,
                row_metrics,
                dummy=dummy,
                reference=reference if config.loss.beta > 0 else None,
                num_valid_tokens=num_tokens,
                temperature=config.sampling.temperature,
                tokens_per_microbatch=tokens_per_microbatch,
                max_grad_norm=config.optimizer.max_grad_norm,
                communicate_once=communicate_once,
                clock=clock,
            )
            with clock.phase("communication"):
                completions = all_gather_list(completion_records(step + 1, rollouts, scores, advantages))
            counted = counter.finish_step(
                num_tokens=num_tokens, skipped=batch.skipped, seconds=time.perf_counter() - started
            )
            metrics = (
                _step_metrics(completions, config.group_size, result)
                | counted
                | accounting.finish_step(groups, rollouts)
            )
            metrics |= {"learning_rate": optimizer.param_groups[0]["lr"], **_num_failed(scores)}
            on_step(StepRecord(progress.step, metrics, completions))


def _sample(
    engine: Engine,
    policy: Policy,
    batch: Batch,
    config: GRPOConfig,
    seed: int,
    step: int,
    rewards: Mapping[str, Reward],
    clock: Clock,
) -> Rollouts:
    """Sample, and let rewards that wait for a server start on each completion as soon as it is there."""
    starters = [reward.start for reward in rewards.values() if hasattr(reward, "start")]

    def start(prompt: int, completion: str) -> None:
        for starter in starters:
            starter(batch.prompts[prompt].example, completion)

    return engine.sample(
        policy,
        batch.prompts,
        group_size=config.group_size,
        temperature=config.sampling.temperature,
        max_new_tokens=config.sampling.max_new_tokens,
        seeds=[stream_seed(seed, Stream.SAMPLING, step, position) for position in batch.positions],
        on_finished=start if starters else None,
        clock=clock,
    )


def _advantages_over_ranks(scores: Scores, config: GRPOConfig) -> Tensor:
    """This rank's (P, G) advantages; a deviation over the step is taken over all ranks."""
    num_prompts = len(scores.total)
    # (P, K, G): prompts first, to be put together over ranks
    is_decoupled = config.rewards.aggregation == "normalize_then_sum"
    mine = scores.terms.transpose(0, 1) if is_decoupled else scores.total
    per_rank = all_gather_list([mine])
    offset = sum(len(part) for part in per_rank[: rank()])
    # A rank whose images were all unreadable has no groups, and no group size either.
    everything = torch.cat([part for part in per_rank if len(part)] or [mine])
    if is_decoupled:
        advantages = decoupled_advantages(everything.transpose(0, 1), scores.term_weights, config.advantage_scale)
    else:
        advantages = group_advantages(everything, config.advantage_scale)
    return advantages[offset : offset + num_prompts]


def _num_failed(scores: Scores) -> dict[str, int]:
    """Completions of all ranks for which a reward failed and counts as missing; empty where that would stop."""
    if not scores.num_failed:
        return {}
    per_rank = all_gather_list([scores.num_failed])
    return {f"rewards/{name}/num_failed": sum(failed[name] for failed in per_rank) for name in scores.num_failed}


def _groups_and_objective(
    rollouts: Rollouts, advantages: Tensor, config: GRPOConfig, loss_function: LossFunction
) -> tuple[list[Group], RowObjective, RowMetrics]:
    """The groups that have a gradient, what is minimised over them, and what is reported.

    Those are the groups with advantages other than 0, or all of them when a KL pulls on every token.
    """
    has_advantage = torch.full((len(advantages),), True) if config.loss.beta > 0 else advantages.any(-1)
    chosen = has_advantage.nonzero().flatten()
    groups = [Group(rollouts.prompts[i], rollouts.token_ids[i]) for i in chosen.tolist()]
    of_completion = advantages[chosen].flatten()
    logprobs = [of_one for i in chosen.tolist() for of_one in rollouts.logprobs[i]]

    def objective(
        completions: list[int], batch: PackedBatch, token_weights: Tensor, ref_logprobs: Tensor | None
    ) -> PolicyObjective:
        per_token = of_completion[completions][batch.target_completion].to(token_weights.device)
        return loss_function(per_token, token_weights, None, ref_logprobs, config.loss)

    def metrics(completions: list[int], loss: PolicyLoss) -> dict[str, Tensor]:
        sampled = torch.cat([logprobs[k] for k in completions])
        # Without a reference a KL of 0 would be a claim.
        kl = {"kl": loss.kl} if config.loss.beta > 0 else {}
        return {
            "entropy": loss.entropy,
            **kl,
            "clip_ratio": loss.is_clipped.float(),
            # What the sampler and the trainer disagree about; 0 but for rounding.
            "sampling/sampling_logp_difference/mean": (loss.logprobs - sampled.to(loss.logprobs.device)).abs(),
        }

    return groups, objective, metrics


def completion_records(step: int, rollouts: Rollouts, scores: Scores, advantages: Tensor) -> list[dict[str, Any]]:
    """One JSON-ready record per completion."""
    records = []
    for p, prompt in enumerate(rollouts.prompts):
        for g, text in enumerate(rollouts.texts[p]):
            prediction = scores.predictions[p][g]
            records.append(
                {
                    "step": step,
                    "id": prompt.example.id,
                    "sample": g,
                    "true_latlon_deg": list(prompt.example.latlon_deg),
                    "predicted_latlon_deg": list(prediction.latlon_deg) if prediction.latlon_deg else None,
                    "distance_km": _number(scores.distance_km[p, g]),
                    "reward": _number(scores.total[p, g]),
                    "rewards": {name: _number(values[p, g]) for name, values in scores.components.items()},
                    "advantage": _number(advantages[p, g]),
                    "num_tokens": len(rollouts.token_ids[p][g]),
                    "is_finished": rollouts.is_finished[p][g],
                    "text": text,
                }
            )
    return records


def _number(value: Tensor) -> float | None:
    """A finite float, or None for NaN, which JSON does not have."""
    return None if bool(value.isnan()) else float(value)


def _step_metrics(completions: list[dict[str, Any]], group_size: int, result: UpdateResult) -> dict[str, float]:
    """Metrics under TRL's names, over the completions of all ranks."""
    if not completions:
        # Every image of the step was unreadable.
        return {"reward": float("nan")}
    rewards, advantages = (
        torch.tensor([record[key] for record in completions], dtype=torch.float64).view(-1, group_size)
        for key in ("reward", "advantage")
    )
    metrics = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(-1).mean()),
        "frac_reward_zero_std": float((advantages == 0).all(-1).double().mean()),
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        **result.token_means,
        "parse_rate": _mean([record["distance_km"] is not None for record in completions]),
        "completions/mean_length": _mean([record["num_tokens"] for record in completions]),
        "completions/clipped_ratio": _mean([not record["is_finished"] for record in completions]),
    }
    for name in completions[0]["rewards"]:
        values = [record["rewards"][name] for record in completions if record["rewards"][name] is not None]
        metrics[f"rewards/{name}/mean"] = _mean(values)
    return metrics


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
