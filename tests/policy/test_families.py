"""What the families share, run by each of them, and what is InternVL's own: tiles, and positions of one dimension."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import model_config
from model_families import FAMILIES, TILE_SIDE, MakeModel, dense_images, internvl, qwen3_vl, save_family
from PIL import Image
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoImageProcessor, AutoModelForImageTextToText, PreTrainedModel
from transformers.models.internvl.processing_internvl import InternVLProcessor

from geogrpo.checkpoint import Progress, export_model, full_weights, load_checkpoint, save_checkpoint
from geogrpo.config import GRPOConfig, ModelConfig, OptimizerConfig, RewardConfig, SamplingConfig
from geogrpo.distributed import load_sharded
from geogrpo.optimization import make_optimizer
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.trainer import train_grpo
from geogrpo.types import Example

TILE = TILE_SIDE**2


@pytest.fixture
def tiles_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A tiny InternVL."""
    save_family(internvl, tiny_folder, tmp_path)
    return tmp_path


@pytest.fixture
def tiles_processor(tiles_folder: Path) -> Processor:
    return load_processor(model_config(tiles_folder), "short")


def set_in(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def groups_of(processor: Processor, examples: list[Example]) -> list[Group]:
    answers = [processor.encode_answer(text) for text in ("Country: Japan", "Coordinates: (1.0, 2.0)", "")]
    return [Group(processor.encode_prompt(example), answers[: 1 + i % 3]) for i, example in enumerate(examples)]


def dense_logprobs(model: PreTrainedModel, groups: list[Group], forbidden: torch.Tensor) -> torch.Tensor:
    """The oracle: each completion alone with its own prompt and image, through transformers' own forward."""
    pieces = []
    for group in groups:
        for completion in group.completions:
            ids = torch.cat([group.prompt.token_ids, completion])[None]
            logits = model(input_ids=ids, **dense_images(model, ids, [group.prompt]), use_cache=False).logits
            logits = logits[0, len(group.prompt.token_ids) - 1 : -1].index_fill(-1, forbidden, -torch.inf)
            pieces.append(logits.log_softmax(-1).gather(-1, completion[:, None]).squeeze(-1))
    return torch.cat(pieces)


def check_gradients(policy: Policy, dense: PreTrainedModel, groups: list[Group]) -> set[str]:
    """Compare log-probs and the gradients of what trains with the dense ones; the names that were compared."""
    expected, (actual, _) = dense_logprobs(dense, groups, policy.forbidden_ids), policy(pack(groups))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn_like(expected)
    expected.backward(upstream)
    actual.backward(upstream)
    dense_parameters = dict(dense.named_parameters())
    compared = set()
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            gradient = dense_parameters[name].grad
            assert (parameter.grad - gradient).norm() <= 1e-5 * gradient.norm() + 1e-8, name
            compared.add(name)
        else:
            assert parameter.grad is None, name
    return compared


@pytest.mark.parametrize("make_model", FAMILIES)
def test_packed_gradients_equal_the_dense_ones_in_every_family(
    make_model: MakeModel, tiny_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    save_family(make_model, tiny_folder, tmp_path)
    processor = load_processor(model_config(tmp_path), "short")
    policy = load_policy(model_config(tmp_path), processor.tokenizer)
    dense = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    compared = check_gradients(policy, dense, groups_of(processor, examples))
    assert compared == {name for name, _ in dense.named_parameters()}


def parts_of(policy: Policy) -> dict[str, set[str]]:
    """Names of the parameters of tower, aligner and the rest."""
    aligner, vision = set(policy.aligner_parameters()), set(policy.vision_parameters())
    parts: dict[str, set[str]] = {"tower": set(), "aligner": set(), "rest": set()}
    for name, parameter in policy.named_parameters():
        parts["aligner" if parameter in aligner else "tower" if parameter in vision else "rest"].add(name)
    return parts


@pytest.mark.parametrize("make_model", [qwen3_vl, internvl])
def test_an_aligner_learns_from_a_frozen_tower_as_in_the_dense_computation(
    make_model: MakeModel, tiny_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    save_family(make_model, tiny_folder, tmp_path)
    config = dataclasses.replace(model_config(tmp_path), freeze_vision=True, freeze_aligner=False)
    processor = load_processor(config, "short")
    policy = load_policy(config, processor.tokenizer)
    dense = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager")
    compared = check_gradients(policy, dense, groups_of(processor, examples))
    parts = parts_of(policy)
    assert {f"model.{name}" for name in compared} == parts["aligner"] | parts["rest"]


FREEZES = [
    # freeze_vision, freeze_aligner, whether tower and aligner train
    (internvl, False, None, True, True),
    (internvl, False, True, True, False),
    (internvl, True, None, False, False),
    (internvl, True, False, False, True),
    # Its aligners are within the tower.
    (qwen3_vl, False, True, True, False),
    (qwen3_vl, True, False, False, True),
]


def in_order(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Something else for each completion."""
    return [float(i) for i, _ in enumerate(completions)]


def one_step(folder: Path, examples: list[Example], **freezes: bool | None) -> tuple[Policy, set[str]]:
    """The policy after a step of GRPO, and the names of the parameters that it changed."""
    policy, processor = load_sharded(ModelConfig(path=str(folder), dtype="float32", **freezes), "short")
    before = full_tensors(policy)
    config = GRPOConfig(
        steps=1,
        prompts_per_step=2,
        group_size=3,
        sampling=SamplingConfig(max_new_tokens=4),
        rewards=RewardConfig(weights={"custom": 1.0}, gates=[]),
        optimizer=OptimizerConfig(lr=1e-3),
    )
    records: list[Any] = []
    train_grpo(policy, processor, examples[:2], config, rewards={"custom": in_order}, on_step=records.append)
    assert records[0].metrics["sampling/sampling_logp_difference/mean"] < 1e-5
    assert records[0].metrics["perf/mfu"] > 0
    after = full_tensors(policy)
    return policy, {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def full_tensors(policy: Policy) -> dict[str, torch.Tensor]:
    return {f"model.{name}": tensor.clone() for name, tensor in full_weights(policy).items()}


@pytest.mark.parametrize(("make_model", "freeze_vision", "freeze_aligner", "tower_trains", "aligner_trains"), FREEZES)
def test_a_step_changes_what_is_not_frozen_and_nothing_else(
    make_model: MakeModel,
    freeze_vision: bool,
    freeze_aligner: bool | None,
    tower_trains: bool,
    aligner_trains: bool,
    tiny_folder: Path,
    tmp_path: Path,
    examples: list[Example],
) -> None:
    save_family(make_model, tiny_folder, tmp_path)
    policy, changed = one_step(tmp_path, examples, freeze_vision=freeze_vision, freeze_aligner=freeze_aligner)
    parts = parts_of(policy)
    assert all(parts.values())
    expected = (
        parts["rest"] | (parts["tower"] if tower_trains else set()) | (parts["aligner"] if aligner_trains else set())
    )
    assert changed <= expected
    assert expected - changed == set()
    assert (policy.vision_cache is not None) == (not tower_trains and not aligner_trains)


@pytest.mark.parametrize("make_model", [qwen3_vl, internvl])
def test_an_exported_model_is_transformers_own(
    make_model: MakeModel, tiny_folder: Path, tmp_path: Path, examples: list[Example], device: torch.device
) -> None:
    save_family(make_model, tiny_folder, tmp_path / "model")
    policy, processor = load_sharded(model_config(tmp_path / "model"), "short")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.01)
    export_model(tmp_path / "exported", policy, processor)
    groups = groups_of(processor, examples)
    exported = AutoModelForImageTextToText.from_pretrained(tmp_path / "exported", dtype=torch.float32)
    expected = policy(pack(groups))[0].detach()
    actual = dense_logprobs(exported, groups, policy.forbidden_ids).detach()
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    again = load_processor(model_config(tmp_path / "exported"), "short")
    for group in groups:
        prompt = again.encode_prompt(group.prompt.example)
        assert torch.equal(prompt.token_ids, group.prompt.token_ids)
        assert torch.equal(prompt.pixel_values, group.prompt.pixel_values)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("make_model", [qwen3_vl, internvl])
def test_a_frozen_tower_without_a_cache_is_sharded_and_resumed(
    make_model: MakeModel, tiny_folder: Path, tmp_path: Path
) -> None:
    save_family(make_model, tiny_folder, tmp_path / "model")
    config = dataclasses.replace(model_config(tmp_path / "model"), freeze_vision=True, freeze_aligner=False)
    policy, processor = load_sharded(config, "short")
    assert all(isinstance(parameter, DTensor) for parameter in policy.vision_parameters())
    assert not processor.encode_prompt(processor.dummy_group().prompt.example).image_key
    optimizer = make_optimizer(policy, OptimizerConfig())
    before = full_weights(policy)
    saved = save_checkpoint(tmp_path, policy, optimizer, Progress())
    names = {name for shard in saved.glob("*.safetensors") for name in load_file(shard)}
    parts = parts_of(policy)
    assert {f"model.{name}" for part in parts.values() for name in part} <= names
    assert {name.removeprefix("optimizer.step.") for name in names if ".step." in name} == (
        parts["aligner"] | parts["rest"]
    )
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
    load_checkpoint(saved, policy, optimizer)
    after = full_weights(policy)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_reference_shares_tower_aligner_and_cache(tiles_folder: Path, tiles_processor: Processor) -> None:
    config = dataclasses.replace(model_config(tiles_folder), freeze_vision=True)
    policy, reference = (load_policy(config, tiles_processor.tokenizer) for _ in range(2))
    reference.share_vision(policy)
    assert reference.vision_cache is policy.vision_cache
    shared = set(policy.parameters()) & set(reference.parameters())
    assert shared == set(policy.vision_parameters()) == set(reference.vision_parameters())


def test_each_picture_goes_through_the_tower_once_per_group(
    tiles_folder: Path, tiles_processor: Processor, examples: list[Example]
) -> None:
    policy = load_policy(model_config(tiles_folder), tiles_processor.tokenizer)
    seen: list[int] = []
    policy.model.model.vision_tower.register_forward_pre_hook(
        lambda module, inputs, options: seen.append(len(options["pixel_values"])), with_kwargs=True
    )
    prompts = [tiles_processor.encode_prompt(example) for example in examples]
    answer = tiles_processor.encode_answer("Country: Japan")
    policy(pack([Group(prompt, [answer] * 8) for prompt in prompts]))
    # 2 x 2, 2 x 1, 1 and 5 x 2 tiles, and a thumbnail where there are several
    assert [len(prompt.pixel_values) for prompt in prompts] == [5, 3, 1, 11]
    assert seen == [20]


def test_a_prompt_is_what_transformers_makes_of_it(
    tiles_folder: Path, tiles_processor: Processor, examples: list[Example]
) -> None:
    tokenizer = tiles_processor.tokenizer
    image_processor = AutoImageProcessor.from_pretrained(tiles_folder)
    tokens = SimpleNamespace(
        start_image_token=tokenizer.start_image_token,
        image_token=tokenizer.context_image_token,
        end_image_token=tokenizer.end_image_token,
        image_seq_length=4,
    )
    for example in examples:
        prompt = tiles_processor.encode_prompt(example)
        messages: Any = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": prompt.question}]}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text.count(tokens.image_token) == 1
        pictures = image_processor(images=[example.image], crop_to_patches=True, return_tensors="pt")
        expanded = InternVLProcessor.replace_image_token(tokens, {"num_patches": pictures["num_patches"].tolist()}, 0)
        expected = tokenizer.encode(text.replace(tokens.image_token, expanded), add_special_tokens=False)
        assert prompt.token_ids.tolist() == expected
        assert torch.equal(prompt.pixel_values, pictures["pixel_values"])
        assert prompt.image_grid_thw.tolist() == [[len(prompt.pixel_values), 4, 4]]
        assert torch.equal(prompt.position_ids, torch.arange(len(expected)).expand(3, -1))


@pytest.mark.parametrize(
    ("bounds", "num_tiles"),
    [
        ({}, [5, 3, 1, 11]),
        ({"max_pixels": TILE}, [1, 1, 1, 1]),
        ({"max_pixels": 3 * TILE - 1}, [1, 3, 1, 3]),
        ({"max_pixels": 4 * TILE, "min_pixels": 3 * TILE + 1}, [5, 5, 5, 5]),
    ],
)
def test_pixels_bound_the_tiles(
    bounds: dict[str, int], num_tiles: list[int], tiles_folder: Path, examples: list[Example]
) -> None:
    processor = load_processor(dataclasses.replace(model_config(tiles_folder), **bounds), "short")
    assert [len(processor.encode_prompt(example).pixel_values) for example in examples] == num_tiles


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"max_pixels": TILE - 1}, "model.max_pixels must be at least 3,136, got 3,135: this model sees .* tiles of"),
        ({"min_pixels": 12 * TILE + 1}, "model.min_pixels asks for 13 tiles .* may have 12. Lower it, or raise"),
        ({"min_pixels": 2 * TILE, "max_pixels": TILE}, "model.min_pixels asks for 2 tiles .* may have 1. Lower"),
    ],
)
def test_pixels_that_no_tiles_fit_are_refused(bounds: dict[str, int], message: str, tiles_folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_processor(dataclasses.replace(model_config(tiles_folder), **bounds), "short")


def test_what_stands_around_an_image_is_never_sampled_though_no_file_flags_it(
    tiles_folder: Path, tiles_processor: Processor
) -> None:
    tokenizer = tiles_processor.tokenizer
    names = ("start_image_token", "end_image_token", "context_image_token")
    set_in(tiles_folder / "tokenizer_config.json", **dict(zip(names, ("a", "b", "c"), strict=True)))
    ids = [tokenizer.convert_tokens_to_ids(letter) for letter in "abc"]
    before = load_policy(model_config(tiles_folder), tokenizer).forbidden_ids
    unflagged = SimpleNamespace(
        added_tokens_decoder={},
        all_special_ids=[],
        eos_token_id=tokenizer.eos_token_id,
        **{f"{name}_id": token_id for name, token_id in zip(names, ids, strict=True)},
    )
    after = load_policy(model_config(tiles_folder), sized(unflagged, len(tokenizer))).forbidden_ids
    assert not torch.isin(torch.tensor(ids), before).any()
    assert torch.isin(torch.tensor(ids), after).all()


def sized(tokenizer: SimpleNamespace, length: int) -> Any:
    """A tokenizer of so many tokens."""
    return type("Sized", (SimpleNamespace,), {"__len__": lambda self: length})(**vars(tokenizer))


def test_a_tokenizer_that_is_not_made_for_transformers_is_refused(tiles_folder: Path) -> None:
    file = tiles_folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["end_image_token"]
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="does not say what stands around an image .* its name ends in -hf"):
        load_processor(model_config(tiles_folder), "short")


def test_another_language_model_is_refused_by_name(tiles_folder: Path) -> None:
    file = tiles_folder / "config.json"
    settings = json.loads(file.read_text())
    settings["text_config"]["model_type"] = "llama"
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=f"model {tiles_folder}: the language model .* is of type 'llama'"):
        load_processor(model_config(tiles_folder), "short")


@pytest.mark.parametrize("freeze_vision", [False, True])
def test_a_picture_of_any_shape_is_encoded(freeze_vision: bool, tiles_folder: Path, tiles_processor: Processor) -> None:
    config = dataclasses.replace(model_config(tiles_folder), freeze_vision=freeze_vision)
    processor = load_processor(config, "short")
    policy = load_policy(config, processor.tokenizer)
    for size in ((1, 1), (3000, 4), (57, 400)):
        prompt = processor.encode_prompt(Example("x", Image.new("RGB", size, "green"), (0.0, 0.0)))
        assert policy(pack([Group(prompt, [processor.encode_answer("a")])]))[0].isfinite().all()


@pytest.mark.parametrize("make_model", FAMILIES)
def test_aligners_are_all_that_leads_from_the_tower_to_the_language_model(
    make_model: MakeModel, tiny_folder: Path, tmp_path: Path
) -> None:
    save_family(make_model, tiny_folder, tmp_path)
    policy = load_policy(model_config(tmp_path), load_processor(model_config(tmp_path), "short").tokenizer)
    parts = parts_of(policy)
    by_name = {name for name, _ in policy.named_parameters() if "merger" in name or "projector" in name}
    assert parts["aligner"] == by_name
    assert all(".visual." in name or ".vision_tower." in name for name in parts["tower"])
    assert all(".language_model." in name or "lm_head" in name for name in parts["rest"])
