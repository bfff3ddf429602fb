"""Our losses against what TRL's trainers compute, on the same log-probs, advantages and masks."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from geogrpo_kernels import PolicyObjective, token_weights
from geogrpo_kernels.objective import token_terms
from torch import Tensor

from geogrpo.config import LossConfig
from geogrpo.losses import LossInputs, clips, find_loss

# Installed or not, vLLM is not needed here, and TRL would import it.
sys.modules.setdefault("vllm", None)  # type: ignore[arg-type]
grpo_trainer = pytest.importorskip(
    "trl.trainer.grpo_trainer", reason="compares with TRL: pip install 'geogrpo[peers]'", exc_type=ImportError
)
rloo_trainer = pytest.importorskip("trl.trainer.rloo_trainer", exc_type=ImportError)

LENGTHS = torch.tensor([5, 1, 3, 6])
LONGEST = 6
# TRL's name, and its epsilon_high for cispo, which is the bound itself
NAMES = {"gspo": "grpo", "cispo": "cispo"}


@pytest.fixture
def rollout() -> dict[str, Tensor]:
    """(C, T) padded: log-probs that moved by up to 60 % of a ratio, and (C,) advantages of both signs."""
    shape = (len(LENGTHS), LONGEST)
    logprobs = -2 * torch.rand(shape, dtype=torch.float64)
    return {
        "logprobs": logprobs,
        "old": logprobs + 0.25 * torch.randn(shape, dtype=torch.float64),
        "ref": logprobs + 0.3 * torch.randn(shape, dtype=torch.float64),
        "entropy": 3 * torch.rand(shape, dtype=torch.float64),
        "advantages": torch.tensor([1.3, -0.4, -1.0, 0.6], dtype=torch.float64),
        "mask": (torch.arange(LONGEST) < LENGTHS[:, None]).long(),
    }


def ours(rollout: dict[str, Tensor], config: LossConfig) -> tuple[float, Tensor]:
    """The loss and its gradient by the log-probs, (C, T)."""
    keep = rollout["mask"].bool()
    leaf = rollout["logprobs"].clone().requires_grad_()
    logprobs, old, ref = leaf[keep], rollout["old"][keep], rollout["ref"][keep]
    loss = find_loss(config)
    weights = token_weights(LENGTHS, loss.average, LONGEST if loss.average == "constant" else None).double()
    completion = torch.arange(len(LENGTHS)).repeat_interleave(LENGTHS)
    advantages = rollout["advantages"][completion]
    if config.top_entropy_share < 1:
        entropy = rollout["entropy"][keep]
        advantages = advantages * (entropy >= entropy.quantile(1 - config.top_entropy_share))
    inputs = LossInputs(advantages, weights, completion, LENGTHS, old, ref if config.beta else None)
    objective = loss.function(inputs, config)
    if isinstance(objective, PolicyObjective):
        terms = token_terms(logprobs.detach(), torch.zeros_like(logprobs), objective, slice(None))
        value = (terms.loss + (logprobs - logprobs.detach()) * terms.grad_logprobs).sum()
    else:
        value = objective.loss(logprobs, torch.zeros_like(logprobs)).loss
    return float(value.detach()), torch.autograd.grad(value, leaf)[0]


def theirs(rollout: dict[str, Tensor], config: LossConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[float, Tensor]:
    """GRPOTrainer's own function on a trainer that holds nothing but the options it reads."""
    clip_low, clip_high = clips(config)
    leaf = rollout["logprobs"].clone().requires_grad_()
    trainer: Any = SimpleNamespace(
        loss_type=NAMES.get(config.name, config.name),
        importance_sampling_level="sequence" if config.name == "gspo" else "token",
        epsilon_low=clip_low,
        epsilon_high=1 + clip_high if config.name == "cispo" else clip_high,
        beta=config.beta,
        top_entropy_quantile=config.top_entropy_share,
        max_completion_length=LONGEST,
        args=SimpleNamespace(
            delta=config.delta,
            use_bias_correction_kl=False,
            sapo_temperature_pos=config.tau_positive,
            sapo_temperature_neg=config.tau_negative,
            steps_per_generation=1,
        ),
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=SimpleNamespace(
            num_processes=1,
            gather=lambda x: x,
            pad_across_processes=lambda x, **_: x,
            reduce=lambda x, **_: x,
            sync_gradients=True,
        ),
        off_policy_mask_threshold=None,
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": __import__("collections").defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *_, **__: (leaf, rollout["entropy"], None),
    )
    trainer.get_high_entropy_mask = lambda *args: grpo_trainer.GRPOTrainer.get_high_entropy_mask(trainer, *args)
    inputs = {
        "prompt_ids": torch.zeros(len(LENGTHS), 1, dtype=torch.int64),
        "prompt_mask": torch.ones(len(LENGTHS), 1, dtype=torch.int64),
        "completion_ids": torch.zeros(len(LENGTHS), LONGEST, dtype=torch.int64),
        "completion_mask": rollout["mask"],
        "advantages": rollout["advantages"],
        "old_per_token_logps": rollout["old"],
        "ref_per_token_logps": rollout["ref"],
        "num_items_in_batch": rollout["mask"].sum(),
    }
    owner = rloo_trainer.RLOOTrainer if config.name == "rloo" else grpo_trainer.GRPOTrainer
    if config.name == "rloo":
        inputs["old_logps"] = (rollout["old"] * rollout["mask"]).sum(-1)
    value = owner._compute_loss(trainer, None, inputs)
    return float(value.detach()), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize(
    "config",
    [
        *(LossConfig(name=name) for name in ("grpo", "dapo", "dr_grpo", "bnpo", "sapo", "rloo")),
        LossConfig(name="gspo", clip_low=0.05, clip_high=0.1),
        LossConfig(name="cispo", clip_high=0.2),
        LossConfig(name="grpo", delta=1.25),
        LossConfig(name="gspo", clip_low=0.05, clip_high=0.1, delta=1.15),
        LossConfig(name="grpo", clip_low=0.1, clip_high=0.28, beta=0.3),
        LossConfig(name="cispo", clip_high=0.2, beta=0.3),
        LossConfig(name="gspo", clip_low=0.05, clip_high=0.1, beta=0.3),
        LossConfig(name="sapo", tau_positive=0.7, tau_negative=2.0, beta=0.3),
        LossConfig(name="dapo", top_entropy_share=0.4),
        LossConfig(name="gspo", clip_low=0.05, clip_high=0.1, top_entropy_share=0.4),
    ],
    ids=lambda config: "-".join(f"{v}" for v in (config.name, config.delta, config.beta, config.top_entropy_share)),
)
def test_value_and_gradient_are_those_of_trl(
    config: LossConfig, rollout: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    value, gradient = ours(rollout, config)
    expected_value, expected_gradient = theirs(rollout, config, monkeypatch)
    # float32 token weights
    assert value == pytest.approx(expected_value, rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9)
    assert gradient[rollout["mask"].bool()].any()
