"""The plan of a run for people: lines of text as wide as asked."""

from collections.abc import Callable
from io import StringIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from geogrpo.plan.costs import MemoryPlan
from geogrpo.plan.estimate import Plan, StagePlan

GB = 1e9
TITLES = {"supervised": "Stage 1, supervised", "grpo": "Stage 2, GRPO"}


def format_plan(plan: Plan, width: int = 100) -> str:
    """The whole plan, ending with a line break. Upper bounds are marked with `<=`, guesses with `about`."""
    output = StringIO()
    console = Console(file=output, width=width, highlight=False, markup=False, emoji=False, color_system=None)
    gpus = "1 GPU" if plan.num_gpus == 1 else f"{plan.num_gpus} GPUs"
    console.print(f"Plan of {plan.config.name!r} on {gpus}. Estimated, not measured; <= marks an upper bound.")
    console.print(_model_line(plan))
    for stage in plan.stages:
        if stage.steps == 0:
            console.print(f"{TITLES[stage.section]}: skipped, as {stage.section}.steps is 0.")
    console.print()
    console.print(_table(plan, _work_rows(plan)))
    if plan.total_hours is not None:
        console.print(
            f"In all about {_hours(plan.total_hours)} h, or {_hours(plan.total_hours * plan.num_gpus)} GPU hours."
        )
    if any(stage.memory for stage in plan.stages):
        console.print()
        console.print("GB (10^9 bytes) of memory on each GPU:")
        console.print(_table(plan, _memory_rows(plan)))
    console.print()
    for note in _notes(plan):
        console.print(Padding(note, (0, 0, 0, 2)))
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()) + "\n"


def format_data(plan: Plan) -> str:
    """One line per stage of a plan made with the data: epochs, and hours at the length of the first prompt."""
    lines = []
    for stage in _running(plan):
        number, examples = TITLES[stage.section].partition(",")[0], stage.num_examples
        line = f"{number}: {stage.steps:,} steps are {stage.epochs:.2f} epochs of {examples:,} examples"
        if stage.hours is not None and stage.group is not None:
            line += (
                f"; about {_hours(stage.hours)} h if all prompts were as long as the first,"
                f" {stage.group.prompt_tokens:,} tokens"
            )
        lines.append(line + ".\n")
    return "".join(lines)


def _running(plan: Plan) -> list[StagePlan]:
    return [stage for stage in plan.stages if stage.steps > 0]


def _model_line(plan: Plan) -> str:
    name = plan.config.model.path or "a tiny model"
    if plan.shape is None:
        return f"Model: {plan.problem}, so what depends on its size is left out: tokens of images, memory, hours."
    return f"Model: {name}, {plan.shape.num_parameters:,} parameters ({plan.shape.source})."


