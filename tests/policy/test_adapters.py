"""LoRA: what trains, what it computes, and the adapter as it once was."""

import dataclasses
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from conftest import model_config
from model_families import qwen2_vl, save_family
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from torch.distributed.tensor import DTensor
from transformers import AutoModelForImageTextToText

from geogrpo.checkpoint import Progress, save_checkpoint
from geogrpo.config import GRPOConfig, LoraConfig, ModelConfig, OptimizerConfig, RewardConfig, SamplingConfig
from geogrpo.distributed import gathered_parameters, load_sharded, reshard
from geogrpo.optimization import make_optimizer
from geogrpo.policy.adapters import AdapterSnapshot, has_adapter
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.lora import adapter_parameters, is_adapter
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.trainer import StepRecord, train_grpo
from geogrpo.types import Example, PackedBatch

LORA = LoraConfig(rank=3, alpha=6.0)


def lora_config(folder: Path, lora: LoraConfig = LORA, **options: object) -> ModelConfig:
    return dataclasses.replace(model_config(folder), freeze_vision=True, lora=lora, **options)


def train_randomly(policy: Policy) -> None:
    """Change what the adapter says."""
    # Gathered parameters are copies: what trains is the shards.
    reshard(policy)
    with torch.no_grad():
        for name, parameter in adapter_parameters(policy).items():
            if ".lora_B." in name:
                values = parameter.to_local() if isinstance(parameter, DTensor) else parameter
                values.add_(0.1 * torch.randn(values.shape))


@pytest.fixture
def lora_processor(tiny_folder: Path) -> Processor:
    return load_processor(lora_config(tiny_folder), "short")


@pytest.fixture
def adapted(tiny_folder: Path, lora_processor: Processor) -> Policy:
    """Not sharded, its adapter not trained."""
    return load_policy(lora_config(tiny_folder), lora_processor.tokenizer)


@pytest.fixture
def batch(lora_processor: Processor, groups: list[Group]) -> PackedBatch:
    return pack([Group(lora_processor.encode_prompt(group.prompt.example), group.completions) for group in groups])


def test_only_adapters_of_the_targets_train(adapted: Policy) -> None:
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained == list(adapter_parameters(adapted))
    # Two layers, seven targets, two factors
    assert len(trained) == 2 * 7 * 2
    assert has_adapter(adapted)


def test_a_head_of_its_own_does_not_train(tiny_folder: Path, tmp_path: Path, processor: Processor) -> None:
    save_family(qwen2_vl, tiny_folder, tmp_path)
    policy = load_policy(lora_config(tmp_path), processor.tokenizer)
    assert policy.model.lm_head.weight is not policy.model.get_input_embeddings().weight
    assert [name for name, p in policy.named_parameters() if p.requires_grad] == list(adapter_parameters(policy))


def test_an_untrained_adapter_changes_nothing(adapted: Policy, policy: Policy, batch: PackedBatch) -> None:
    assert not has_adapter(policy)
    assert policy.model.lm_head.weight is policy.model.get_input_embeddings().weight
    assert adapted.model.lm_head.weight is adapted.model.get_input_embeddings().weight
    with torch.no_grad():
        assert torch.equal(adapted(batch)[0], policy(batch)[0])


def test_adapters_are_the_same_in_every_process_and_leave_the_random_state_alone(tiny_folder: Path) -> None:
    tokenizer = load_processor(lora_config(tiny_folder), "short").tokenizer
    torch.manual_seed(1)
    first = adapter_parameters(load_policy(lora_config(tiny_folder), tokenizer))
    after = torch.rand(1)
    torch.manual_seed(2)
    second = adapter_parameters(load_policy(lora_config(tiny_folder), tokenizer))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    torch.manual_seed(1)
    load_policy(model_config(tiny_folder), tokenizer)
    assert torch.equal(after, torch.rand(1))


