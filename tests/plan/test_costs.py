"""The plan's formulas against real models and tensors."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, model_config, picture
from geogrpo_kernels import PolicyObjective
from model_families import TILE_SIDE, internvl, save_family
from plan.sizes import equal_groups, memory_of, shape_of
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from geogrpo.checkpoint import Progress
from geogrpo.config import ModelConfig, RunConfig, SupervisedConfig, TinyModelConfig
from geogrpo.distributed import load_sharded
from geogrpo.optimization import make_optimizer
from geogrpo.plan import plan_run
from geogrpo.plan.costs import (
    H200,
    GroupSize,
    activation_bytes,
    cache_bytes_per_token,
    forward_flops,
    plan_memory,
    prefill_flops,
    training_seconds,
)
from geogrpo.plan.shapes import PUBLISHED, ModelShape
from geogrpo.policy.attention import ATTENTION_NAME, IMAGE_ATTENTION_NAME
from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.supervised import train_supervised
from geogrpo.types import Example, PackedBatch

SEVEN = "Qwen/Qwen2.5-VL-7B-Instruct"
# Prompts of more keys than policy.attention multiplies out: the fused kernel keeps no scores, as on a GPU.
LONG_SIDE = 28 * 24


def size_of(group: Group, processor: Processor) -> GroupSize:
    num_images = int((group.prompt.token_ids == processor.image_token_id).sum())
    lengths = {len(completion) for completion in group.completions}
    assert len(lengths) == 1
    return GroupSize(num_images, len(group.prompt.token_ids) - num_images, lengths.pop(), len(group.completions))


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        # As the hub shows for their safetensors
        ("Qwen/Qwen2.5-VL-3B-Instruct", 3_754_622_976),
        (SEVEN, 8_292_166_656),
        ("Qwen/Qwen2.5-VL-72B-Instruct", 73_410_777_344),
        ("Qwen/Qwen3-VL-4B-Instruct", 4_437_815_808),
        ("Qwen/Qwen3-VL-8B-Instruct", 8_767_123_696),
        ("OpenGVLab/InternVL3-8B-hf", 7_944_373_760),
    ],
)
def test_published_shapes_have_as_many_parameters_as_published(name: str, num_parameters: int) -> None:
    assert shape_of(ModelConfig(path=name)).num_parameters == num_parameters
    assert name in PUBLISHED


@pytest.mark.parametrize("source", ["folder", "tiny"])
def test_parameters_are_those_of_the_real_model(source: str, tiny_folder: Path, policy: Policy) -> None:
    shape = shape_of(model_config(tiny_folder) if source == "folder" else ModelConfig(tiny=TINY))
    assert shape.num_parameters == sum(parameter.numel() for parameter in policy.parameters())
    blocks = [*policy.model.model.visual.blocks, *policy.model.model.language_model.layers]
    in_blocks = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    assert shape.root_parameters == shape.num_parameters - in_blocks
    assert shape.head_weights == policy.model.lm_head.weight.numel()


def test_a_folder_says_what_its_pictures_are_bounded_by(tiny_folder: Path, processor: Processor) -> None:
    config = model_config(tiny_folder)
    size = processor.image_processor.size
    assert (shape_of(config).min_pixels, shape_of(config).max_pixels) == (size["shortest_edge"], size["longest_edge"])
    assert shape_of(ModelConfig(tiny=TINY)).image_token_range == shape_of(config).image_token_range == (1, 16)
    changed = dataclasses.replace(config, min_pixels=3000, max_pixels=50_000)
    assert (shape_of(changed).min_pixels, shape_of(changed).max_pixels) == (3000, 50_000)


def test_image_tokens_lie_within_the_bounds_and_reach_them(tiny_folder: Path) -> None:
    config = dataclasses.replace(model_config(tiny_folder), min_pixels=3000, max_pixels=30_000)
    processor = load_processor(config, "short")
    least, most = shape_of(config).image_token_range
    found = set()
    for width in (10, 56, 57, 140, 200, 500):
        for height in (10, 56, 112, 170, 480):
            prompt = processor.encode_prompt(Example("x", picture(0, (width, height)), (0.0, 0.0)))
            found.add(int((prompt.token_ids == processor.image_token_id).sum()))
    assert (least, most) == (4, 38)
    assert min(found) == least
    # 38 is no rectangle that a picture of these shapes is rounded to.
    assert most - 2 <= max(found) <= most


def test_tokens_of_a_group_are_those_of_its_packed_row(processor: Processor) -> None:
    groups = equal_groups(processor, 3, 4, 7)
    size = size_of(groups[0], processor)
    assert size.packed_tokens == groups[0].num_unique_tokens
    batch = pack(groups)
    assert 3 * size.packed_tokens == len(batch.input_ids)
    assert 3 * size.scored_tokens == len(batch.target_ids)
    alone = [pack([Group(groups[0].prompt, [completion])]) for completion in groups[0].completions]
    assert size.repeated_tokens == sum(len(row.input_ids) for row in alone)


@pytest.mark.parametrize(("num_groups", "group_size", "length"), [(1, 1, 1), (1, 3, 9), (2, 4, 30)])
def test_operations_are_those_that_torch_counts(
    tiny_folder: Path, processor: Processor, policy: Policy, num_groups: int, group_size: int, length: int
) -> None:
    shape = shape_of(model_config(tiny_folder))
    groups = equal_groups(processor, num_groups, group_size, length)
    size = size_of(groups[0], processor)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy(pack(groups))
    # torch does not see the products inside the log-probs.
    head = 2 * policy.model.lm_head.weight.numel() * num_groups * group_size * length
    assert counter.get_total_flops() + head == num_groups * forward_flops(shape, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy.prefill(pack([Group(group.prompt, []) for group in groups]))
    assert counter.get_total_flops() == num_groups * prefill_flops(shape, size)


def test_a_backward_pass_takes_twice_the_operations_of_a_forward_pass(
    tiny_folder: Path, processor: Processor, policy: Policy
) -> None:
    shape = shape_of(model_config(tiny_folder))
    (group,) = equal_groups(processor, 1, 3, 9)
    size = size_of(group, processor)
    with FlopCounterMode(display=False) as counter:
        policy.loss(*objective_of(pack([group]))).loss.backward()
    # As above; and pixels need no gradient, so the patch embedding has one product less.
    head = 3 * 2 * policy.model.lm_head.weight.numel() * 3 * 9
    pixels = 2 * shape.patch_weights * 4 * size.image_tokens
    planned = training_seconds(shape, size, 1, use_reference=False, hardware=H200) * H200.flops_per_s
    assert counter.get_total_flops() + head + pixels == pytest.approx(planned * H200.use_of_flops, rel=1e-9)


def test_attention_within_windows_is_counted_as_such(tmp_path: Path, tiny_folder: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["vision_config"]["fullatt_block_indexes"] = [0]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    config = dataclasses.replace(model_config(tmp_path), max_pixels=10**6)
    processor, shape = load_processor(config, "short"), shape_of(config)
    # Two by two whole windows of 112 pixels
    groups = equal_groups(processor, 1, 1, 1, side=224)
    assert shape.num_windowed_blocks == 1
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        load_policy(config, processor.tokenizer).prefill(pack([Group(groups[0].prompt, [])]))
    assert counter.get_total_flops() == prefill_flops(shape, size_of(groups[0], processor))


def objective_of(batch: PackedBatch) -> tuple[PackedBatch, PolicyObjective]:
    ones = torch.ones(len(batch.target_ids))
    return batch, PolicyObjective(ones, ones, surrogate="reinforce")


@pytest.mark.parametrize(("num_groups", "group_size", "length"), [(1, 1, 1), (2, 3, 9)])
def test_operations_of_tiles_are_those_that_torch_counts(
    tiny_folder: Path, tmp_path: Path, num_groups: int, group_size: int, length: int
) -> None:
    save_family(internvl, tiny_folder, tmp_path)
    processor, shape = load_processor(model_config(tmp_path), "short"), shape_of(model_config(tmp_path))
    policy = load_policy(model_config(tmp_path), processor.tokenizer)
    # torch does not see inside the fused kernel.
    policy.model.model.vision_tower.config._attn_implementation = "eager"
    groups = equal_groups(processor, num_groups, group_size, length)
    size = size_of(groups[0], processor)
    # 2 x 2 tiles and a thumbnail
    assert size.image_tokens == 20
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy(pack(groups))
    head = 2 * policy.model.lm_head.weight.numel() * num_groups * group_size * length
    assert counter.get_total_flops() + head == num_groups * forward_flops(shape, size)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        policy.prefill(pack([Group(group.prompt, []) for group in groups]))
    assert counter.get_total_flops() == num_groups * prefill_flops(shape, size)


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        # 4 tokens a tile; where there are several tiles, the whole picture is one more
        ({}, (4, 52)),
        ({"max_pixels": TILE_SIDE**2}, (4, 4)),
        ({"min_pixels": 2 * TILE_SIDE**2, "max_pixels": 2 * TILE_SIDE**2}, (12, 12)),
        ({"min_pixels": 3 * TILE_SIDE**2, "max_pixels": 6 * TILE_SIDE**2}, (16, 28)),
    ],
)
def test_tokens_of_tiles_lie_within_the_bounds_and_reach_them(
    bounds: dict[str, int], expected: tuple[int, int], tiny_folder: Path, tmp_path: Path
) -> None:
    save_family(internvl, tiny_folder, tmp_path)
    config = dataclasses.replace(model_config(tmp_path), **bounds)
    processor = load_processor(config, "short")
    assert shape_of(config).image_token_range == expected
    pictures = [picture(0, size) for size in ((56, 56), (60, 180), (224, 168), (112, 168))]
    found = [
        int((processor.encode_prompt(Example("x", p, (0.0, 0.0))).token_ids == processor.image_token_id).sum())
        for p in pictures
    ]
    assert (min(found), max(found)) == expected


def test_published_tiles_are_those_of_internvl3() -> None:
    shape = shape_of(ModelConfig(path="OpenGVLab/InternVL3-8B-hf", max_pixels=6 * 448**2))
    # arXiv 2504.10479: 256 tokens a tile of 448 pixels
    assert shape.image_token_range == (256, 7 * 256)


@pytest.mark.usefixtures("device")
def test_parameters_gradients_and_moments_take_the_bytes_planned(tiny_folder: Path, examples: list[Example]) -> None:
    policy, processor = load_sharded(model_config(tiny_folder), "short")
    optimizer = make_optimizer(policy, SupervisedConfig().optimizer)
    train_supervised(
        policy,
        processor,
        examples,
        SupervisedConfig(steps=1, examples_per_step=2),
        optimizer=optimizer,
        progress=Progress(),
        decimals=1,
        tokens_per_microbatch=4096,
        seed=0,
        on_step=lambda metrics: None,
    )
    memory = memory_of(plan_run(RunConfig(model=model_config(tiny_folder)), 1))
    moments = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert memory.parameters == num_bytes(policy.parameters())
    assert memory.gradients == num_bytes(parameter.grad for parameter in policy.parameters())
    assert memory.optimizer == num_bytes(moments)


def num_bytes(tensors: Any) -> int:
    return sum(tensor.to_local().nbytes if hasattr(tensor, "to_local") else tensor.nbytes for tensor in tensors)


def test_the_cache_takes_the_bytes_planned(tiny_folder: Path, processor: Processor, policy: Policy) -> None:
    shape, max_new_tokens = shape_of(model_config(tiny_folder)), 6
    groups = equal_groups(processor, 2, 3, max_new_tokens)
    size = size_of(groups[0], processor)
    with torch.no_grad():
        _, prefill = policy.prefill(pack([Group(group.prompt, []) for group in groups]))
        layout = DecodeLayout(prefill, 3, max_new_tokens)
        next_position = torch.tensor([group.prompt.next_position for group in groups for _ in range(3)])
        policy.decode(torch.full((6,), 20), next_position, layout)
    tensors = [x for cache in (layout._prompt_kv, layout._own_kv) for pair in cache.values() for x in pair]
    memory = plan_memory(shape, size, 1, [(size, 2)], num_gpus=1, number_bytes=4, use_reference=False)
    assert memory.cache == num_bytes(tensors)
    assert cache_bytes_per_token(shape, 4) * 2 * size.prompt_tokens == num_bytes(
        x for pair in layout._prompt_kv.values() for x in pair
    )


def kept_for_backward(policy: Policy, batch: PackedBatch) -> int:
    """Bytes that a forward pass keeps, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in policy.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.loss(*objective_of(batch))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def qwen2_5(folder: Path, blocks: tuple[int, int], dtype: torch.dtype) -> tuple[Policy, ModelShape]:
    sizes = TinyModelConfig(640, 128, blocks[0], 2, 320, 64, blocks[1], 2, 192)
    save_tiny_model(folder, sizes, ["Country: France"] * 20, [picture(0, (112, 112))], seed=0)
    config = ModelConfig(path=str(folder))
    return load_policy(config, load_processor(config, "short").tokenizer).to(dtype), shape_of(config)


