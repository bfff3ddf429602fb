"""The plan's formulas against real models, tensors and packed rows; what its text says and leaves out."""

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
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from geogrpo.checkpoint import Progress
from geogrpo.config import GRPOConfig, ModelConfig, RunConfig, SamplingConfig, SupervisedConfig, TinyModelConfig
from geogrpo.config_files import load_config
from geogrpo.data.draws import step_indices
from geogrpo.distributed import load_sharded
from geogrpo.optimization import make_optimizer
from geogrpo.plan import DataSize, Plan, format_data, format_plan, plan_run
from geogrpo.plan.costs import (
    H200,
    GroupSize,
    MemoryPlan,
    activation_bytes,
    cache_bytes_per_token,
    forward_flops,
    plan_memory,
    prefill_flops,
    sampling_seconds,
    training_seconds,
)
from geogrpo.plan.shapes import PUBLISHED, ModelShape, find_shape
from geogrpo.policy.attention import ATTENTION_NAME, IMAGE_ATTENTION_NAME
from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack, split_by_budget, split_into_rows
from geogrpo.policy.processing import Processor
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.prompts import PROMPTS
from geogrpo.supervised import train_supervised
from geogrpo.types import Example, PackedBatch

SEVEN = "Qwen/Qwen2.5-VL-7B-Instruct"
# Prompts of more keys than policy.attention multiplies out: the fused kernel keeps no scores, as on a GPU.
LONG_SIDE = 28 * 24


def shape_of(config: ModelConfig) -> ModelShape:
    shape = find_shape(config)
    assert isinstance(shape, ModelShape), shape
    return shape


def equal_groups(processor: Processor, num_groups: int, group_size: int, length: int, side: int = 112) -> list[Group]:
    """Groups whose completions are all `length` tokens long."""
    prompts = [
        processor.encode_prompt(Example(f"{i}", picture(i, (side, side)), (0.0, 0.0))) for i in range(num_groups)
    ]
    return [Group(prompt, [torch.randint(10, 600, (length,)) for _ in range(group_size)]) for prompt in prompts]


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


def memory_of(plan: Plan, stage: int = 0) -> MemoryPlan:
    memory = plan.stages[stage].memory
    assert memory is not None
    return memory


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


def recipe(name: str = "geo_r", *overrides: str) -> RunConfig:
    return load_config(name, overrides)


def test_rows_per_step_are_what_packing_makes_of_the_longest_groups(tiny_folder: Path, processor: Processor) -> None:
    grpo = GRPOConfig(prompts_per_step=14, group_size=4, sampling=SamplingConfig(max_new_tokens=24))
    config = RunConfig(tokens_per_microbatch=400, model=model_config(tiny_folder), grpo=grpo)
    stage = plan_run(config, 2, data=DataSize(12, 12, 16, 8)).stages[1]
    (group,) = equal_groups(processor, 1, 4, 24)
    assert stage.group is not None
    assert stage.group.packed_tokens == 16 + 8 + 4 * 23
    per_token = dataclasses.replace(group.prompt, token_ids=group.prompt.token_ids[:24])
    rows = split_by_budget([Group(per_token, group.completions)] * 7, 400)
    assert stage.rows_per_step == len(rows) == 3
    assert stage.groups_per_row == max(len(row) for row in rows)


def test_a_group_larger_than_a_row_is_planned_in_the_parts_it_is_split_into(
    tiny_folder: Path, processor: Processor
) -> None:
    grpo = GRPOConfig(prompts_per_step=2, group_size=7, sampling=SamplingConfig(max_new_tokens=24))
    config = RunConfig(tokens_per_microbatch=100, model=model_config(tiny_folder), grpo=grpo)
    stage = plan_run(config, 1, data=DataSize(12, 12, 16, 8)).stages[1]
    (group,) = equal_groups(processor, 1, 7, 24)
    per_token = dataclasses.replace(group.prompt, token_ids=group.prompt.token_ids[:24])
    rows = split_into_rows([Group(per_token, group.completions)] * 2, 100)
    assert stage.rows_per_step == len(rows) == 6
    assert stage.memory is not None
    whole = plan_run(dataclasses.replace(config, tokens_per_microbatch=1000), 1, data=DataSize(12, 12, 16, 8)).stages[1]
    assert whole.memory is not None
    assert stage.memory.activations < whole.memory.activations / 3


