"""Rollouts -> what every completion earned.

Shapes: P prompts, G group, K rewards in the sum, N completions.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from geogrpo.config import RewardConfig
from geogrpo.parsing import parse_completion
from geogrpo.regions.collection import no_garbage_collection
from geogrpo.rewards.distance import distances_km
from geogrpo.rewards.judge import JudgeError
from geogrpo.rewards.presets import Preset, resolve_preset
from geogrpo.types import Example, Prediction, Rollouts

Reward = Callable[..., Sequence[float | None]]
COLUMNS = (
    "prediction",
    "distance_km",
    "latlon_deg",
    "country",
    "state",
    "city",
    "example_id",
    "example",
    "completion_ids",
)
"""What every reward is called with, besides prompts and completions and the examples' own columns."""
NUM_CHECKED = 100
"""Examples in which check_columns looks for a column."""
SHOWN_CHARS = 200
"""Of a completion in a message."""


@dataclass(frozen=True)
class Scores:
    """What every completion earned."""

    total: Tensor
    """(P, G) float64: the weighted sum times the gates."""
    components: dict[str, Tensor]
    """Each reward before weighting, the gates included: (P, G) float64, NaN where it does not apply."""
    terms: Tensor
    """(K, P, G) float64: each reward of the sum times the gates, before weighting; 0 where it does not apply."""
    term_weights: Tensor
    """(K,) float64."""
    predictions: list[list[Prediction]]
    """P lists of G."""
    distance_km: Tensor
    """(P, G) float64, NaN without usable coordinates."""
    num_failed: dict[str, int] = field(default_factory=dict)
    """Reward to completions for which it failed and counts as missing (config.on_error)."""

    def chosen(self, indices: Sequence[int]) -> "Scores":
        """The groups at some indices, in their order. num_failed stays that of all."""
        rows = list(indices)
        return replace(
            self,
            total=self.total[rows],
            components={name: values[rows] for name, values in self.components.items()},
            terms=self.terms[:, rows],
            predictions=[self.predictions[i] for i in rows],
            distance_km=self.distance_km[rows],
        )

    def __add__(self, other: "Scores") -> "Scores":
        """These groups, then the other's, scored by the same rewards in groups of the same size."""
        return replace(
            self,
            total=torch.cat([self.total, other.total]),
            components={name: torch.cat([values, other.components[name]]) for name, values in self.components.items()},
            terms=torch.cat([self.terms, other.terms], dim=1),
            predictions=[*self.predictions, *other.predictions],
            distance_km=torch.cat([self.distance_km, other.distance_km]),
            num_failed={name: count + other.num_failed[name] for name, count in self.num_failed.items()},
        )


def check_columns(rewards: Mapping[str, Reward], examples: Sequence[Example]) -> None:
    """Raise ValueError when a reward asks for a column that neither the library nor the first examples have."""
    first = [examples[i] for i in range(min(len(examples), NUM_CHECKED))]
    known = [*COLUMNS, *sorted({column for example in first for column in example.columns})]
    for name, reward in rewards.items():
        for column in _asked_columns(reward):
            if first and column not in known:
                raise ValueError(
                    f"reward {name!r} needs the column {column!r}, which example {first[0].id!r} does not have."
                    f" There are: {', '.join(known)}."
                )


def _asked_columns(reward: Reward) -> list[str]:
    """The columns without which a reward cannot be called."""
    parameters = inspect.signature(reward).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]


def score(rollouts: Rollouts, rewards: Mapping[str, Reward], config: RewardConfig) -> Scores:
    """Rewards of every completion.

    Args:
        rewards: from find_rewards, with the same configuration.
    Raises:
        ValueError: naming the reward and the completion, when one raises, or returns no list, the wrong number of
            values, or one that is neither a finite number nor None; unless config.on_error is "missing". A judge that
            gave no answer always stops.
    """
    group_size = len(rollouts.texts[0]) if rollouts.texts else 0
    examples = [p.example for p, group in zip(rollouts.prompts, rollouts.texts, strict=True) for _ in group]
    completions = [text for group in rollouts.texts for text in group]
    return score_completions(
        [p.question for p, group in zip(rollouts.prompts, rollouts.texts, strict=True) for _ in group],
        completions,
        examples,
        [ids.tolist() for group in rollouts.token_ids for ids in group],
        rewards,
        config,
        group_size=group_size,
    )


