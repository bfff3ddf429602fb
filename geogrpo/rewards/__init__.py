"""What a completion earns. To add a reward: a function in a file here, a line in REWARDS, a table test.

A reward is called with whole columns, one entry per completion, and returns one value per completion, or None where
it does not apply:

    reward(prompts, completions, **columns) -> list[float | None]

Columns: `prediction` (types.Prediction), `distance_km` (NaN without usable coordinates), `latlon_deg`, `country`,
`state` and `city` (the truth), `example_id`, `example`, `completion_ids`, and every column of the examples. A reward
that must wait for others may have a method `start(example, completion)`: it is called as soon as a completion is
sampled, while others still are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from geogrpo.config import JudgeConfig, RewardConfig
from geogrpo.rewards import distance, form, names, region, visual
from geogrpo.rewards.distance import distances_km
from geogrpo.rewards.localizability import Localizability
from geogrpo.rewards.presets import PRESETS, Preset, resolve_preset
from geogrpo.rewards.scoring import Reward, Scores, check_columns, score


def _from_distance(function: Callable[[Tensor], Tensor]) -> Reward:
    def reward(prompts: list[str], completions: list[str], *, distance_km: list[float], **_: Any) -> list[float]:
        return function(torch.tensor(distance_km, dtype=torch.float64)).tolist()

    reward.__doc__ = function.__doc__
    return reward


REWARDS: dict[str, Reward] = {
    **{function.__name__: _from_distance(function) for function in distance.DISTANCE_FUNCTIONS},
    "format": form.coordinate_format,
    "think_answer_tags": form.think_answer_tags,
    "three_names": form.three_names,
    "thinking_length": form.thinking_length,
    "coordinates_region": region.coordinates_region,
    "named_region": region.named_region,
    "consistency": region.consistency,
    "globe_exact": names.globe_exact,
    "globe_substring": names.globe_substring,
    "geovista": names.geovista,
    "geoagent_semantic": names.geoagent_semantic,
    "geoagent_spatial": names.geoagent_spatial,
    "visual_precision": visual.visual_precision,
    "visual_recall": visual.visual_recall,
    "visual_f1": visual.visual_f1,
}

JUDGED_REWARDS: dict[str, Callable[[JudgeConfig], Reward]] = {"localizability": Localizability}
"""Rewards that ask the model of grpo.rewards.judge."""


def find_rewards(config: RewardConfig, custom: Mapping[str, Reward] | None = None) -> dict[str, Reward]:
    """The rewards a configuration names, its gates last.

    Args:
        custom: rewards besides REWARDS, found first.
    Raises:
        ValueError: on an unknown preset; on a reward that is unknown, with its configuration key; when a judged reward
            has no judge.
    """
    preset = resolve_preset(config)
    source = "grpo.rewards.weights" if config.weights else f"grpo.rewards.preset {config.preset}"
    keys = dict.fromkeys(preset.weights, source)
    for gate in preset.gates:
        keys.setdefault(gate, "grpo.rewards.gates")
    known = {**REWARDS, **(custom or {})}
    found: dict[str, Reward] = {}
    for name, key in keys.items():
        if name in known:
            found[name] = known[name]
        elif name in JUDGED_REWARDS:
            found[name] = JUDGED_REWARDS[name](config.judge)
        else:
            raise ValueError(f"{key}: reward {name!r} is unknown. Known: {', '.join([*known, *JUDGED_REWARDS])}.")
    return found


__all__ = [
    "JUDGED_REWARDS",
    "PRESETS",
    "REWARDS",
    "Preset",
    "Reward",
    "Scores",
    "check_columns",
    "distances_km",
    "find_rewards",
    "resolve_preset",
    "score",
]
