"""What each option of a GRPO step changes, and what it leaves alone, on a tiny model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import model_config
from geogrpo_kernels import exact_kl_from_logits, group_advantages
from grpo_steps import (
    BASE,
    SEVERAL_ROWS,
    assert_same_gradients,
    gradients,
    learn,
    lengths_of,
    sampled_step,
    scores_of,
    whole,
    with_options,
)
from torch import Tensor

from geogrpo.config import GRPOConfig, ReferenceConfig
from geogrpo.distributed import load_sharded, reshard
from geogrpo.grpo.learning import advantages_over_ranks, overlong_penalties
from geogrpo.grpo.reference import CopyReference
from geogrpo.losses import LOSSES
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack, split_into_rows
from geogrpo.policy.processing import Processor
from geogrpo.types import Example, Rollouts

LR = 0.02
"""A step of plain gradient descent that moves ratios by some percent."""


@pytest.fixture(scope="module")
def model(answering_folder: Path) -> tuple[Policy, Processor]:
    return load_sharded(model_config(answering_folder), "short")


@pytest.fixture
def policy(model: tuple[Policy, Processor]) -> Iterator[Policy]:
    """Its weights are put back after the test."""
    before = [parameter.detach().clone() for parameter in model[0].parameters()]
    yield model[0]
    reshard(model[0])
    with torch.no_grad():
        for parameter, value in zip(model[0].parameters(), before, strict=True):
            parameter.copy_(value)


@pytest.fixture(scope="module")
def processor(model: tuple[Policy, Processor]) -> Processor:
    return model[1]


@pytest.fixture
def rollouts(policy: Policy, processor: Processor, examples: list[Example]) -> Rollouts:
    return sampled_step(policy, processor, examples)


@pytest.fixture
def reference(answering_folder: Path) -> CopyReference:
    """A model a little away from the policy."""
    reference, _ = load_sharded(model_config(answering_folder), "short")
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(0.97)
    return CopyReference(reference.requires_grad_(False).eval())


def groups_of(rollouts: Rollouts) -> list[Group]:
    return [Group(prompt, ids) for prompt, ids in zip(rollouts.prompts, rollouts.token_ids, strict=True)]


def logprobs_of(policy: Policy, rollouts: Rollouts, config: GRPOConfig = BASE) -> tuple[Tensor, Tensor]:
    """(S,) log-probs and entropy of all completions' tokens, in one row."""
    with torch.no_grad():
        found = policy(pack(groups_of(rollouts)), config.sampling.temperature)
    reshard(policy)
    return found


def per_token(values: Tensor, rollouts: Rollouts) -> Tensor:
    """(P, G) -> (S,)."""
    lengths = [len(ids) for group in rollouts.token_ids for ids in group]
    return values.flatten().repeat_interleave(torch.tensor(lengths))


def budget_of(num_rows: int, rollouts: Rollouts) -> int:
    """A budget in which all groups are so many rows."""
    return next(b for b in range(SEVERAL_ROWS, 2000) if len(split_into_rows(groups_of(rollouts), b)) == num_rows)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_do_not_depend_on_micro_batches(
    name: str, policy: Policy, processor: Processor, rollouts: Rollouts, reference: CopyReference
) -> None:
    """In the second update, whose ratios are not 1; with a KL, so that every token has a gradient."""
    config = with_options(
        loss__name=name, loss__clip_low=0.1, loss__clip_high=0.1, loss__beta=0.05, updates_per_sample=2
    )
    found = []
    weights = [p.detach().clone() for p in policy.parameters()]
    for num_rows in (1, 2, 4):
        budget = budget_of(num_rows, rollouts)
        learned = learn(
            policy, processor, rollouts, lengths_of(rollouts), config, budget=budget, lr=LR, reference=reference
        )
        found.append((gradients(policy), learned.updates[1]))
        with torch.no_grad():
            for parameter, weight in zip(policy.parameters(), weights, strict=True):
                parameter.copy_(weight)
    expected, first = found[0]
    for actual, update in found[1:]:
        # Two updates: the error of the first is in the weights of the second.
        assert_same_gradients(actual, expected, tolerance=1e-4)
        assert update.token_means == pytest.approx(first.token_means, rel=1e-4, abs=1e-6)