def score_completions(
    prompts: list[str],
    completions: list[str],
    examples: list[Example],
    completion_ids: list[list[int]],
    rewards: Mapping[str, Reward],
    config: RewardConfig,
    *,
    group_size: int,
) -> Scores:
    """`score` of completions in one list, prompt-major: P * G prompts, completions, examples and token ids."""
    shape = (len(completions) // max(group_size, 1), group_size)
    components, counted, num_failed = {}, {}, {}
    with no_garbage_collection():
        columns = _columns(completions, examples, completion_ids)
        for name, reward in rewards.items():
            call = _Call(name, reward, prompts, completions, columns)
            values = call.values(config.on_error)
            components[name] = torch.tensor(values, dtype=torch.float64).view(shape)
            counted[name] = _without_failures(components[name], call.failed_rows)
            if config.on_error == "missing":
                num_failed[name] = len(call.failed_rows)
    preset = resolve_preset(config)
    terms, weights = _terms(counted, preset, shape)
    predictions = columns["prediction"]
    return Scores(
        total=(weights[:, None, None] * terms).sum(0),
        components=components,
        terms=terms,
        term_weights=weights,
        predictions=[predictions[i : i + group_size] for i in range(0, len(predictions), group_size or 1)],
        distance_km=torch.tensor(columns["distance_km"], dtype=torch.float64).view(shape),
        num_failed=num_failed,
    )


def _without_failures(values: Tensor, failed_rows: list[int]) -> Tensor:
    """(P, G) values that count: 0 where the reward does not apply, and the group's mean where it failed, so that a
    completion is neither punished nor paid for a fault of the reward.
    """
    is_failed = torch.zeros(values.numel(), dtype=torch.bool)
    is_failed[failed_rows] = True
    is_failed = is_failed.view(values.shape)
    # A group in which all failed has the mean NaN, which then counts 0.
    means = values.masked_fill(is_failed, math.nan).nanmean(dim=-1, keepdim=True)
    return torch.where(is_failed, means, values).nan_to_num(0.0)


def _terms(counted: dict[str, Tensor], preset: Preset, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    gate = torch.ones(shape, dtype=torch.float64)
    for name in preset.gates:
        if ((counted[name] < 0) | (counted[name] > 1)).any():
            raise ValueError(
                f"grpo.rewards.gates: reward {name!r} returned {float(counted[name].max())}, and a gate lies in [0, 1]."
            )
        gate = gate * counted[name]
    terms = torch.stack([counted[name] * gate for name in preset.weights])
    return terms, torch.tensor(list(preset.weights.values()), dtype=torch.float64)


def _columns(completions: list[str], examples: list[Example], completion_ids: list[list[int]]) -> dict[str, list]:
    """One entry per completion. Ours win over columns of the examples with the same name."""
    # A policy that has made up its mind repeats itself.
    parsed = {text: parse_completion(text) for text in dict.fromkeys(completions)}
    predictions = [parsed[text] for text in completions]
    columns: dict[str, list] = {}
    for key in {key for example in examples for key in example.columns} - {"prompts", "completions"}:
        columns[key] = [example.columns.get(key) for example in examples]
    truth = [example.latlon_deg for example in examples]
    return columns | {
        "prediction": predictions,
        "distance_km": distances_km([p.latlon_deg for p in predictions], truth).tolist(),
        "latlon_deg": truth,
        "country": [example.country for example in examples],
        "state": [example.state for example in examples],
        "city": [example.city for example in examples],
        "example_id": [example.id for example in examples],
        "example": examples,
        "completion_ids": completion_ids,
    }


class _WrongReturn(ValueError):
    """Not one value per completion."""


class _Call:
    """One reward on one batch."""

    def __init__(
        self, name: str, reward: Reward, prompts: list[str], completions: list[str], columns: dict[str, list]
    ) -> None:
        self.name, self.reward = name, reward
        nothing = [None] * len(completions)
        absent = {column: nothing for column in _asked_columns(reward) if column not in columns}
        self.prompts, self.completions, self.columns = prompts, completions, {**columns, **absent}
        self.failed_rows: list[int] = []

    def values(self, on_error: str) -> list[float]:
        """(N,) values, NaN where the reward does not apply or, with on_error "missing", failed."""
        if not self.completions:
            return []
        try:
            values = self._call(slice(None))
        except JudgeError:
            raise
        except _WrongReturn as error:
            if on_error == "stop":
                raise ValueError(f"reward {self.name!r} {error}") from error
            values = self._one_by_one(on_error)
        # A reward is the user's code: anything may come out of it.
        except Exception as error:
            values = self._one_by_one(on_error)
            if on_error == "stop":
                # None of them fails alone
                raise ValueError(f"reward {self.name!r} failed: {type(error).__name__}: {error}") from error
        return [self._number(value, i, on_error) for i, value in enumerate(values)]

    def _call(self, rows: slice) -> list:
        columns = {key: column[rows] for key, column in self.columns.items()}
        values = self.reward(self.prompts[rows], self.completions[rows], **columns)
        expected = len(self.completions[rows])
        if not isinstance(values, Iterable) or isinstance(values, str):
            raise _WrongReturn(f"must return a list of {expected} values, got {values!r}.")
        values = list(values)
        if len(values) != expected:
            raise _WrongReturn(f"must return {expected} values, one per completion, got {len(values)}.")
        return values

    def _one_by_one(self, on_error: str) -> list:
        """Each completion alone, to name the one that fails or to leave it out."""
        values = []
        for i in range(len(self.completions)):
            try:
                values += self._call(slice(i, i + 1))
            except JudgeError:
                raise
            except Exception as error:
                if on_error == "stop":
                    message = f"reward {self.name!r} failed for {self._where(i)}: {type(error).__name__}: {error}"
                    raise ValueError(message) from error
                self.failed_rows.append(i)
                values.append(None)
        return values

    def _number(self, value: Any, row: int, on_error: str) -> float:
        if value is None:
            return math.nan
        if _is_finite(value):
            return float(value)
        if on_error == "stop":
            raise ValueError(
                f"reward {self.name!r} returned {value!r} for {self._where(row)};"
                " return a finite number, or None where none applies."
            )
        self.failed_rows.append(row)
        return math.nan

    def _where(self, row: int) -> str:
        text = self.completions[row]
        shown = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}..."
        return f"a completion of example {self.columns['example_id'][row]!r}, {shown!r}"


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
