"""What a step reports, under TRL's names where it has them: of all ranks' completions and updates.

Shapes: P prompts, G group.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geogrpo.distributed import all_gather_list
from geogrpo.grpo.learning import Learned
from geogrpo.grpo.sampling import Sampled
from geogrpo.metrics import charged_km
from geogrpo.optimization import UpdateResult
from geogrpo.rewards import Scores
from geogrpo.types import Rollouts

OVER_RANKS = {"clip_ratio/low_min": ("clip_ratio/low_mean", min), "clip_ratio/high_max": ("clip_ratio/high_mean", max)}
"""Metric -> the row metric whose smallest or largest rank it is."""


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


def step_metrics(completions: Sequence[dict[str, Any]], group_size: int, learned: Learned) -> dict[str, float]:
    """Metrics over the completions of all ranks, and the means of the step's updates."""
    if not completions:
        # Every image of the step was unreadable.
        return {"reward": float("nan")}
    rewards = torch.tensor([record["reward"] for record in completions], dtype=torch.float64).view(-1, group_size)
    distances = charged_km(np.array([record["distance_km"] for record in completions], dtype=np.float64))
    metrics = {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std(-1).mean()) if group_size > 1 else 0.0,
        "frac_reward_zero_std": float((rewards.amax(-1) == rewards.amin(-1)).double().mean()),
        **_update_metrics(learned.updates),
        **learned.metrics,
        "parse_rate": _mean([record["distance_km"] is not None for record in completions]),
        "distance_km/median": float(np.median(distances)),
        **_length_metrics(completions),
    }
    for name in completions[0]["rewards"]:
        values = [record["rewards"][name] for record in completions if record["rewards"][name] is not None]
        metrics[f"rewards/{name}/mean"] = _mean(values)
        metrics[f"rewards/{name}/std"] = float(torch.tensor(values).double().std()) if len(values) > 1 else 0.0
    return metrics


def _update_metrics(updates: Sequence[UpdateResult]) -> dict[str, float]:
    """Means over a step's optimizer steps, and over ranks what is a rank's own."""
    metrics = {"loss": _mean([u.loss for u in updates]), "grad_norm": _mean([u.grad_norm for u in updates])}
    for name in updates[0].token_means:
        metrics[name] = _mean([u.token_means[name] for u in updates])
    for name, (of_rank, chosen) in OVER_RANKS.items():
        if of_rank in metrics:
            metrics[name] = _mean([chosen(means[of_rank] for means in u.rank_means) for u in updates])
    return metrics


def _length_metrics(completions: Sequence[dict[str, Any]]) -> dict[str, float]:
    """completions/*: tokens of all completions, and of those that ended by themselves."""
    lengths = [record["num_tokens"] for record in completions]
    finished = [record["num_tokens"] for record in completions if record["is_finished"]]
    metrics = {"completions/clipped_ratio": 1 - len(finished) / len(lengths)}
    for values, name in ((lengths, "length"), (finished, "terminated_length")):
        for of_values, function in (("mean", _mean), ("min", min), ("max", max)):
            metrics[f"completions/{of_values}_{name}"] = float(function(values)) if values else float("nan")
    return metrics


def sampling_metrics(sampled: Sampled, max_rounds: int) -> dict[str, float]:
    """What was replaced, and completions for which a reward failed, over all ranks, which must all call this; empty
    where neither can be.
    """
    metrics: dict[str, float] = {}
    if max_rounds:
        metrics["resampling/num_replaced"] = sum(all_gather_list([sampled.num_replaced]))
        metrics["resampling/num_rounds"] = sampled.num_rounds
    if sampled.scores.num_failed:
        per_rank = all_gather_list([sampled.scores.num_failed])
        for name in sampled.scores.num_failed:
            metrics[f"rewards/{name}/num_failed"] = sum(failed[name] for failed in per_rank)
    return metrics


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
