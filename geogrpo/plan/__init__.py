"""What a run will do and need, from its configuration alone: steps, tokens, memory per GPU, hours."""

from geogrpo.plan.estimate import DataSize, Plan, StagePlan, plan_run
from geogrpo.plan.text import format_data, format_plan

__all__ = ["DataSize", "Plan", "StagePlan", "format_data", "format_plan", "plan_run"]
