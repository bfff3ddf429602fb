"""The plan of a run as numbers.

Everything is counted for the busiest GPU, at the largest images and longest completions that the configuration allows:
tokens are upper bounds but for the length of the question and of supervised answers, which is guessed from their text.
Hours leave out communication between GPUs, reading and encoding images, rewards (a judge's too), checkpoints, and what
an eager engine loses between kernels.
"""

import math
from dataclasses import dataclass, replace

import torch

from geogrpo.config import RunConfig
from geogrpo.plan.costs import (
    H200,
    GroupSize,
    Hardware,
    MemoryPlan,
    plan_memory,
    sampling_seconds,
    training_seconds,
)
from geogrpo.plan.shapes import ModelShape, find_shape
from geogrpo.prompts import PROMPTS

CHARACTERS_PER_TOKEN = 4
"""Of English text under Qwen's tokenizer, about."""
TEMPLATE_TOKENS = 25
"""What Qwen's chat template adds to a question, about: a system prompt, roles, the marks around an image."""
NAMES_TOKENS = 30
"""Of a supervised answer without its digits, about: four labels, three names, brackets."""
_DEGREES_TOKENS = 5
"""Of one coordinate besides its decimals: sign, up to three digits, point. Qwen's tokenizer splits all digits."""


@dataclass(frozen=True)
class DataSize:
    """What a plan can use once the data are loaded."""

    num_train: int
    """Examples of stage 1."""
    num_grpo_train: int
    """Examples of stage 2."""
    image_tokens: int
    """Of the first training example's prompt."""
    text_tokens: int
    """Of the same."""


@dataclass(frozen=True)
class StagePlan:
    """One stage. What follows from the model is None where its shape is not known."""

    section: str
    """Of the configuration: supervised or grpo."""
    steps: int
    prompts_per_step: int
    """Over all GPUs."""
    group_size: int
    """1 in the supervised stage."""
    completion_tokens: int
    """Of one completion."""
    num_examples: int | None
    """In the training set, if it was loaded."""
    group: GroupSize | None
    """A prompt and its completions at their longest, or like the first example's once the data are loaded."""
    groups_per_row: int | None
    """In one packed row of the busiest GPU; parts of groups, where one is larger than a row."""
    rows_per_step: int | None
    """On the busiest GPU."""
    memory: MemoryPlan | None
    hours: float | None
    """Training and sampling; None also for the tiny model."""
    evaluation_hours: float | None
    """Of the held-out evaluation after the stage; None also where all held-out examples are taken, or none known."""

    @property
    def num_prompts(self) -> int:
        """In all steps, an example seen twice counted twice."""
        return self.steps * self.prompts_per_step

    @property
    def num_completions(self) -> int:
        """In all steps."""
        return self.num_prompts * self.group_size

    @property
    def epochs(self) -> float | None:
        """Times that each example is seen, on average."""
        return None if not self.num_examples else self.num_prompts / self.num_examples


@dataclass(frozen=True)
class Plan:
    """A run on some GPUs."""

    config: RunConfig
    num_gpus: int
    shape: ModelShape | None
    problem: str
    """Why the shape is not known; empty when it is."""
    hardware: Hardware
    stages: tuple[StagePlan, ...]
    """The two stages; one with 0 steps is skipped by the run."""

    @property
    def total_hours(self) -> float | None:
        """Of both stages, training and sampling; None where one is unknown or there is no stage."""
        hours = [stage.hours for stage in self.stages if stage.steps]
        known = [value for value in hours if value is not None]
        return sum(known) if known and len(known) == len(hours) else None


def plan_run(config: RunConfig, num_gpus: int, *, data: DataSize | None = None, hardware: Hardware = H200) -> Plan:
    """The plan of a run, from its configuration and, of the model, at most config.json and the image processor's file.

    Args:
        num_gpus: processes of the run, at least 1.
        data: counts, and the lengths of a prompt, where the data were loaded.
    """
    if num_gpus < 1:
        raise ValueError(f"num_gpus must be at least 1, got {num_gpus}.")
    found = find_shape(config.model)
    shape, problem = (None, found) if isinstance(found, str) else (found, "")
    stages = tuple(_plan_stage(stage, config, shape, num_gpus, hardware, data) for stage in _stages(config, data))
    return Plan(config, num_gpus, shape, problem, hardware, stages)


def question_tokens(prompt: str) -> int:
    """Tokens of a prompt besides its image, about."""
    return TEMPLATE_TOKENS + math.ceil(len(PROMPTS.get(prompt, "")) / CHARACTERS_PER_TOKEN)


def answer_tokens(decimals: int) -> int:
    """Tokens of a supervised answer, about."""
    return NAMES_TOKENS + 2 * (_DEGREES_TOKENS + decimals)