def test_epochs_are_those_of_the_loader() -> None:
    data = DataSize(num_train=500_000, num_grpo_train=40, image_tokens=200, text_tokens=100)
    supervised, grpo = plan_run(recipe("geo_r", "--grpo.steps=5"), 8, data=data).stages
    assert supervised.num_prompts == 500_032
    assert supervised.epochs == pytest.approx(500_032 / 500_000)
    assert grpo.epochs == 2.0
    seen = [i for step in range(grpo.steps) for i in step_indices(40, grpo.prompts_per_step, 0, step)]
    assert all(seen.count(i) == 2 for i in range(40))
    assert plan_run(recipe(), 8).stages[0].epochs is None


def test_sharded_memory_shrinks_with_the_gpus_and_gathered_memory_does_not() -> None:
    one, eight = (memory_of(plan_run(recipe(), num_gpus), stage=1) for num_gpus in (1, 8))
    for part in ("parameters", "gradients", "optimizer"):
        assert getattr(one, part) == pytest.approx(8 * getattr(eight, part), abs=8)
    for part in ("gathered", "gathered_for_sampling", "loading"):
        assert getattr(one, part) == getattr(eight, part)
    assert one.parameters == 4 * 8_292_166_656
    assert one.optimizer == 8 * 8_292_166_656
    assert one.gathered_for_sampling == 2 * 8_292_166_656


def test_a_reference_is_planned_for_only_where_there_is_a_kl() -> None:
    with_kl, without = (plan_run(recipe("geo_r", f"--loss.beta={beta}"), 8) for beta in (0.04, 0.0))
    assert memory_of(without, 1).reference == memory_of(with_kl, 0).reference == 0
    # In bfloat16
    assert memory_of(with_kl, 1).reference == pytest.approx(memory_of(with_kl, 1).parameters / 2)
    assert with_kl.stages[1].hours > without.stages[1].hours
    assert with_kl.stages[0].hours == without.stages[0].hours


def test_decoding_takes_no_less_than_reading_the_weights() -> None:
    shape = shape_of(ModelConfig(path=SEVEN))
    size = GroupSize(image_tokens=500, text_tokens=100, completion_tokens=101, group_size=4)
    seconds = sampling_seconds(shape, size, 1, number_bytes=2, hardware=H200)
    weights_s = 100 * 2 * (shape.language.weights + shape.head_weights) / (H200.bytes_per_s * H200.use_of_bandwidth)
    prefill_s = prefill_flops(shape, size) / (H200.flops_per_s * H200.use_of_flops)
    # Keys and values of 900 tokens are a hundredth of the weights.
    assert weights_s + prefill_s < seconds < 1.02 * (weights_s + prefill_s)
    # So many rows that computing takes longer than reading
    many = sampling_seconds(shape, size, 1000, number_bytes=2, hardware=H200)
    flops = 100 * 2.0 * (shape.language.weights + shape.head_weights) * 4000
    assert many > flops / (H200.flops_per_s * H200.use_of_flops) + 1000 * prefill_s


def test_hours_grow_with_the_steps_and_shrink_with_the_gpus() -> None:
    hours = [
        plan_run(recipe("geo_r", f"--supervised.steps={steps}"), gpus).stages[0].hours
        for steps, gpus in ((100, 8), (200, 8), (100, 4))
    ]
    assert hours[1:] == pytest.approx([2 * hours[0], 2 * hours[0]])


def test_a_skipped_stage_has_no_costs_and_is_said_to_be_skipped() -> None:
    plan = plan_run(recipe("globe"), 6)
    assert plan.stages[0].memory is None
    text = format_plan(plan)
    assert "Stage 1, supervised: skipped, as supervised.steps is 0." in text
    assert plan.total_hours == plan.stages[1].hours