def dense_logprobs(model: torch.nn.Module, policy: Policy, groups: list[Group], image_token_id: int) -> torch.Tensor:
    """Log-probs of every completion, each with its prompt to itself."""
    found = []
    for group in groups:
        for completion in group.completions:
            ids = torch.cat([group.prompt.token_ids, completion])[None]
            logits = model(
                input_ids=ids,
                mm_token_type_ids=(ids == image_token_id).int(),
                pixel_values=group.prompt.pixel_values,
                image_grid_thw=group.prompt.image_grid_thw,
            ).logits[0, len(group.prompt.token_ids) - 1 : -1]
            logits = logits.index_fill(-1, policy.forbidden_ids, -torch.inf)
            found.append(logits.log_softmax(-1).gather(-1, completion[:, None]).squeeze(-1))
    return torch.cat(found)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_logprobs_and_gradients_are_those_of_peft_on_the_dense_model(
    tiny_folder: Path,
    lora_processor: Processor,
    groups: list[Group],
    batch: PackedBatch,
    activation_checkpointing: bool,
) -> None:
    lora = LoraConfig(rank=3, alpha=6.0, targets=["q_proj", "o_proj", "down_proj"])
    config = lora_config(tiny_folder, lora, activation_checkpointing=activation_checkpointing)
    policy = load_policy(config, lora_processor.tokenizer).train()
    train_randomly(policy)
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder, dtype=torch.float32)
    targets = r"model\.language_model\..*\.(q_proj|o_proj|down_proj)"
    dense = get_peft_model(model, PeftLoraConfig(r=3, lora_alpha=6.0, target_modules=targets))
    of_dense = dict(dense.named_parameters())
    with torch.no_grad():
        for name, parameter in adapter_parameters(policy.model).items():
            of_dense[f"base_model.model.{name}"].copy_(parameter)
    actual = policy(batch)[0]
    expected = dense_logprobs(dense, policy, groups, lora_processor.image_token_id)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn(len(actual))
    (weights * actual).sum().backward()
    (weights * expected).sum().backward()
    for name, parameter in adapter_parameters(policy.model).items():
        gradient = of_dense[f"base_model.model.{name}"].grad
        assert gradient.norm() > 0, name
        assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert all(p.grad is None for name, p in policy.named_parameters() if not is_adapter(name))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("lm_head", "lm_head is read as one weight and cannot have an adapter. Linear layers: .*q_proj"),
        ("c_attn", "'c_attn' is no linear layer of the language model. Linear layers: down_proj, gate_proj, k_proj"),
        ("mlp", "'mlp' is no linear layer"),
        ("proj", "'proj' is no linear layer"),
        ("qkv", "'qkv' is no linear layer"),
        ("", "'' is no linear layer"),
    ],
)
def test_targets_that_are_no_linear_layer_are_named_with_those_there_are(
    tiny_folder: Path, processor: Processor, target: str, message: str
) -> None:
    config = lora_config(tiny_folder, LoraConfig(rank=2, targets=["q_proj", target]))
    with pytest.raises(ValueError, match=f"model.lora.targets: {message}"):
        load_policy(config, processor.tokenizer)


@pytest.mark.parametrize("options", [{"freeze_vision": False}, {"freeze_vision": True, "freeze_aligner": False}])
def test_adapters_beside_a_tower_or_aligner_that_trains_are_refused(options: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="model.lora.rank must be 0 unless model.freeze_vision is true and"):
        ModelConfig(lora=LORA, **options)


def test_without_peft_the_extra_is_named(
    tiny_folder: Path, processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"model.lora.rank above 0 needs peft. Install it: pip install 'geogrpo\[lora"):
        load_policy(lora_config(tiny_folder), processor.tokenizer)