def _stages(config: RunConfig, data: DataSize | None) -> tuple[StagePlan, StagePlan]:
    """Both stages with what the configuration alone says."""
    supervised, grpo = config.supervised, config.grpo
    unknown: dict[str, None] = dict.fromkeys(
        ("group", "groups_per_row", "rows_per_step", "memory", "hours", "evaluation_hours")
    )
    return (
        StagePlan(
            section="supervised",
            steps=supervised.steps,
            prompts_per_step=supervised.examples_per_step,
            group_size=1,
            completion_tokens=answer_tokens(config.answer.decimals),
            num_examples=data.num_train if data else None,
            **unknown,
        ),
        StagePlan(
            section="grpo",
            steps=grpo.steps,
            prompts_per_step=grpo.prompts_per_step,
            group_size=grpo.group_size,
            completion_tokens=grpo.sampling.max_new_tokens,
            num_examples=data.num_grpo_train if data else None,
            **unknown,
        ),
    )


def _plan_stage(
    stage: StagePlan,
    config: RunConfig,
    shape: ModelShape | None,
    num_gpus: int,
    hardware: Hardware,
    data: DataSize | None,
) -> StagePlan:
    """The stage with what follows from the model's shape."""
    if shape is None or stage.steps == 0:
        return stage
    group = GroupSize(
        image_tokens=data.image_tokens if data else shape.image_token_range[1],
        text_tokens=data.text_tokens if data else question_tokens(config.answer.prompt),
        completion_tokens=stage.completion_tokens,
        group_size=stage.group_size,
    )
    on_gpu = math.ceil(stage.prompts_per_step / num_gpus)
    part, num_parts = _part_in_row(group, config.tokens_per_microbatch)
    num_parts *= on_gpu
    per_row = min(num_parts, max(1, config.tokens_per_microbatch // part.packed_tokens))
    is_grpo = stage.section == "grpo"
    use_reference = is_grpo and config.grpo.loss.beta > 0
    number_bytes = getattr(torch, config.model.dtype).itemsize
    answers = replace(group, completion_tokens=config.grpo.sampling.max_new_tokens)
    phases = [*([(group, on_gpu)] if is_grpo else []), _evaluation_batch(answers, config, num_gpus)]
    step_s = training_seconds(shape, part, num_parts, use_reference=use_reference, hardware=hardware)
    if is_grpo:
        step_s += sampling_seconds(shape, group, on_gpu, number_bytes=number_bytes, hardware=hardware)
    is_tiny = config.model.path is None
    return replace(
        stage,
        group=group,
        groups_per_row=per_row,
        rows_per_step=math.ceil(num_parts / per_row),
        memory=plan_memory(
            shape,
            part,
            per_row,
            phases,
            num_gpus=num_gpus,
            number_bytes=number_bytes,
            use_reference=use_reference,
        ),
        hours=None if is_tiny else stage.steps * step_s / 3600,
        evaluation_hours=None if is_tiny else _evaluation_hours(shape, answers, config, num_gpus, hardware),
    )


def _part_in_row(group: GroupSize, max_tokens: int) -> tuple[GroupSize, int]:
    """What of a group fits into a row, and how many such parts it has (see policy.packing.split_into_rows)."""
    if group.packed_tokens <= max_tokens:
        return group, 1
    fitting = max(1, (max_tokens - group.prompt_tokens) // max(1, group.new_inputs))
    num_parts = math.ceil(group.group_size / fitting)
    return replace(group, group_size=math.ceil(group.group_size / num_parts)), num_parts


def _evaluation_batch(answers: GroupSize, config: RunConfig, num_gpus: int) -> tuple[GroupSize, int]:
    """The group and how many of them a GPU decodes together: greedy answers and samples take turns."""
    evaluation, num_test = config.evaluation, config.data.num_test
    on_gpu = math.ceil(num_test / num_gpus) if num_test else evaluation.batch_size
    return replace(answers, group_size=max(1, evaluation.num_samples)), min(evaluation.batch_size, on_gpu)


def _evaluation_hours(
    shape: ModelShape, answers: GroupSize, config: RunConfig, num_gpus: int, hardware: Hardware
) -> float | None:
    if config.data.num_test == 0:
        return None
    batch, size = _evaluation_batch(answers, config, num_gpus)
    groups = [replace(batch, group_size=1)] + ([batch] if config.evaluation.num_samples else [])
    number_bytes = getattr(torch, config.model.dtype).itemsize
    seconds = sum(sampling_seconds(shape, g, size, number_bytes=number_bytes, hardware=hardware) for g in groups)
    return math.ceil(config.data.num_test / num_gpus / size) * seconds / 3600