def test_the_first_of_two_updates_is_that_of_one(policy: Policy, processor: Processor, rollouts: Rollouts) -> None:
    rewards = lengths_of(rollouts)
    one = learn(policy, processor, rollouts, rewards, BASE)
    gradient = gradients(policy)
    two = learn(policy, processor, rollouts, rewards, with_options(updates_per_sample=2))
    assert two.updates[0] == one.updates[0]
    assert len(two.updates) == 2
    # Nothing moved at a learning rate of 0: the second update compares the policy with itself.
    assert_same_gradients(gradients(policy), gradient)
    assert two.updates[1].token_means["clip_ratio/region_mean"] == 0.0


def test_the_second_update_clips_by_the_first_ones_logprobs(
    policy: Policy, processor: Processor, rollouts: Rollouts
) -> None:
    rewards = lengths_of(rollouts)
    config = with_options(updates_per_sample=2, loss__name="dapo", loss__clip_low=0.05, loss__clip_high=0.05)
    old, _ = logprobs_of(policy, rollouts)
    learn(policy, processor, rollouts, rewards, with_options(loss__name="dapo"), lr=LR)
    new, _ = logprobs_of(policy, rollouts)
    with torch.no_grad():
        # Back to the start, for both updates in one call
        for parameter in policy.parameters():
            parameter.add_(parameter.grad, alpha=LR)
    learned = learn(policy, processor, rollouts, rewards, config, lr=LR)
    advantages = per_token(group_advantages(rewards), rollouts)
    ratio = (new - old).exp()
    is_clipped = (ratio.clamp(0.95, 1.05) * advantages) < (ratio * advantages)
    assert 0 < float(is_clipped.float().mean()) < 1
    means = learned.updates[1].token_means
    has_advantage = advantages != 0
    assert means["clip_ratio/region_mean"] == pytest.approx(float(is_clipped[has_advantage].float().mean()), abs=2e-3)
    assert means["clip_ratio/low_mean"] + means["clip_ratio/high_mean"] == pytest.approx(
        means["clip_ratio/region_mean"]
    )
    assert learned.updates[0].token_means["clip_ratio/region_mean"] == 0.0


def test_old_logprobs_of_the_sampler_are_used_from_the_first_update_on(
    policy: Policy, processor: Processor, rollouts: Rollouts
) -> None:
    """A sampler that claims half of each probability: every ratio is 2, and clipped where that was better."""
    claimed = Rollouts(
        **{**vars(rollouts), "logprobs": [[logprobs - 0.6931472 for logprobs in group] for group in rollouts.logprobs]}
    )
    rewards = lengths_of(rollouts)
    learned = learn(policy, processor, claimed, rewards, with_options(old_logprobs="sampler"))
    advantages = per_token(group_advantages(rewards), rollouts)
    trained = advantages[advantages != 0]
    expected = float((trained > 0).float().mean())
    assert learned.updates[0].token_means["clip_ratio/region_mean"] == pytest.approx(expected)
    assert learned.metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(0.6931472, rel=1e-4)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_a_kl_in_the_loss_adds_beta_times_its_gradient(
    estimator: str, policy: Policy, processor: Processor, rollouts: Rollouts, reference: CopyReference
) -> None:
    config = with_options(loss__name="dapo", loss__beta=0.7, loss__kl_estimator=estimator)
    rewards = lengths_of(rollouts)
    learn(policy, processor, rollouts, rewards, with_options(loss__name="dapo"))
    without = gradients(policy)
    learned = learn(policy, processor, rollouts, rewards, config, reference=reference)
    actual = gradients(policy)
    policy.zero_grad()
    kl = plain_kl(policy, reference.policy, rollouts, estimator)
    kl.mean().mul(0.7).backward()
    expected = {name: without[name] + gradient for name, gradient in gradients(policy).items()}
    assert_same_gradients(actual, expected)
    assert learned.updates[0].token_means["kl"] == pytest.approx(float(kl.mean()), rel=1e-5)