def test_adapters_are_added_without_a_warning(tiny_folder: Path, processor: Processor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_policy(lora_config(tiny_folder), processor.tokenizer)


@pytest.mark.usefixtures("device")
def test_the_frozen_base_is_kept_in_the_compute_dtype_and_computes_the_same(
    tiny_folder: Path, batch: PackedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lora_config(tiny_folder, dtype="bfloat16")
    policy, _ = load_sharded(config, "short")
    train_randomly(policy)
    dtypes = {is_adapter(name): p.dtype for name, p in policy.named_parameters() if ".visual." not in name}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    assert {p.dtype for p in policy.model.model.visual.parameters()} == {torch.float32}
    monkeypatch.setattr("geogrpo.distributed.store_base", lambda policy, dtype, but: None)
    masters, _ = load_sharded(config, "short")
    with torch.no_grad():
        for own, trained in zip(adapter_parameters(masters).values(), adapter_parameters(policy).values(), strict=True):
            own.copy_(trained)
    results = []
    for each in (policy, masters):
        logprobs, _ = each(batch)
        logprobs.sum().backward()
        results.append((logprobs.detach(), [p.grad.full_tensor() for p in adapter_parameters(each).values()]))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert {grad.dtype for grad in results[0][1]} == {torch.float32}


@pytest.fixture(params=["whole", "sharded", "gathered"])
def trained(request: pytest.FixtureRequest, tiny_folder: Path, adapted: Policy) -> Iterator[Policy]:
    """A policy whose adapter says something, not sharded, sharded, or sharded with everything gathered."""
    policy = adapted
    if request.param != "whole":
        request.getfixturevalue("device")
        policy, _ = load_sharded(lora_config(tiny_folder), "short")
    train_randomly(policy)
    with gathered_parameters(policy) if request.param == "gathered" else nullcontext():
        yield policy


@torch.no_grad()
def logprobs_of(policy: Policy, batch: PackedBatch) -> torch.Tensor:
    return policy(batch)[0]


def test_a_snapshot_says_what_the_policy_said_and_gives_it_back(trained: Policy, batch: PackedBatch) -> None:
    trained.train()
    then = logprobs_of(trained, batch)
    snapshot = AdapterSnapshot(trained)
    train_randomly(trained)
    now = logprobs_of(trained, batch)
    assert not torch.allclose(then, now)
    for _ in range(2):
        with snapshot.applied() as reference:
            assert not reference.training
            logprobs = reference(batch)[0]
        assert torch.equal(logprobs, then)
        assert not logprobs.requires_grad
        assert trained.training
        assert torch.equal(logprobs_of(trained, batch), now)
    assert trained(batch)[0].requires_grad


def test_an_error_in_a_snapshot_leaves_the_policy_as_it_was(trained: Policy, batch: PackedBatch) -> None:
    snapshot = AdapterSnapshot(trained)
    train_randomly(trained)
    now = logprobs_of(trained, batch)
    trained.eval()

    def is_stopped() -> None:
        with snapshot.applied() as reference:
            logprobs_of(reference, batch)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        is_stopped()
    assert not trained.training
    assert torch.equal(logprobs_of(trained, batch), now)


def test_a_policy_without_adapter_has_no_snapshot(policy: Policy) -> None:
    with pytest.raises(ValueError, match="no adapter: model.lora.rank must be above 0"):
        AdapterSnapshot(policy)


@pytest.mark.usefixtures("device")
def test_a_snapshot_of_a_checkpoint_leaves_the_policy_alone(
    tiny_folder: Path, tmp_path: Path, batch: PackedBatch
) -> None:
    policy, _ = load_sharded(lora_config(tiny_folder), "short")
    train_randomly(policy)
    then = logprobs_of(policy, batch)
    saved = save_checkpoint(tmp_path, policy, make_optimizer(policy, OptimizerConfig()), Progress())
    train_randomly(policy)
    now = logprobs_of(policy, batch)
    snapshot = AdapterSnapshot.from_checkpoint(policy, saved)
    assert torch.equal(logprobs_of(policy, batch), now)
    with snapshot.applied() as reference:
        assert torch.equal(reference(batch)[0], then)
    assert torch.equal(logprobs_of(policy, batch), now)


@pytest.mark.usefixtures("device")
def test_a_snapshot_of_another_checkpoint_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    policy, _ = load_sharded(lora_config(tiny_folder), "short")
    with pytest.raises(ValueError, match="not a checkpoint of geogrpo"):
        AdapterSnapshot.from_checkpoint(policy, tmp_path / "none")
    other_rank = lora_config(tiny_folder, LoraConfig(rank=2))
    for name, config in (("full", model_config(tiny_folder)), ("rank", other_rank)):
        other, _ = load_sharded(config, "short")
        saved = save_checkpoint(tmp_path / name, other, make_optimizer(other, OptimizerConfig()), Progress())
        with pytest.raises(ValueError, match=f"checkpoint {saved} does not fit this model"):
            AdapterSnapshot.from_checkpoint(policy, saved)


def test_grpo_trains_the_adapter_and_nothing_else(answering_folder: Path, examples: list[Example]) -> None:
    policy, processor = load_sharded(lora_config(answering_folder, activation_checkpointing=True), "short")
    before = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
    config = GRPOConfig(
        steps=2,
        prompts_per_step=4,
        group_size=4,
        sampling=SamplingConfig(max_new_tokens=12),
        rewards=RewardConfig(weights={"custom": 1.0}, gates=[]),
        optimizer=OptimizerConfig(lr=1e-2),
    )
    records: list[StepRecord] = []
    train_grpo(policy, processor, examples, config, rewards={"custom": odd_length}, on_step=records.append)
    for name, parameter in policy.named_parameters():
        assert torch.equal(parameter, before[name]) != is_adapter(name), name
    # What is sampled in the second step is the adapter that the first one trained.
    differences = [record.metrics["sampling/sampling_logp_difference/mean"] for record in records]
    assert max(differences) < 1e-5


def odd_length(prompts: list[str], completions: list[str], **columns: object) -> list[float]:
    return [float(len(text) % 2) for text in completions]
