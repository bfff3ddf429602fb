"""What a completion earns. To add a reward: a function in a file here, a line in REWARDS, a table test.

A reward is called with whole columns, one entry per completion, and returns one value per completion, or None where
it does not apply:

    reward(prompts, completions, **columns) -> list[float | None]

Columns: `prediction` (types.Prediction), `latlon_deg` (the truth), `distance_km` (NaN without usable coordinates),
`completion_ids`, `example_id`, `country`, `state`, `city`, and every column of the examples.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from geogrpo_kernels import haversine_km
from torch import Tensor

from geogrpo.config import RewardConfig
from geogrpo.prompts import parse_completion
from geogrpo.rewards import distance, region
from geogrpo.types import Prediction, Rollouts

Reward = Callable[..., Sequence[float | None]]


def _from_distance(function: Callable[[Tensor], Tensor]) -> Reward:
    def reward(prompts: list[str], completions: list[str], *, distance_km: list[float], **_: Any) -> list[float]:
        return function(torch.tensor(distance_km, dtype=torch.float64)).tolist()

    reward.__doc__ = function.__doc__
    return reward


def format_reward(prompts: list[str], completions: list[str], *, prediction: list[Prediction], **_: Any) -> list[float]:
    """1 where the completion holds exactly one valid coordinate pair, else 0 (Geo-R, arXiv 2601.00388)."""
    return [float(p.latlon_deg is not None) for p in prediction]


REWARDS: dict[str, Reward] = {
    **{function.__name__: _from_distance(function) for function in distance.DISTANCE_FUNCTIONS},
    "format": format_reward,
    "coordinates_region": region.coordinates_region,
    "named_region": region.named_region,
    "consistency": region.consistency,
}


@dataclass(frozen=True)
class Scores:
    """What every completion earned. Shapes: P prompts, G group."""

    total: Tensor
    """(P, G) float64."""
    components: dict[str, Tensor]
    """Each reward before weighting, the gate included: (P, G) float64, NaN where it does not apply."""
    predictions: list[list[Prediction]]
    """P lists of G."""
    distance_km: Tensor
    """(P, G) float64, NaN without usable coordinates."""


def find_rewards(config: RewardConfig, custom: Mapping[str, Reward] | None = None) -> dict[str, Reward]:
    """The rewards a configuration names, its gate last.

    Args:
        custom: rewards besides REWARDS, found first.
    Raises:
        ValueError: on a name that is in neither, with its configuration key.
    """
    known = {**REWARDS, **(custom or {})}
    keys = dict.fromkeys(config.weights, "grpo.rewards.weights")
    if config.gate:
        keys.setdefault(config.gate, "grpo.rewards.gate")
    for name, key in keys.items():
        if name not in known:
            raise ValueError(f"{key}: reward {name!r} is unknown. Known: {', '.join(known)}.")
    return {name: known[name] for name in keys}


def score(rollouts: Rollouts, rewards: Mapping[str, Reward], config: RewardConfig) -> Scores:
    """Rewards of every completion: the weighted sum of those that apply, times the gate.

    Raises:
        ValueError: when a reward returns no list, the wrong number of values, or one that is neither a finite number
            nor None.
    """
    num_prompts = len(rollouts.prompts)
    group_size = len(rollouts.texts[0]) if rollouts.texts else 0
    prompts = [p.question for p, group in zip(rollouts.prompts, rollouts.texts, strict=True) for _ in group]
    completions = [text for group in rollouts.texts for text in group]
    columns = _columns(rollouts, completions)
    components = {
        name: _checked(name, reward(prompts, completions, **columns), len(completions)).view(num_prompts, group_size)
        for name, reward in rewards.items()
    }
    total = torch.zeros(num_prompts, group_size, dtype=torch.float64)
    for name, weight in config.weights.items():
        total += weight * components[name].nan_to_num(0.0)
    if config.gate:
        total *= components[config.gate].nan_to_num(0.0)
    predictions = columns["prediction"]
    return Scores(
        total=total,
        components=components,
        predictions=[predictions[i : i + group_size] for i in range(0, len(predictions), group_size or 1)],
        distance_km=torch.tensor(columns["distance_km"], dtype=torch.float64).view(num_prompts, group_size),
    )


def _columns(rollouts: Rollouts, completions: list[str]) -> dict[str, list]:
    """One entry per completion, prompt-major. Ours win over columns of the examples with the same name."""
    examples = [p.example for p, texts in zip(rollouts.prompts, rollouts.texts, strict=True) for _ in texts]
    predictions = [parse_completion(text) for text in completions]
    columns: dict[str, list] = {}
    for key in {key for example in examples for key in example.columns} - {"prompts", "completions"}:
        columns[key] = [example.columns.get(key) for example in examples]
    return columns | {
        "completion_ids": [ids.tolist() for group in rollouts.token_ids for ids in group],
        "prediction": predictions,
        "example_id": [example.id for example in examples],
        "latlon_deg": [example.latlon_deg for example in examples],
        "country": [example.country for example in examples],
        "state": [example.state for example in examples],
        "city": [example.city for example in examples],
        "distance_km": distances_km(predictions, [example.latlon_deg for example in examples]).tolist(),
    }


def distances_km(predictions: Sequence[Prediction], truth_latlon_deg: Sequence[tuple[float, float]]) -> Tensor:
    """(N,) float64 km from each prediction to its truth, NaN where a prediction has no coordinates."""
    nowhere = (math.nan, math.nan)
    predicted = torch.tensor([p.latlon_deg or nowhere for p in predictions], dtype=torch.float64).view(-1, 2)
    return haversine_km(predicted, torch.tensor(truth_latlon_deg, dtype=torch.float64).view(-1, 2))


def _checked(name: str, values: Sequence[float | None], expected: int) -> Tensor:
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ValueError(f"reward {name!r} must return a list of {expected} values, got {values!r}.")
    values = list(values)
    if len(values) != expected:
        raise ValueError(f"reward {name!r} must return {expected} values, one per completion, got {len(values)}.")
    for value in values:
        if value is not None and not _is_finite(value):
            raise ValueError(f"reward {name!r} returned {value!r}; return a finite number, or None where none applies.")
    return torch.tensor([math.nan if value is None else float(value) for value in values], dtype=torch.float64)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


__all__ = ["REWARDS", "Reward", "Scores", "distances_km", "find_rewards", "score"]
