"""The last block at scored positions only, against the whole block of transformers."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import model_config
from model_families import FAMILIES, MakeModel, save_family, shallow_qwen3_vl

from geogrpo.config import ModelConfig
from geogrpo.policy.last_block import LastBlock
from geogrpo.policy.layouts import PaddedLayout
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.rollout.native import NativeEngine


def with_whole_last_block(policy: Policy, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """The same policy with transformers' own last block, computed at every position."""
    with monkeypatch.context() as patch:
        patch.setattr("geogrpo.policy.load._put_last_block", lambda model: None)
        processor = load_processor(model_config(folder), "short")
        whole = load_policy(ModelConfig(path=str(folder)), processor.tokenizer)
    assert not isinstance(whole.model.model.language_model.layers[-1], LastBlock)
    return whole


def check_equal(policy: Policy, whole: Policy, groups: list[Group]) -> None:
    batch = pack(groups)
    upstream = torch.randn(len(batch.target_ids))
    actual, entropy = policy(batch)
    (actual * upstream).sum().backward()
    expected, whole_entropy = whole(batch)
    (expected * upstream).sum().backward()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(entropy, whole_entropy, rtol=1e-5, atol=1e-6)
    expected_gradients = dict(whole.named_parameters())
    for name, parameter in policy.named_parameters():
        gradient = expected_gradients[name].grad
        assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


def test_it_equals_the_whole_block(
    tiny_folder: Path, policy: Policy, groups: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(policy.model.model.language_model.layers[-1], LastBlock)
    check_equal(policy, with_whole_last_block(policy, tiny_folder, monkeypatch), groups)


@pytest.mark.parametrize("make_model", FAMILIES)
def test_it_equals_the_whole_block_of_other_families(
    make_model: MakeModel, tiny_folder: Path, tmp_path: Path, groups: list[Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_family(make_model, tiny_folder, tmp_path)
    processor = load_processor(model_config(tmp_path), "short")
    policy = load_policy(model_config(tmp_path), processor.tokenizer)
    encoded = [Group(processor.encode_prompt(group.prompt.example), group.completions) for group in groups]
    check_equal(policy, with_whole_last_block(policy, tmp_path, monkeypatch), encoded)


def test_a_model_that_adds_image_features_after_its_last_block_keeps_it_whole(
    tiny_folder: Path, tmp_path: Path, groups: list[Group]
) -> None:
    """As a Qwen3-VL of as many layers as its vision tower feeds: sampling and training still agree."""
    save_family(shallow_qwen3_vl, tiny_folder, tmp_path)
    processor = load_processor(model_config(tmp_path), "short")
    policy = load_policy(model_config(tmp_path), processor.tokenizer)
    assert not isinstance(policy.model.model.language_model.layers[-1], LastBlock)
    prompts = [processor.encode_prompt(group.prompt.example) for group in groups]
    rollouts = NativeEngine(processor).sample(
        policy, prompts, group_size=2, temperature=1.0, max_new_tokens=6, seeds=[(i,) for i in range(4)]
    )
    sampled = torch.cat([row for group in rollouts.logprobs for row in group])
    trained = policy(pack([Group(prompt, ids) for prompt, ids in zip(prompts, rollouts.token_ids, strict=True)]))[0]
    torch.testing.assert_close(sampled, trained.detach(), rtol=1e-5, atol=1e-5)


def test_its_parameters_keep_their_names(tiny_folder: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = with_whole_last_block(policy, tiny_folder, monkeypatch)
    assert list(policy.state_dict()) == list(whole.state_dict())


def test_the_mlp_sees_scored_positions_alone(policy: Policy, processor: Processor, groups: list[Group]) -> None:
    seen: list[int] = []
    last = policy.model.model.language_model.layers[-1]
    last.mlp.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    batch = pack(groups)
    policy(batch)
    assert seen == [len(PaddedLayout(batch).scored_rows)]
    assert seen[0] == len(batch.input_ids) - int((batch.prompt_lengths - 1).sum())


def test_activation_checkpointing_changes_no_gradient(tiny_folder: Path, policy: Policy, groups: list[Group]) -> None:
    processor = load_processor(model_config(tiny_folder), "short")
    saving = load_policy(ModelConfig(path=str(tiny_folder), activation_checkpointing=True), processor.tokenizer)
    kept = []
    for each in (policy, saving):
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        each.train()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logprobs, _ = each(copy.copy(pack(groups)))
        logprobs.sum().backward()
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2
    expected = dict(policy.named_parameters())
    for name, parameter in saving.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-5, atol=1e-6)