def qwen3(folder: Path, blocks: tuple[int, int], dtype: torch.dtype) -> tuple[Policy, ModelShape]:
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": 640,
            "hidden_size": 128,
            "intermediate_size": 320,
            "num_hidden_layers": blocks[0],
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 48,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 8, 8]},
        },
        vision_config={
            "depth": blocks[1],
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_heads": 2,
            "out_hidden_size": 128,
            # The tiny processor's, so that its pictures can be shown
            "patch_size": 14,
            "deepstack_visual_indexes": [0],
        },
        image_token_id=6,
        video_token_id=7,
        vision_start_token_id=3,
        vision_end_token_id=4,
        tie_word_embeddings=True,
    )
    model = Qwen3VLForConditionalGeneration(config).to(dtype)
    model.save_pretrained(folder)
    model.set_attn_implementation({"text_config": ATTENTION_NAME, "vision_config": "sdpa"})
    model.model.visual.config._attn_implementation = IMAGE_ATTENTION_NAME
    return Policy(model, torch.tensor([0])), shape_of(ModelConfig(path=str(folder)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("build", [qwen2_5, qwen3])
@pytest.mark.parametrize(("group_size", "length"), [(1, 1), (4, 40)])
def test_a_block_keeps_the_bytes_planned_for_the_backward_pass(
    tmp_path: Path, tiny_folder: Path, build: Any, dtype: torch.dtype, group_size: int, length: int
) -> None:
    processor = load_processor(dataclasses.replace(model_config(tiny_folder), max_pixels=10**6), "short")
    groups = equal_groups(processor, 1, group_size, length, LONG_SIDE)
    batch = pack(groups)
    batch = dataclasses.replace(batch, pixel_values=batch.pixel_values.to(dtype))
    size = size_of(groups[0], processor)
    actual, planned = {}, {}
    for blocks in ((1, 1), (2, 1), (1, 2)):
        policy, shape = build(tmp_path / f"{blocks}", blocks, dtype)
        actual[blocks] = kept_for_backward(policy, batch)
        planned[blocks] = activation_bytes(shape, size, 1, dtype.itemsize)
    for more in ((2, 1), (1, 2)):
        # A few float32 numbers per token, such as a norm's scale, are not planned for.
        difference = planned[more] - planned[1, 1]
        assert actual[more] - actual[1, 1] == pytest.approx(difference, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_block_that_sees_tiles_keeps_the_bytes_planned_for_the_backward_pass(
    tmp_path: Path, tiny_folder: Path, dtype: torch.dtype
) -> None:
    actual, planned = {}, {}
    for num_blocks in (1, 2):
        folder = tmp_path / f"{num_blocks}"
        save_family(partial(internvl, vision_layers=num_blocks, vision_width=128), tiny_folder, folder)
        processor = load_processor(model_config(folder), "short")
        policy = load_policy(model_config(folder), processor.tokenizer).to(dtype)
        groups = equal_groups(processor, 1, 1, 1, LONG_SIDE)
        batch = dataclasses.replace(pack(groups), pixel_values=groups[0].prompt.pixel_values.to(dtype))
        actual[num_blocks] = kept_for_backward(policy, batch)
        planned[num_blocks] = activation_bytes(
            shape_of(model_config(folder)), size_of(groups[0], processor), 1, dtype.itemsize
        )
    assert actual[2] - actual[1] == pytest.approx(planned[2] - planned[1], rel=0.02)