def plain_kl(policy: Policy, reference: Policy, rollouts: Rollouts, estimator: str) -> Tensor:
    """(S,) with autograd, from all logits."""
    batch, temperature = pack(groups_of(rollouts)), BASE.sampling.temperature
    with torch.no_grad():
        ref_hidden = reference.hidden_states(batch)
        ref_logits = ref_hidden @ whole(reference.model.lm_head.weight).T
    hidden = policy.hidden_states(batch)
    logits = hidden @ policy.model.lm_head.weight.T
    logits, ref_logits = (x.index_fill(-1, policy.forbidden_ids, -torch.inf) for x in (logits, ref_logits))
    if estimator == "exact":
        return exact_kl_from_logits(logits, ref_logits, temperature=temperature)
    own, ref = (
        (x / temperature).log_softmax(-1).gather(-1, batch.target_ids[:, None])[:, 0] for x in (logits, ref_logits)
    )
    r = ref - own
    return {"k1": -r, "k2": r.square() / 2, "k3": r.exp() - 1 - r}[estimator]


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_a_kl_in_the_reward_is_taken_off_before_the_advantages(
    estimator: str, policy: Policy, processor: Processor, rollouts: Rollouts, reference: CopyReference
) -> None:
    config = with_options(loss__beta=0.7, loss__kl_estimator=estimator, loss__kl_in="reward", advantage_scale="none")
    rewards = lengths_of(rollouts)
    with torch.no_grad():
        kl = plain_kl(policy, reference.policy, rollouts, estimator)
    reshard(policy)
    lengths = [len(ids) for group in rollouts.token_ids for ids in group]
    sums = torch.stack([part.sum() for part in kl.split(lengths)]).view(rewards.shape)
    learned = learn(policy, processor, rollouts, rewards, config, reference=reference)
    expected = group_advantages(rewards - 0.7 * sums, "none")
    torch.testing.assert_close(learned.advantages, expected, rtol=1e-4, atol=1e-4)
    assert learned.metrics["kl"] == pytest.approx(float(kl.mean()), rel=1e-4)
    # The loss holds none: the same gradient as from those rewards without a reference.
    with_kl = gradients(policy)
    learn(policy, processor, rollouts, rewards - 0.7 * sums, with_options(advantage_scale="none"))
    assert_same_gradients(with_kl, gradients(policy), tolerance=1e-4)


def test_the_top_share_of_entropy_gets_the_policy_gradient(
    policy: Policy, processor: Processor, rollouts: Rollouts
) -> None:
    rewards = lengths_of(rollouts)
    _, entropy = logprobs_of(policy, rollouts)
    config = with_options(loss__name="dapo", loss__top_entropy_share=0.3)
    learned = learn(policy, processor, rollouts, rewards, config)
    actual = gradients(policy)
    policy.zero_grad()
    logprobs, _ = policy(pack(groups_of(rollouts)), BASE.sampling.temperature)
    is_top = entropy >= entropy.sort().values[int(0.7 * len(entropy))]
    assert float(is_top.float().mean()) == pytest.approx(0.3, abs=0.02)
    advantages = per_token(group_advantages(rewards), rollouts)
    # Divided by the number of all tokens, as without the share
    (-(advantages * is_top * logprobs).sum() / len(logprobs)).backward()
    assert_same_gradients(actual, gradients(policy))
    assert learned.updates[0].num_trained_tokens <= len(logprobs)


