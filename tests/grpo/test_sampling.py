"""Groups without signal are replaced by groups of fresh prompts, a bounded number of times."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import model_config, picture
from grpo_steps import scores_of, with_options

from geogrpo.clock import Clock
from geogrpo.config import RewardConfig
from geogrpo.data.loader import encode_all
from geogrpo.distributed import load_sharded
from geogrpo.grpo.metrics import sampling_metrics
from geogrpo.grpo.sampling import Sampled, StepSampler, signal_of
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rollout import make_engine
from geogrpo.rollout.native import NativeEngine
from geogrpo.types import Example, Rollouts

NUM_EXAMPLES, PER_STEP = 12, 4


@dataclass
class Draw:
    """Fresh prompts in a fixed order, and what was asked for."""

    order: list[int]
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def extra_indices(self, count: int, seed: int, step: int, round: int, *, per_step: int) -> list[int]:
        self.asked.append((count, step, round))
        taken = sum(asked for asked, _, _ in self.asked[:-1])
        return self.order[taken : taken + count]


@pytest.fixture(scope="module")
def model(answering_folder: Path) -> tuple[Policy, Processor]:
    return load_sharded(model_config(answering_folder), "short")


@pytest.fixture
def examples() -> list[Example]:
    return [Example(f"place-{i}", picture(i, (56, 56)), (10.0, 10.0)) for i in range(NUM_EXAMPLES)]


def rewarding(with_signal: set[str]) -> Callable[..., list[float]]:
    """Differs within the groups of some examples, and is 0.9 elsewhere."""

    def reward(prompts: list[str], completions: list[str], *, example_id: list[str], **_: Any) -> list[float]:
        return [float(i) if example_id[i] in with_signal else 0.9 for i in range(len(completions))]

    return reward


def sample(model: tuple[Policy, Processor], examples: list[Example], reward: Any, rounds: int, draw: Draw) -> Sampled:
    policy, processor = model
    config = with_options(
        group_size=2,
        prompts_per_step=PER_STEP,
        max_resampling_rounds=rounds,
        rewards=RewardConfig(weights={"custom": 1.0}, gates=[]),
    )
    sampler = StepSampler(
        make_engine("native", processor),
        policy,
        processor,
        examples=examples,
        draw=draw,
        config=config,
        rewards={"custom": reward},
        seed=3,
        clock=Clock(policy.device),
    )
    batch = encode_all(examples, list(range(PER_STEP)), processor.encode_prompt, range(PER_STEP))
    return sampler.sample(5, batch)


def ids_of(sampled: Sampled) -> list[str]:
    return [prompt.example.id for prompt in sampled.rollouts.prompts]


def test_groups_without_signal_are_replaced_where_they_stand(
    model: tuple[Policy, Processor], examples: list[Example]
) -> None:
    draw = Draw([4, 5, 6, 7])
    reward = rewarding({"place-0", "place-2", "place-5", "place-6"})
    sampled = sample(model, examples, reward, rounds=5, draw=draw)
    # 1 and 3 had none; 4 took the place of 1 and had none either, 5 that of 3; then 6 that of 4.
    assert ids_of(sampled) == ["place-0", "place-6", "place-2", "place-5"]
    assert draw.asked == [(2, 5, 1), (1, 5, 2)]
    assert signal_of(sampled.scores, "sum_then_normalize").all()
    assert (sampled.num_replaced, sampled.num_rounds) == (3, 2)
    assert sampling_metrics(sampled, 5) == {"resampling/num_replaced": 3, "resampling/num_rounds": 2}
    assert len(sampled.rollouts.token_ids) == len(sampled.rollouts.texts) == PER_STEP
    assert sampled.scores.total.shape == sampled.scores.distance_km.shape == (PER_STEP, 2)


def test_no_two_groups_of_a_step_share_a_seed(
    model: tuple[Policy, Processor], examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    original = NativeEngine.sample

    def noting(self: NativeEngine, *args: Any, seeds: list[tuple[int, ...]], **options: Any) -> Rollouts:
        seen.extend(seeds)
        return original(self, *args, seeds=seeds, **options)

    monkeypatch.setattr(NativeEngine, "sample", noting)
    sample(model, examples, rewarding(set()), rounds=2, draw=Draw(list(range(4, 12))))
    assert len(seen) == len(set(seen)) == 12


def test_rounds_are_bounded_and_the_last_groups_stay(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    sampled = sample(model, examples, rewarding({"place-1"}), rounds=2, draw=Draw(list(range(4, 12))))
    assert ids_of(sampled) == ["place-7", "place-1", "place-8", "place-9"]
    assert signal_of(sampled.scores, "sum_then_normalize").tolist() == [False, True, False, False]
    assert sampled.num_rounds == 2


def test_without_rounds_nothing_is_drawn(model: tuple[Policy, Processor], examples: list[Example]) -> None:
    draw = Draw([])
    sampled = sample(model, examples, rewarding(set()), rounds=0, draw=draw)
    assert ids_of(sampled) == [f"place-{i}" for i in range(PER_STEP)]
    assert not draw.asked
    assert sampling_metrics(sampled, 0) == {}


def test_a_fresh_image_that_cannot_be_read_leaves_the_group(
    model: tuple[Policy, Processor], examples: list[Example], tmp_path: Path
) -> None:
    broken = [*examples[:4], Example("broken", tmp_path / "missing.png", (0.0, 0.0)), *examples[5:]]
    sampled = sample(model, broken, rewarding({"place-0", "place-1", "place-2"}), rounds=1, draw=Draw([4]))
    assert ids_of(sampled) == ["place-0", "place-1", "place-2", "place-3"]
    (message,) = sampled.skipped
    assert "broken" in message


def test_signal_is_exact_and_of_any_reward_where_each_is_normalised() -> None:
    scores = scores_of(torch.tensor([[0.9, 0.9], [0.9, 0.9 + 1e-15]], dtype=torch.float64))
    assert signal_of(scores, "sum_then_normalize").tolist() == [False, True]
    first = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    cancelling = replace(scores_of(torch.ones(2, 2)), terms=torch.stack([first, 1 - first]))
    assert signal_of(cancelling, "sum_then_normalize").tolist() == [False, False]
    assert signal_of(cancelling, "normalize_then_sum").tolist() == [True, False]
