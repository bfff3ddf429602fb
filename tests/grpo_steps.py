"""One GRPO step on a tiny model, for the tests of geogrpo.grpo: sampled once, learned from under any options."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from geogrpo.clock import Clock
from geogrpo.config import GRPOConfig, LossConfig, OptimizerConfig, OverlongConfig, RewardConfig, SamplingConfig
from geogrpo.grpo.learning import Learned, StepLearner
from geogrpo.grpo.reference import Reference
from geogrpo.optimization import Passes
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rewards import Scores
from geogrpo.rollout import make_engine
from geogrpo.types import Example, Rollouts

ONE_ROW, SEVERAL_ROWS = 100_000, 60
"""Budgets in which all groups are one row, and in which the largest groups are split."""
BASE = GRPOConfig(
    group_size=4,
    sampling=SamplingConfig(max_new_tokens=24, temperature=0.9),
    rewards=RewardConfig(weights={"custom": 1.0}, gates=[]),
    optimizer=OptimizerConfig(max_grad_norm=0.0),
)
SECTIONS = {"loss": LossConfig, "overlong": OverlongConfig, "sampling": SamplingConfig, "rewards": RewardConfig}


def with_options(config: GRPOConfig = BASE, **options: Any) -> GRPOConfig:
    """The configuration with options changed; loss__beta is the option beta of the section loss."""
    changes: dict[str, Any] = {}
    for key, value in options.items():
        section, _, name = key.partition("__")
        if name:
            changes[section] = dataclasses.replace(changes.get(section, getattr(config, section)), **{name: value})
        else:
            changes[key] = value
    return dataclasses.replace(config, **changes)


def sampled_step(
    policy: Policy, processor: Processor, examples: Sequence[Example], config: GRPOConfig = BASE
) -> Rollouts:
    """Completions of every example."""
    return make_engine("native", processor).sample(
        policy,
        [processor.encode_prompt(example) for example in examples],
        group_size=config.group_size,
        temperature=config.sampling.temperature,
        max_new_tokens=config.sampling.max_new_tokens,
        seeds=[(7, i) for i in range(len(examples))],
    )


def scores_of(rewards: Tensor) -> Scores:
    """Scores whose one reward is (P, G) as given."""
    rewards = rewards.double()
    return Scores(
        total=rewards,
        components={"custom": rewards},
        terms=rewards[None],
        term_weights=torch.ones(1, dtype=torch.float64),
        predictions=[[] for _ in rewards],
        distance_km=torch.full_like(rewards, 1000.0),
    )


def lengths_of(rollouts: Rollouts) -> Tensor:
    """(P, G) float64 tokens of each completion, a reward that differs within groups."""
    return torch.tensor([[float(len(ids)) for ids in group] for group in rollouts.token_ids], dtype=torch.float64)


def learn(
    policy: Policy,
    processor: Processor,
    rollouts: Rollouts,
    rewards: Tensor,
    config: GRPOConfig,
    *,
    budget: int = ONE_ROW,
    reference: Reference | None = None,
    lr: float = 0.0,
) -> Learned:
    """The step's updates, by plain gradient descent."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    passes = Passes(
        dummy=processor.dummy_group(),
        tokens_per_microbatch=budget,
        clock=Clock(policy.device),
        temperature=config.sampling.temperature,
    )
    policy.train()
    learner = StepLearner(policy, torch.optim.SGD(trained, lr=lr), reference, config, passes)
    return learner.learn(rollouts, scores_of(rewards))


def whole(tensor: Tensor) -> Tensor:
    """A parameter or gradient, gathered."""
    # Of one rank, full_tensor is the shard itself.
    return (tensor.detach().full_tensor() if isinstance(tensor, DTensor) else tensor.detach()).clone()


def gradients(policy: Policy) -> dict[str, Tensor]:
    """What the last update left, by parameter; without those that got none."""
    return {name: whole(p.grad) for name, p in policy.named_parameters() if p.grad is not None}


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    """float32 sums in another order: 1e-5 of each tensor's own size, or of the largest's where one nearly cancels."""
    assert actual.keys() == expected.keys()
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in expected.items():
        error = float((actual[name] - gradient).norm())
        assert error <= tolerance * max(float(gradient.norm()), 1e-3 * largest), (name, error, float(gradient.norm()))
