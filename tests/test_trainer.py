"""GRPO learns what it is paid for, and leaves the weights alone where there is nothing to learn."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import model_config

from geogrpo.checkpoint import Progress
from geogrpo.config import GRPOConfig, LossConfig, OptimizerConfig, RewardConfig, SamplingConfig
from geogrpo.data.draws import step_indices
from geogrpo.distributed import load_sharded
from geogrpo.grpo import learning
from geogrpo.grpo.reference import CopyReference
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rewards import PRESETS, Scores, resolve_preset
from geogrpo.trainer import StepRecord, train_grpo
from geogrpo.types import Example

CONFIG = GRPOConfig(
    steps=1,
    prompts_per_step=4,
    group_size=8,
    sampling=SamplingConfig(max_new_tokens=30),
    rewards=RewardConfig(weights={"custom": 1.0}, gates=[]),
    optimizer=OptimizerConfig(lr=1e-3),
)


def southern(prompts: list[str], completions: list[str], *, prediction: list, **columns: Any) -> list[float]:
    """1 for an answer south of the equator."""
    return [float(p.latlon_deg is not None and p.latlon_deg[0] < 0) for p in prediction]


def constant(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    # 0.9 * 8 / 8 is not 0.9 in floating point: only an exact test of equality sees that there is no signal.
    return [0.9] * len(completions)


@pytest.fixture
def model(answering_folder: Path) -> tuple[Policy, Processor]:
    return load_sharded(model_config(answering_folder), "short")


def train(model: tuple[Policy, Processor], examples: list[Example], reward: Any, **changes: Any) -> list[StepRecord]:
    config = dataclasses.replace(CONFIG, **{key: value for key, value in changes.items() if key != "reference"})
    records: list[StepRecord] = []
    rewards = {"custom": reward}
    reference = changes.get("reference")
    train_grpo(*model, examples, config, rewards=rewards, reference=reference, on_step=records.append)
    return records


def weights(policy: Policy) -> torch.Tensor:
    return torch.cat([p.detach().full_tensor().flatten() for p in policy.parameters()])


def test_the_reward_rises(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    records = train(model, examples, southern, steps=30)
    first = sum(record.metrics["reward"] for record in records[:3]) / 3
    last = sum(record.metrics["reward"] for record in records[-3:]) / 3
    # About half of the untrained answers are southern, 96 of them counted: room to rise by more than is asked for.
    assert first < 0.65
    assert last > first + 0.2


def test_equal_rewards_leave_the_weights_alone(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    before = weights(model[0])
    (record,) = train(model, examples, constant)
    assert record.metrics["frac_reward_zero_std"] == 1.0
    assert record.metrics["grad_norm"] == 0.0
    assert torch.equal(weights(model[0]), before)


def test_the_kl_pulls_also_where_there_is_no_signal(
    model: tuple[Policy, Processor], examples: list[Example], answering_folder: Path
) -> None:
    reference, _ = load_sharded(model_config(answering_folder), "short")
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(0.9)
    before = weights(model[0])
    (record,) = train(model, examples, constant, loss=LossConfig(beta=0.1), reference=CopyReference(reference))
    assert record.metrics["kl"] > 0
    assert not torch.equal(weights(model[0]), before)


def test_beta_without_a_reference_is_refused(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    with pytest.raises(ValueError, match="needs a reference"):
        train(model, examples, southern, loss=LossConfig(beta=0.1))


def test_sampling_and_training_agree_on_every_token(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    (record,) = train(model, examples, southern)
    assert record.metrics["sampling/sampling_logp_difference/mean"] < 1e-5


def test_a_step_reports_what_it_took(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    (record,) = train(model, examples, southern)
    metrics = record.metrics
    phases = ("data", "prefill", "decode", "reward", "forward_backward", "optimizer", "communication")
    seconds = [metrics[f"timing_s/{phase}"] for phase in phases]
    assert min(seconds) > 0
    # The phases are nearly all of the step.
    assert 0.7 * metrics["step_s"] < sum(seconds) <= metrics["step_s"] * 1.01
    assert metrics["memory_gib/forward_backward"] > 0
    assert 0 < metrics["perf/mfu"] < 1.5
    assert metrics["perf/dense_tokens_per_s"] > metrics["perf/trained_tokens_per_s"] > 0


def test_a_frozen_tower_is_encoded_once_and_left_as_it_was(answering_folder: Path, examples: list[Example]) -> None:
    config = dataclasses.replace(model_config(answering_folder), freeze_vision=True)
    model = load_sharded(config, "short")
    tower = {name: p.clone() for name, p in model[0].model.model.visual.named_parameters()}
    before = [p.detach().full_tensor().clone() for p in model[0].model.model.language_model.parameters()]
    records = train(model, examples, southern, steps=3)
    assert records[-1].metrics["grad_norm"] > 0
    cache = model[0].vision_cache
    assert cache is not None
    # Four images in three steps: sampling finds them from the second on, training always.
    assert cache.num_computed == 4
    assert cache.num_found > 2 * 4
    for name, parameter in model[0].model.model.visual.named_parameters():
        assert torch.equal(parameter, tower[name]), name
    after = [p.detach().full_tensor() for p in model[0].model.model.language_model.parameters()]
    assert all(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_step_reports_what_its_completions_say(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    (record,) = train(model, examples, southern, advantage_scale="none")
    completions, metrics = record.completions, record.metrics
    assert len(completions) == 32
    assert {completion["id"] for completion in completions} == {example.id for example in examples}
    rewards = [completion["reward"] for completion in completions]
    assert metrics["reward"] == pytest.approx(sum(rewards) / 32)
    assert metrics["rewards/custom/mean"] == pytest.approx(sum(rewards) / 32)
    parsed = [completion["predicted_latlon_deg"] is not None for completion in completions]
    assert metrics["parse_rate"] == pytest.approx(sum(parsed) / 32)
    for start in range(0, 32, 8):
        group = completions[start : start + 8]
        mean = sum(completion["reward"] for completion in group) / 8
        for completion in group:
            assert completion["advantage"] == pytest.approx(completion["reward"] - mean, abs=1e-6)
            assert (completion["distance_km"] is None) == (completion["predicted_latlon_deg"] is None)


def test_an_epoch_whose_images_are_all_unreadable_stops_with_the_first_name(
    model: tuple[Policy, Processor], examples: list[Example]
) -> None:
    gone = [Example(example.id, f"/gone/{example.id}.png", example.latlon_deg) for example in examples]
    with pytest.raises(ValueError, match=r"could be read; the first: example 'place-\d': .*/gone/place-\d\.png"):
        train(model, gone, southern, steps=5)


def test_one_step_without_a_readable_image_does_not_stop_training(
    model: tuple[Policy, Processor], examples: list[Example]
) -> None:
    (first,) = step_indices(len(examples), 1, 0, 0)
    mixed = list(examples)
    mixed[first] = Example("gone", "/gone.png", (0.0, 0.0))
    records = train(model, mixed, southern, steps=2, prompts_per_step=1)
    assert math.isnan(records[0].metrics["reward"])
    assert records[0].metrics["num_skipped_images"] == 1
    assert len(records[1].completions) == 8


def test_without_a_reference_there_is_no_kl_to_report(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    (record,) = train(model, examples, southern)
    assert "entropy" in record.metrics
    assert "kl" not in record.metrics


def test_training_goes_on_from_its_progress(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    progress, seen = Progress(stage="grpo", step=3), []
    config = dataclasses.replace(CONFIG, steps=5)
    train_grpo(*model, examples, config, rewards={"custom": southern}, progress=progress, on_step=seen.append)
    assert [record.step for record in seen] == [4, 5]
    assert progress.step == 5
    assert math.isfinite(seen[-1].metrics["loss"])


@pytest.mark.parametrize("preset", sorted(set(PRESETS) - {"globe_code", "globe_paper"}))
def test_every_preset_without_a_judge_trains(
    model: tuple[Policy, Processor], examples: list[Example], preset: str
) -> None:
    shown = [dataclasses.replace(example, columns={"entities": ["palm"]}) for example in examples]
    rewards = RewardConfig(preset=preset)
    (record,) = train(model, shown, constant, rewards=rewards)
    expected = resolve_preset(rewards)
    assert set(record.completions[0]["rewards"]) == {*expected.weights, *expected.gates}
    assert math.isfinite(record.metrics["reward"])


def test_each_rewards_own_advantages_are_summed_where_so_configured(
    model: tuple[Policy, Processor], examples: list[Example]
) -> None:
    def tiny_but_loud(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [1e-3 * (i % 2) for i in range(len(completions))]

    weights = {"custom": 1.0, "format": 1.0}
    metrics = {}
    for aggregation in ("sum_then_normalize", "normalize_then_sum"):
        rewards = RewardConfig(weights=weights, gates=[], aggregation=aggregation)
        (record,) = train(model, examples, tiny_but_loud, rewards=rewards, optimizer=OptimizerConfig(lr=0.0))
        group = [c for c in record.completions if c["id"] == record.completions[0]["id"]]
        metrics[aggregation] = [
            (c["advantage"], c["rewards"]["format"], c["rewards"]["custom"]) for c in record.completions
        ]
        assert len(group) == 8
    # Among completions of one form the small reward decides: by a hair in the sum, by as much as the form when apart
    gaps = {name: _gap_by_parity(values) for name, values in metrics.items()}
    assert gaps["normalize_then_sum"] > 100 * gaps["sum_then_normalize"] > 0


def _gap_by_parity(values: list[tuple[float, float, float]]) -> float:
    """Mean advantage of what the small reward likes less that of the rest, in groups where the form differs."""
    gaps = []
    for start in range(0, len(values), 8):
        group = values[start : start + 8]
        if len({form for _, form, _ in group}) == 2:
            for form in (0.0, 1.0):
                liked = [a for a, f, small in group if f == form and small > 0]
                rest = [a for a, f, small in group if f == form and small == 0]
                if liked and rest:
                    gaps.append(sum(liked) / len(liked) - sum(rest) / len(rest))
    return sum(gaps) / len(gaps)


@pytest.mark.parametrize("aggregation", ["sum_then_normalize", "normalize_then_sum"])
def test_advantages_of_two_ranks_are_those_of_one(monkeypatch: pytest.MonkeyPatch, aggregation: Any) -> None:
    """Five groups as three and two, and a third rank without any."""
    terms, weights = torch.rand(2, 5, 4, dtype=torch.float64), torch.tensor([1.0, 0.3], dtype=torch.float64)
    config = dataclasses.replace(
        CONFIG, advantage_scale="batch", rewards=RewardConfig(preset="multiscale", aggregation=aggregation)
    )

    def scores(rows: slice) -> Scores:
        mine = terms[:, rows] if rows.start != rows.stop else torch.zeros(2, 0, 0, dtype=torch.float64)
        total = (weights[:, None, None] * mine).sum(0)
        return Scores(total, {}, mine, weights, [], torch.full_like(total, math.nan))

    def advantages_of_rank(scores: Scores) -> torch.Tensor:
        return learning.advantages_over_ranks(scores.total, scores, config)

    whole = advantages_of_rank(scores(slice(0, 5)))
    parts = [scores(slice(0, 3)), scores(slice(3, 5)), scores(slice(5, 5))]
    is_decoupled = aggregation == "normalize_then_sum"
    gathered = [part.terms.transpose(0, 1) if is_decoupled else part.total for part in parts]
    monkeypatch.setattr(learning, "all_gather_list", lambda mine: gathered)
    found = []
    for number, part in enumerate(parts):
        monkeypatch.setattr(learning, "rank", lambda number=number: number)
        found.append(advantages_of_rank(part))
    assert [len(part) for part in found] == [3, 2, 0]
    assert torch.equal(torch.cat(found[:2]), whole)


def test_a_missing_column_stops_before_the_first_step(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    with pytest.raises(ValueError, match="reward 'visual_recall' needs the column 'entities'"):
        train(model, examples, constant, rewards=RewardConfig(preset="globe_two_rewards"))


def test_a_reward_may_start_while_others_are_still_sampled(
    model: tuple[Policy, Processor], examples: list[Example]
) -> None:
    class Early:
        """Notes what it was started with."""

        def __init__(self) -> None:
            self.started: list[tuple[str, str]] = []

        def start(self, example: Example, completion: str) -> None:
            self.started.append((example.id, completion))

        def __call__(self, prompts: list[str], completions: list[str], *, example: list, **_: Any) -> list[float]:
            asked = [(one.id, text) for one, text in zip(example, completions, strict=True)]
            assert sorted(self.started) == sorted(asked)
            return [float(len(text)) for text in completions]

    early = Early()
    train(model, examples, early)
    assert len(early.started) == 32


def test_failures_are_counted_where_they_do_not_stop(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    def wild(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [math.nan if i == 3 else 1.0 for i in range(len(completions))]

    rewards = RewardConfig(weights={"custom": 1.0}, gates=[], on_error="missing")
    (record,) = train(model, examples, wild, rewards=rewards)
    assert record.metrics["rewards/custom/num_failed"] == 1
    assert record.completions[3]["rewards"]["custom"] is None
