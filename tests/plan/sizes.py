"""What the tests of a plan share: groups of known lengths, and parts of a plan."""

import torch
from conftest import picture

from geogrpo.config import ModelConfig
from geogrpo.plan import Plan
from geogrpo.plan.costs import (
    MemoryPlan,
)
from geogrpo.plan.shapes import ModelShape, find_shape
from geogrpo.policy.packing import Group
from geogrpo.policy.processing import Processor
from geogrpo.types import Example


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


def memory_of(plan: Plan, stage: int = 0) -> MemoryPlan:
    memory = plan.stages[stage].memory
    assert memory is not None
    return memory
