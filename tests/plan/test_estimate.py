"""A whole plan: rows, epochs, memory and hours of a run; what its text says and leaves out."""

import dataclasses
from pathlib import Path

import pytest
from conftest import model_config
from plan.sizes import equal_groups, memory_of, shape_of

from geogrpo.config import GRPOConfig, ModelConfig, RunConfig, SamplingConfig
from geogrpo.config_files import load_config
from geogrpo.data.draws import step_indices
from geogrpo.plan import DataSize, format_data, format_plan, plan_run
from geogrpo.plan.costs import (
    H200,
    GroupSize,
    prefill_flops,
    sampling_seconds,
)
from geogrpo.plan.shapes import find_shape
from geogrpo.policy.packing import Group, split_by_budget, split_into_rows
from geogrpo.policy.processing import Processor
from geogrpo.prompts import PROMPTS


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
    shape = shape_of(ModelConfig(path="Qwen/Qwen2.5-VL-7B-Instruct"))
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