def _table(plan: Plan, rows: list[tuple[str, list[str]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_edge=False)
    table.add_column("", justify="left", overflow="fold")
    for stage in _running(plan):
        table.add_column(TITLES[stage.section], justify="right", overflow="fold")
    for title, cells in rows:
        table.add_row(title, *cells)
    return table


def _row(plan: Plan, title: str, cell: Callable[[StagePlan], str]) -> tuple[str, list[str]]:
    return title, [cell(stage) for stage in _running(plan)]


def _work_rows(plan: Plan) -> list[tuple[str, list[str]]]:
    rows = [
        _row(plan, "Steps", lambda stage: f"{stage.steps:,}"),
        _row(plan, "Prompts per step", lambda stage: f"{stage.prompts_per_step:,}"),
        _row(plan, "Prompts in all", lambda stage: f"{stage.num_prompts:,}"),
        _row(plan, "Completions per prompt", lambda stage: f"{stage.group_size:,}"),
        _row(plan, "Completions in all", lambda stage: f"{stage.num_completions:,}"),
        _row(plan, "Tokens of one completion", _completion_tokens),
    ]
    if plan.shape is None:
        return rows
    least, most = plan.shape.image_token_range
    return [
        *rows,
        _row(plan, "Tokens of one image", lambda stage: f"{least:,} to {most:,}"),
        _row(plan, "Tokens of the question", lambda stage: f"about {stage.group.text_tokens:,}" if stage.group else ""),
        _row(plan, "Tokens per step, prompts once", _packed_tokens),
        _row(plan, "  prompts once per completion", _repeated_tokens),
        _row(plan, "Packed rows per step and GPU", lambda stage: f"<= {stage.rows_per_step:,}"),
        *(_hour_rows(plan) if plan.total_hours is not None else []),
    ]


def _hour_rows(plan: Plan) -> list[tuple[str, list[str]]]:
    return [
        _row(plan, "Hours of training and sampling", lambda stage: _about(stage.hours)),
        _row(plan, "Hours of the held-out evaluation", lambda stage: _about(stage.evaluation_hours)),
    ]


def _completion_tokens(stage: StagePlan) -> str:
    return f"{'<=' if stage.section == 'grpo' else 'about'} {stage.completion_tokens:,}"


def _packed_tokens(stage: StagePlan) -> str:
    return f"<= about {stage.prompts_per_step * stage.group.packed_tokens:,}" if stage.group else ""


def _repeated_tokens(stage: StagePlan) -> str:
    return f"<= about {stage.prompts_per_step * stage.group.repeated_tokens:,}" if stage.group else ""


def _about(hours: float | None) -> str:
    return "unknown" if hours is None else f"about {_hours(hours)}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}" if hours >= 0.1 else f"{hours:.2f}"


MEMORY_ROWS: tuple[tuple[str, str], ...] = (
    ("All the time", "kept"),
    ("  Parameters, float32", "parameters"),
    ("  Gradients, float32", "gradients"),
    ("  AdamW's two moments, float32", "optimizer"),
    ("  Reference of the KL", "reference"),
    ("Training, besides", ""),
    ("  Gathered: embedding, head, 2 blocks", "gathered"),
    ("  Their gradients, not yet summed", "gradients_in_flight"),
    ("  Activations of one packed row", "activations"),
    ("  Logits of one chunk, float32", "head_chunk"),
    ("Sampling and evaluation, besides", ""),
    ("  Gathered: all parameters", "gathered_for_sampling"),
    ("  Keys and values", "cache"),
    ("  Logits of one token", "logits"),
    ("  or, before: reading the prompts", "prefill"),
    ("Most while training", "training_peak"),
    ("Most while sampling", "sampling_peak"),
)
"""Titles of the memory table, and the MemoryPlan's attribute; an empty one is a heading."""


def _memory_rows(plan: Plan) -> list[tuple[str, list[str]]]:
    def cell(attribute: str) -> Callable[[StagePlan], str]:
        return lambda stage: _gigabytes(getattr(stage.memory, attribute)) if attribute else ""

    return [_row(plan, title, cell(attribute)) for title, attribute in MEMORY_ROWS]


def _gigabytes(num_bytes: int) -> str:
    size_gb = num_bytes / GB
    if num_bytes == 0:
        return "0"
    return f"{size_gb:,.0f}" if size_gb >= 100 else f"{size_gb:.1f}" if size_gb >= 1 else f"{size_gb:.3f}"


def _notes(plan: Plan) -> list[str]:
    """What the numbers assume, and what looks wrong."""
    notes = [warning for stage in _running(plan) for warning in _warnings(plan, stage)]
    if plan.shape is None:
        return notes
    hardware = plan.hardware
    if plan.config.model.path is None:
        return [*notes, "Hours are not estimated: the tiny model is made for a CPU, and the estimate is for a GPU."]
    return [
        *notes,
        f"Hours assume {hardware.name} GPUs ({hardware.flops_per_s / 1e12:.0f} TFLOP/s in bfloat16,"
        f" {hardware.bytes_per_s / 1e12:.1f} TB/s) of which training and reading prompts reach"
        f" {hardware.use_of_flops:.0%} and decoding {hardware.use_of_bandwidth:.0%} of the bandwidth: guesses, not"
        " measurements. The largest images and longest completions overstate them. Communication, gaps between"
        " kernels, reading images, rewards and judges are not counted, which understates them.",
        "Memory assumes an attention kernel that keeps no scores, that everything is trained and sharded over all"
        " GPUs, and that activations are kept: what model.freeze_vision, model.lora, model.activation_checkpointing and"
        " parallel save is not counted. Activations grow with the tokens of a row: see activation_bytes in"
        " geogrpo/plan/costs.py for the formula.",
        _loading_note(plan),
    ]


def _loading_note(plan: Plan) -> str:
    assert plan.shape is not None
    whole_gb = 4 * plan.shape.num_parameters / GB
    return (
        f"Loading: each process reads the whole model in float32, {whole_gb:.0f} GB of host memory"
        f" ({whole_gb * plan.num_gpus:,.0f} GB for {plan.num_gpus}), and copies it to its GPU before it is sharded."
    )


def _warnings(plan: Plan, stage: StagePlan) -> list[str]:
    number, budget = TITLES[stage.section].partition(",")[0], plan.config.tokens_per_microbatch
    key = "supervised.examples_per_step" if stage.section == "supervised" else "grpo.prompts_per_step"
    found = []
    if stage.prompts_per_step < plan.num_gpus:
        found.append(
            f"NOTE {number}: {key} is {stage.prompts_per_step}, so {plan.num_gpus - stage.prompts_per_step} of"
            f" {plan.num_gpus} GPUs have nothing to do: a group is never split over GPUs."
        )
    if stage.group is not None and stage.group.packed_tokens > budget:
        found.append(
            f"NOTE {number}: a group can have {stage.group.packed_tokens:,} tokens, more than tokens_per_microbatch"
            f" ({budget:,}): it is then split, and its prompt computed in each part."
        )
    if stage.memory is not None:
        found += _memory_warnings(number, stage.memory, plan)
    return found


def _memory_warnings(number: str, memory: MemoryPlan, plan: Plan) -> list[str]:
    most_gb, changes = plan.hardware.memory_gb, []
    if memory.training_peak / GB > most_gb:
        changes.append(
            f"training needs up to {memory.training_peak / GB:,.0f} GB: lower tokens_per_microbatch or"
            " model.max_pixels, or take more GPUs"
        )
    if memory.sampling_peak / GB > most_gb:
        changes.append(
            f"sampling needs up to {memory.sampling_peak / GB:,.0f} GB: lower evaluation.batch_size,"
            " grpo.prompts_per_step or grpo.sampling.max_new_tokens, or take more GPUs"
        )
    if memory.loading / GB > most_gb:
        changes.append(f"loading needs {memory.loading / GB:,.0f} GB: this model is too large to be loaded this way")
    name = plan.hardware.name
    return [f"WARNING {number}, in the {most_gb:.0f} GB of an {name}: {change}." for change in changes]