@pytest.mark.parametrize("path", ["somebody/unknown", "/no/such/folder"])
def test_a_model_of_unknown_shape_leaves_out_what_depends_on_it_and_says_so(path: str) -> None:
    plan = plan_run(recipe("geo_r", f"--model.path={path}"), 8)
    assert plan.shape is None
    text = format_plan(plan)
    assert f"{path} has no config.json on this machine" in " ".join(text.split())
    assert "12,500" in text
    assert "800,000" in text
    assert "memory on each GPU" not in text
    assert "Hours of" not in text


def test_a_model_of_another_family_is_not_planned(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert "of type 'gpt2', not one of qwen2_vl" in str(find_shape(ModelConfig(path=str(tmp_path))))


def test_the_tiny_model_gets_no_gpu_hours() -> None:
    plan = plan_run(recipe("demo"), 1)
    assert plan.total_hours is None
    assert "made for a CPU" in format_plan(plan)
    assert "GPU hours" not in format_plan(plan)


def test_what_will_not_work_well_is_said() -> None:
    notes = " ".join(format_plan(plan_run(recipe("globe"), 8)).split())
    assert "grpo.prompts_per_step is 6, so 2 of 8 GPUs have nothing to do" in notes
    assert "more than tokens_per_microbatch (8,192)" in notes
    assert "WARNING" not in notes
    large = " ".join(format_plan(plan_run(recipe("globe", "--tokens_per_microbatch=20000"), 8)).split())
    assert "in the 141 GB of an H200: training needs up to" in large
    assert "lower tokens_per_microbatch" in large
    small = ("--sampling.max_new_tokens=256", "--prompts_per_step=8")
    fine = format_plan(plan_run(recipe("globe", small[0], "--grpo.prompts_per_step=8"), 8))
    assert "NOTE" not in fine
    assert "WARNING" not in fine


@pytest.mark.parametrize("width", [78, 118])
@pytest.mark.parametrize("name", ["demo", "geo_r", "globe"])
def test_no_line_is_wider_than_asked_and_no_number_is_cut(name: str, width: int) -> None:
    lines = format_plan(plan_run(recipe(name), 8), width).splitlines()
    assert max(len(line) for line in lines) <= width
    assert not any("…" in line for line in lines)
    titles = [line for line in lines if line.startswith(("Tokens per step", "Packed rows", "Most while"))]
    assert len(titles) == 4
    assert all(line[-1].isdigit() for line in titles)


def test_the_memory_table_adds_up() -> None:
    memory = memory_of(plan_run(recipe(), 8), 1)
    parts = {field.name: getattr(memory, field.name) for field in dataclasses.fields(memory)}
    kept = sum(parts[name] for name in ("parameters", "gradients", "optimizer", "reference"))
    training = sum(parts[name] for name in ("gathered", "gradients_in_flight", "activations", "head_chunk"))
    assert memory.kept == kept
    assert memory.training_peak == kept + training
    sampling = parts["gathered_for_sampling"] + parts["cache"] + max(parts["logits"], parts["prefill"])
    assert memory.sampling_peak == kept + sampling


def test_the_data_give_epochs_and_the_length_of_a_prompt() -> None:
    plan = plan_run(recipe(), 8, data=DataSize(500_000, 200_000, image_tokens=234, text_tokens=110))
    first, second = format_data(plan).splitlines()
    assert "Stage 1: 7,813 steps are 1.00 epochs of 500,000 examples" in first
    assert "Stage 2: 12,500 steps are 1.00 epochs of 200,000 examples" in second
    assert "if all prompts were as long as the first, 344 tokens" in first
    assert plan.total_hours < plan_run(recipe(), 8).total_hours


@pytest.mark.parametrize("prompt", list(PROMPTS))
def test_the_question_is_counted_as_about_a_quarter_of_its_characters(prompt: str) -> None:
    stage = plan_run(recipe("geo_r", f"--answer.prompt={prompt}"), 8).stages[1]
    assert stage.group is not None
    assert stage.group.text_tokens == pytest.approx(25 + len(PROMPTS[prompt]) / 4, abs=1)


def test_a_plan_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="num_gpus must be at least 1, got 0"):
        plan_run(recipe(), 0)
