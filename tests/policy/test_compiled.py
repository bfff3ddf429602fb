"""Compiled blocks compute what the blocks compute, for rows of any length, without being compiled again and again."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ANSWERS, TINY, picture
from grpo_steps import gradients
from torch._dynamo.testing import CompileCounterWithBackend

from geogrpo.config import LoraConfig, ModelConfig
from geogrpo.distributed import shard_policy
from geogrpo.policy.compiled import compile_blocks
from geogrpo.policy.layouts import PaddedLayout
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.rollout.native import NativeEngine
from geogrpo.types import Example

LORA = {"lora": LoraConfig(rank=2, targets=["q_proj", "down_proj"]), "freeze_vision": True}


def save_blocks(folder: Path, number: int) -> Path:
    tiny = dataclasses.replace(TINY, num_layers=number)
    save_tiny_model(folder, tiny, list(ANSWERS) * 50, [picture(0, (112, 112))], seed=0)
    return folder


@pytest.fixture(scope="module")
def four_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three equal blocks and the last one."""
    return save_blocks(tmp_path_factory.mktemp("four_blocks"), 4)


@pytest.fixture(autouse=True)
def nothing_compiled_before() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def load(folder: Path, **options: Any) -> Policy:
    processor = load_processor(ModelConfig(path=str(folder)), "short")
    policy = load_policy(ModelConfig(path=str(folder), dtype="float32", **options), processor.tokenizer)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if ".lora_B." in name:
                # At 0, the other factor would have no gradient.
                parameter.fill_(0.01)
    policy.train()
    return policy


def rows_of_many_lengths(folder: Path, **options: Any) -> list[list[Group]]:
    """Rows of one to three groups, all of different lengths."""
    processor = load_processor(ModelConfig(path=str(folder), dtype="float32", **options), "short")
    prompts = [
        processor.encode_prompt(Example(f"place-{i}", picture(i, size), (0.0, 0.0), country="Somewhere"))
        for i, size in enumerate(((56, 56), (112, 56), (112, 112), (140, 112)))
    ]
    groups = [
        Group(prompt, [torch.arange(300, 300 + length) for length in (2 + i, 3 + 2 * i)])
        for i, prompt in enumerate(prompts)
    ]
    return [groups[:1], groups[:2], groups[2:], groups[:3]]


def log_probs_and_gradients(policy: Policy, groups: list[Group]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    policy.zero_grad()
    log_probs, entropy = policy(pack(groups))
    (log_probs * torch.linspace(-1, 1, len(log_probs)) + entropy).sum().backward()
    return log_probs.detach(), gradients(policy)


def assert_same(plain: Policy, compiled: Policy, groups: list[Group]) -> None:
    expected, expected_gradients = log_probs_and_gradients(plain, groups)
    actual, actual_gradients = log_probs_and_gradients(compiled, groups)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert (actual_gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name


@pytest.fixture
def attended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layer of each attention that was computed."""
    layers: list[int] = []
    original = PaddedLayout.attend

    def attend(self: PaddedLayout, layer: int, *arguments: Any) -> torch.Tensor:
        layers.append(layer)
        return original(self, layer, *arguments)

    monkeypatch.setattr(PaddedLayout, "attend", attend)
    return layers


@pytest.mark.slow
def test_sharded_blocks_and_rows_of_any_length_share_what_was_compiled(
    four_blocks: Path, device: torch.device, attended: list[int]
) -> None:
    """And throw their activations away."""
    backend = CompileCounterWithBackend("aot_eager")
    plain, compiled = load(four_blocks), load(four_blocks, activation_checkpointing=True)
    compile_blocks(compiled, backend)
    shard_policy(compiled, device, torch.float32)
    counts = []
    for groups in rows_of_many_lengths(four_blocks):
        attended.clear()
        assert_same(plain, compiled, groups)
        assert attended == [0, 1, 2, 3] * 2 + [3, 2, 1, 0]
        counts.append(backend.frame_count)
    # Around the attention of the equal blocks, and of the last one.
    assert 0 < counts[0] <= 8
    assert counts == counts[:1] * len(counts)


@pytest.mark.slow
def test_adapters_are_compiled_with_their_blocks(four_blocks: Path) -> None:
    backend = CompileCounterWithBackend("eager")
    plain, compiled = (load(four_blocks, **LORA) for _ in range(2))
    compile_blocks(compiled, backend)
    counts = []
    for groups in rows_of_many_lengths(four_blocks, **LORA):
        assert_same(plain, compiled, groups)
        counts.append(backend.frame_count)
    # The first block's input has no gradient.
    assert 0 < counts[0] <= 12
    assert counts == counts[:1] * len(counts)


@pytest.mark.slow
def test_prompts_are_read_compiled_and_completions_decoded_as_they_are(four_blocks: Path) -> None:
    backend = CompileCounterWithBackend("eager")
    plain, compiled = (load(four_blocks) for _ in range(2))
    compile_blocks(compiled, backend)
    processor = load_processor(ModelConfig(path=str(four_blocks)), "short")
    prompts = [group.prompt for groups in rows_of_many_lengths(four_blocks)[1:3] for group in groups]
    texts, counts = [], []
    # The first token comes from the prompt's own pass.
    for policy, num_prompts, num_tokens in ((plain, 4, 12), (compiled, 4, 1), (compiled, 4, 12), (compiled, 3, 12)):
        rollouts = NativeEngine(processor).sample(
            policy,
            prompts[:num_prompts],
            group_size=3,
            temperature=1.0,
            max_new_tokens=num_tokens,
            seeds=[(i,) for i in range(num_prompts)],
        )
        texts.append(rollouts.texts)
        counts.append(backend.frame_count)
    assert texts[2] == texts[0]
    assert 0 < counts[1] <= 8
    assert counts[1:] == counts[1:2] * 3


@pytest.mark.slow
def test_the_compiler_that_is_used(tmp_path: Path) -> None:
    """Forward alone: what is above checks gradients without a C++ compiler's minute."""
    folder = save_blocks(tmp_path, 1)
    batch = pack(rows_of_many_lengths(folder)[1])
    with torch.no_grad():
        expected, actual = (load(folder, compile=compiled)(batch) for compiled in (False, True))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