@pytest.mark.parametrize("mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"])
def test_a_foreign_sampler_is_corrected_for(
    mode: str, policy: Policy, processor: Processor, rollouts: Rollouts
) -> None:
    """The engine's log-probs are off by up to one nat; the weights are those computed from the policy's own."""
    own, _ = logprobs_of(policy, rollouts)
    lengths = [len(ids) for group in rollouts.token_ids for ids in group]
    off = torch.linspace(-1, 1, len(own)).flip(0)
    parts = iter((own + off).split(lengths))
    foreign = Rollouts(**{**vars(rollouts), "logprobs": [[next(parts) for _ in group] for group in rollouts.logprobs]})
    config = with_options(loss__name="dapo", sampling__correction=mode, sampling__correction_cap=1.5)
    rewards = lengths_of(rollouts)
    learned = learn(policy, processor, foreign, rewards, config)
    actual = gradients(policy)
    log_ratio = -off
    if mode.startswith("sequence"):
        log_ratio = torch.cat([part.sum().expand(len(part)) for part in log_ratio.split(lengths)])
    ratio = log_ratio.exp()
    weight = ratio.clamp(max=1.5) if mode.endswith("truncate") else torch.where(ratio > 1.5, 0.0, ratio)
    assert 0 < float((ratio > 1.5).float().mean()) < 1
    policy.zero_grad()
    logprobs, _ = policy(pack(groups_of(rollouts)), BASE.sampling.temperature)
    advantages = per_token(group_advantages(rewards), rollouts)
    (-(advantages * weight * logprobs).sum() / len(logprobs)).backward()
    assert_same_gradients(actual, gradients(policy), tolerance=1e-4)
    name = "sampling/importance_sampling_ratio"
    assert learned.metrics[f"{name}/max"] == pytest.approx(float(ratio.max()), rel=1e-3)
    assert learned.metrics[f"{name}/mean"] == pytest.approx(float(ratio.mean()), rel=1e-3)


def test_what_was_cut_off_is_compared_with_but_not_trained_on(
    policy: Policy, processor: Processor, rollouts: Rollouts
) -> None:
    cut = Rollouts(**{**vars(rollouts), "is_finished": [[g != 1 for g in range(4)] for _ in rollouts.prompts]})
    rewards = lengths_of(rollouts)
    learned = learn(policy, processor, cut, rewards, with_options(loss__name="dapo", overlong__mask_truncated=True))
    actual = gradients(policy)
    torch.testing.assert_close(learned.advantages, group_advantages(rewards))
    policy.zero_grad()
    logprobs, _ = policy(pack(groups_of(rollouts)), BASE.sampling.temperature)
    keep = per_token(torch.tensor([[True, False, True, True]] * len(rewards)), rollouts)
    advantages = per_token(group_advantages(rewards), rollouts)
    (-(advantages * keep * logprobs).sum() / keep.sum()).backward()
    assert_same_gradients(actual, gradients(policy))


def test_the_soft_punishment_is_that_computed_by_hand(rollouts: Rollouts) -> None:
    ids = [[torch.zeros(length, dtype=torch.int64) for length in (1, 14, 19, 24)]] * len(rollouts.prompts)
    lengthened = Rollouts(**{**vars(rollouts), "token_ids": ids})
    config = with_options(overlong__buffer_tokens=10, overlong__penalty=0.5)
    assert overlong_penalties(lengthened, config)[0].tolist() == [0.0, 0.0, 0.25, 0.5]
    assert not overlong_penalties(lengthened, BASE).any()


def test_the_punishment_counts_in_the_advantages(policy: Policy, processor: Processor, rollouts: Rollouts) -> None:
    config = with_options(overlong__buffer_tokens=23, advantage_scale="none")
    rewards = torch.zeros_like(lengths_of(rollouts))
    learned = learn(policy, processor, rollouts, rewards, config)
    torch.testing.assert_close(learned.advantages, group_advantages(-(lengths_of(rollouts) - 1) / 23, "none"))


