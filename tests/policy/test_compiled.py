"""Compiled blocks compute what the blocks compute, for rows of any length, without being compiled again and again."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ANSWERS, TINY, picture
from torch._dynamo.testing import CompileCounterWithBackend

from geogrpo.config import LoraConfig, ModelConfig
from geogrpo.policy.compiled import compile_blocks
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.rollout.native import NativeEngine
from geogrpo.types import Example

OPTIONS = ({"activation_checkpointing": True}, {"lora": LoraConfig(rank=2), "freeze_vision": True})


@pytest.fixture(scope="module")
def four_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of three equal blocks and the last one."""
    folder = tmp_path_factory.mktemp("four_blocks")
    tiny = dataclasses.replace(TINY, num_layers=4)
    save_tiny_model(folder, tiny, list(ANSWERS) * 50, [picture(0, (112, 112))], seed=0)
    return folder


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
    return log_probs.detach(), {n: p.grad.clone() for n, p in policy.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("options", OPTIONS, ids=["checkpointing", "lora"])
def test_blocks_and_rows_of_any_length_share_what_was_compiled(four_blocks: Path, options: dict[str, Any]) -> None:
    backend = CompileCounterWithBackend("aot_eager")
    plain, compiled = (load(four_blocks, **options) for _ in range(2))
    compile_blocks(compiled, backend)
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]
    counts = []
    for groups in rows_of_many_lengths(four_blocks, **options):
        expected, expected_gradients = log_probs_and_gradients(plain, groups)
        actual, gradients = log_probs_and_gradients(compiled, groups)
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        assert gradients.keys() == expected_gradients.keys()
        for name, gradient in expected_gradients.items():
            assert (gradients[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-9, name
        counts.append(backend.frame_count)
    # Around the attention of the equal blocks, and of the last one.
    assert 0 < counts[0] <= 12
    assert counts == counts[:1] * len(counts)


def test_prompts_are_read_compiled_and_completions_decoded_as_they_are(four_blocks: Path) -> None:
    backend = CompileCounterWithBackend("aot_eager")
    plain, compiled = (load(four_blocks) for _ in range(2))
    compile_blocks(compiled, backend)
    processor = load_processor(ModelConfig(path=str(four_blocks)), "short")
    prompts = [group.prompt for groups in rows_of_many_lengths(four_blocks)[1:3] for group in groups]
    texts, counts = [], []
    for policy, num_prompts in ((plain, 4), (compiled, 4), (compiled, 3)):
        rollouts = NativeEngine(processor).sample(
            policy,
            prompts[:num_prompts],
            group_size=3,
            temperature=1.0,
            max_new_tokens=12,
            seeds=[(i,) for i in range(num_prompts)],
        )
        texts.append(rollouts.texts)
        counts.append(backend.frame_count)
    assert texts[1] == texts[0]
    assert 0 < counts[1] == counts[2] <= 12


@pytest.mark.slow
def test_the_compiler_that_is_used(four_blocks: Path) -> None:
    plain, compiled = load(four_blocks), load(four_blocks, compile=True)
    groups = rows_of_many_lengths(four_blocks)[1]
    expected, expected_gradients = log_probs_and_gradients(plain, groups)
    actual, gradients = log_probs_and_gradients(compiled, groups)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    assert all((gradients[n] - g).norm() <= 1e-5 * g.norm() + 1e-9 for n, g in expected_gradients.items())
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
