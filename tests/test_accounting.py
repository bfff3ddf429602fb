"""What a step's metrics say of its cost."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from geogrpo.accounting import Accounting, peak_flops
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.vision_cache import VisionCache
from geogrpo.types import Rollouts


def finished(policy: Policy, groups: list[Group]) -> dict[str, float]:
    accounting = Accounting(policy)
    rollouts = Rollouts([g.prompt for g in groups], [g.completions for g in groups], [], [], [])
    accounting.clock._seconds = {"prefill": 0.5, "decode": 1.5, "forward_backward": 4.0}
    return accounting.finish_step(groups, rollouts)


def test_tokens_per_second_are_those_of_their_phases(policy: Policy, groups: list[Group]) -> None:
    metrics = finished(policy, groups)
    completions = [completion for group in groups for completion in group.completions]
    assert metrics["timing_s/decode"] == 1.5
    assert metrics["perf/sampled_tokens_per_s"] == sum(map(len, completions)) / 2.0
    unique = sum(group.num_unique_tokens for group in groups)
    assert metrics["perf/trained_tokens_per_s"] == unique / 4.0
    repeated = unique + 2 * sum(len(group.prompt.token_ids) for group in groups)
    assert metrics["perf/dense_tokens_per_s"] == repeated / 4.0


def test_model_flops_are_those_of_the_packed_groups(
    policy: Policy, groups: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geogrpo.accounting.peak_flops", lambda device, dtype: 1e9)
    # Rectangles of equal sides: what is computed is then what is counted.
    equal = [dataclasses.replace(group, completions=[torch.arange(10, 18)] * 3) for group in groups]
    forward = 0
    for group in equal:
        with FlopCounterMode(display=False) as counter:
            policy(pack([group]))
        # torch does not see the products inside the log-probs.
        forward += counter.get_total_flops() + 2 * policy.model.lm_head.weight.numel() * 3 * 8
    metrics = finished(policy, equal)
    assert metrics["perf/mfu"] == pytest.approx(3 * forward / (4.0 * 1e9), rel=0.01)


def test_a_frozen_tower_has_no_backward_pass_and_cached_features_no_pass_at_all(
    policy: Policy, groups: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geogrpo.accounting.peak_flops", lambda device, dtype: 1e9)
    trained = finished(policy, groups)["perf/mfu"]
    for parameter in policy.tower_parameters():
        parameter.requires_grad_(False)
    frozen = finished(policy, groups)["perf/mfu"]
    policy.vision_cache = VisionCache(0)
    cached = finished(policy, groups)["perf/mfu"]
    assert trained - frozen == pytest.approx(2 * (frozen - cached))
    assert frozen > cached > 0


def test_a_step_without_groups_has_no_rates(policy: Policy) -> None:
    metrics = Accounting(policy).finish_step([])
    assert metrics == {}


def test_a_cpu_peak_is_measured() -> None:
    assert 1e9 < peak_flops(torch.device("cpu"), torch.float32) < 1e14


def test_a_known_gpu_peak_is_its_data_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    assert peak_flops(torch.device("cuda", 0), torch.bfloat16) == 989e12