def test_an_entropy_bonus_alone_raises_entropy(policy: Policy, processor: Processor, rollouts: Rollouts) -> None:
    rewards = torch.ones_like(lengths_of(rollouts))
    _, before = logprobs_of(policy, rollouts)
    learned = learn(policy, processor, rollouts, rewards, with_options(loss__entropy_coef=1.0), lr=LR)
    _, after = logprobs_of(policy, rollouts)
    assert learned.updates[0].loss == pytest.approx(-float(before.mean()), rel=1e-4)
    assert after.mean() > before.mean()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"updates_per_sample": 3},
        {"advantage_baseline": "leave_one_out"},
        {"advantage_baseline": "batch", "advantage_scale": "batch"},
        {"loss__name": "gspo"},
        {"loss__top_entropy_share": 0.5},
        {"loss__beta": 0.1, "loss__kl_in": "reward", "loss__kl_estimator": "k1"},
    ],
)
def test_without_any_signal_a_step_changes_nothing(
    options: dict[str, Any], policy: Policy, processor: Processor, rollouts: Rollouts
) -> None:
    before = [p.detach().clone() for p in policy.parameters()]
    # The reference is the policy itself: the KL is exactly 0.
    reference = CopyReference(policy)
    config = with_options(**options)
    rewards = torch.full_like(lengths_of(rollouts), 0.9)
    learned = learn(
        policy, processor, rollouts, rewards, config, lr=1.0, reference=reference if config.loss.beta else None
    )
    if config.loss.beta:
        # ... but for the rounding between sampling and scoring.
        assert learned.advantages.abs().max() < 1.01
        return
    assert [update.num_trained_tokens for update in learned.updates] == [0] * config.updates_per_sample
    assert all(torch.equal(p, old) for p, old in zip(policy.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("scale", "baseline", "expected"),
    [
        ("none", "group", [[-1.0, 1.0], [-3.0, 3.0]]),
        ("none", "leave_one_out", [[-2.0, 2.0], [-6.0, 6.0]]),
        ("none", "batch", [[-4.0, -2.0], [0.0, 6.0]]),
        # The deviation of 1, 3, 5, 11 is sqrt(56 / 3); those of the groups are sqrt(2) and sqrt(18).
        ("batch", "batch", [[-4 / 4.320494, -2 / 4.320494], [0.0, 6 / 4.320494]]),
        ("group", "leave_one_out", [[-2 / 1.414214, 2 / 1.414214], [-6 / 4.242641, 6 / 4.242641]]),
    ],
)
def test_advantages_are_those_computed_by_hand(scale: str, baseline: str, expected: list[list[float]]) -> None:
    config = with_options(group_size=2, advantage_scale=scale, advantage_baseline=baseline)
    rewards = torch.tensor([[1.0, 3.0], [5.0, 11.0]], dtype=torch.float64)
    actual = advantages_over_ranks(rewards, scores_of(rewards), config)
    # A deviation is taken 1e-4 larger.
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=2e-4, atol=1e-6)


def test_a_copy_follows_the_policy(policy: Policy, answering_folder: Path) -> None:
    other, _ = load_sharded(model_config(answering_folder), "short")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    start = [whole(p) for p in other.parameters()]
    target = [whole(p) for p in policy.parameters()]
    reference = CopyReference(other, ReferenceConfig(sync_every=2, sync_mix=0.25))
    reference.follow(policy, 1)
    assert all(torch.equal(whole(p), old) for p, old in zip(other.parameters(), start, strict=True))
    reference.follow(policy, 2)
    for p, old, new in zip(other.parameters(), start, target, strict=True):
        torch.testing.assert_close(whole(p), 0.75 * old + 0.25 * new)
    CopyReference(other, ReferenceConfig(sync_every=2)).follow(policy, 4)
    for p, new in zip(other.parameters(), target, strict=True):
        torch.testing.assert_close(whole(p), new, rtol=1e-6, atol=0)
    assert all(torch.equal(whole(p), new) for p, new in zip(policy.parameters(), target, strict=True))
