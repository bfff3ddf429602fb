"""Every pair of options of a GRPO step together, on a tiny model: what must hold whatever the options are."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import model_config, picture
from grpo_steps import (
    ONE_ROW,
    SEVERAL_ROWS,
    assert_same_gradients,
    gradients,
    learn,
    lengths_of,
    sampled_step,
    whole,
    with_options,
)
from pairs import Row, covering_rows

from geogrpo.config import GRPOConfig, LoraConfig, ModelConfig
from geogrpo.distributed import load_sharded
from geogrpo.grpo.reference import AdapterReference, CopyReference, Reference
from geogrpo.losses import LOSSES, find_loss
from geogrpo.policy.adapters import AdapterSnapshot
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.types import Example, Rollouts

LR = 0.02
MODELS = {
    "full": {},
    "frozen_vision": {"freeze_vision": True},
    "lora": {"freeze_vision": True, "lora": LoraConfig(rank=2)},
}
NO_KL: dict[str, Any] = {"loss__beta": 0.0}


def kl(place: str, estimator: str) -> dict[str, Any]:
    return {"loss__beta": 0.05, "loss__kl_in": place, "loss__kl_estimator": estimator}


FACTORS: dict[str, list[Any]] = {
    "loss__name": list(LOSSES),
    "kl": [NO_KL, *(kl(place, k) for place in ("loss", "reward") for k in ("k1", "k2", "k3", "exact"))],
    # scale, baseline
    "advantage": [
        *(("group", "group"), ("batch", "group"), ("none", "group")),
        *(("group", "leave_one_out"), ("none", "leave_one_out"), ("batch", "batch"), ("none", "batch")),
    ],
    "model": list(MODELS),
    "updates_per_sample": [1, 2],
    "loss__top_entropy_share": [1.0, 0.5],
    "sampling__correction": ["none", "token_truncate", "sequence_mask"],
    "old_logprobs": ["policy", "sampler"],
    "overlong": [{}, {"overlong__mask_truncated": True}, {"overlong__buffer_tokens": 20, "overlong__penalty": 4.0}],
    "loss__delta": [None, 6.0],
    "loss__entropy_coef": [0.0, 0.01],
}


def options_of(row: Row) -> dict[str, Any]:
    scale, baseline = row["advantage"]
    plain = {key: value for key, value in row.items() if key not in ("kl", "advantage", "model", "overlong")}
    return plain | row["kl"] | row["overlong"] | {"advantage_scale": scale, "advantage_baseline": baseline}


def is_allowed(row: Row) -> bool:
    """Whether the configuration takes it: what it refuses, it refuses by ValueError."""
    try:
        find_loss(with_options(**options_of(row)).loss)
    except ValueError:
        return False
    return True


EPS = torch.finfo(torch.float32).eps

ROWS = covering_rows(FACTORS, is_allowed)


@dataclasses.dataclass
class Model:
    policy: Policy
    processor: Processor
    rollouts: Rollouts
    reference: Reference
    start: list[torch.Tensor]

    def put_back(self) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.policy.parameters(), self.start, strict=True):
                parameter.copy_(value)


@pytest.fixture(scope="module")
def models(answering_folder: Path) -> dict[str, Model]:
    """Each way to train, on the same completions; some of them cut off."""
    loaded = {}
    for name, changes in MODELS.items():
        config: ModelConfig = dataclasses.replace(model_config(answering_folder), **changes)
        policy, processor = load_sharded(config, "short")
        other, _ = load_sharded(model_config(answering_folder), "short")
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(0.99)
            for key, parameter in policy.named_parameters():
                if "lora_B" in key:
                    parameter.fill_(0.01)
        is_lora = name == "lora"
        reference = AdapterReference(AdapterSnapshot(policy)) if is_lora else CopyReference(other.requires_grad_(False))
        if is_lora:
            with torch.no_grad():
                for key, parameter in policy.named_parameters():
                    if "lora_B" in key:
                        parameter.fill_(0.02)
        examples = [Example(f"place-{i}", picture(i, (56, 56)), (10.0 * i, 20.0)) for i in range(2)]
        rollouts = sampled_step(policy, processor, examples)
        finished = [[(p + g) % 3 > 0 for g in range(4)] for p in range(2)]
        start = [parameter.detach().clone() for parameter in policy.parameters()]
        loaded[name] = Model(policy, processor, dataclasses.replace(rollouts, is_finished=finished), reference, start)
    return loaded


def run(model: Model, config: GRPOConfig, budget: int) -> Any:
    model.put_back()
    return learn(
        model.policy,
        model.processor,
        model.rollouts,
        lengths_of(model.rollouts) + torch.tensor([[0.0, 3.0, 1.0, -2.0]]),
        config,
        budget=budget,
        reference=model.reference if config.loss.beta else None,
        lr=LR,
    )


def test_rows_hold_every_allowed_pair_of_losses_and_other_options() -> None:
    seen = {(row["loss__name"], row["kl"]["loss__beta"], row["model"]) for row in ROWS}
    assert {(name, model) for name, _, model in seen} == {(name, model) for name in LOSSES for model in MODELS}
    assert len(ROWS) < 130


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['loss__name']}-{row['model']}")
def test_a_step_keeps_its_laws_whatever_the_options_are(row: Row, models: dict[str, Model]) -> None:
    model, config = models[row["model"]], with_options(**options_of(row))
    split = run(model, config, SEVERAL_ROWS)
    gradient = gradients(model.policy)
    learned = run(model, config, ONE_ROW)
    # The first update's rounding is in the second's weights.
    assert_same_gradients(gradients(model.policy), gradient, tolerance=1e-5 if config.updates_per_sample == 1 else 1e-3)
    torch.testing.assert_close(learned.advantages, split.advantages, rtol=1e-4, atol=1e-4)
    # Exactly what trains has moved; what its gradient moves by less than it rounds to may stay.
    for (name, parameter), old in zip(model.policy.named_parameters(), model.start, strict=True):
        assert parameter.requires_grad or name not in gradient
        shift = LR * gradient.get(name, torch.zeros(())).abs()
        has_moved = not torch.equal(whole(parameter), whole(old))
        assert has_moved or not bool((shift > EPS * whole(old).abs()).any()), name
        assert not has_moved or bool(shift.any()), name
    assert any(bool(g.any()) for g in gradient.values())
    metrics = learned.metrics | learned.updates[-1].token_means
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert ("kl" in metrics) == (config.loss.beta > 0)
    has_ratio = "sampling/importance_sampling_ratio/mean" in metrics
    assert has_ratio == (config.sampling.correction != "none")
    assert len(learned.updates) == config.updates_per_sample
