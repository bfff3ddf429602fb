"""The closing table of a run and what stage 2 changed, computed from the files of the run alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from geogrpo_kernels import haversine_km
from PIL import Image
from rich.console import Console
from rich.table import Table

from geogrpo.checkpoint import STAGES
from geogrpo.evaluation import (
    HeldOutPrediction,
    answer_rewards,
    greedy_points,
    held_out_summary,
    true_points,
)
from geogrpo.metrics import THRESHOLDS_KM, Estimate, bootstrap, charged_km, paired_difference
from geogrpo.regions.index import RegionIndex
from geogrpo.report.figures import distance_histogram, reward_curve, world_map
from geogrpo.report.run_log import predictions_path, read_metrics, read_predictions

REWARD = "multiscale"
"""The reward of the closing table, whatever GRPO was paid for: one yardstick for all runs."""
MAX_SKIPPED_LINES = 20
ROW_TITLES = {
    "constant": "best constant guess",
    "supervised": "after stage 1 (supervised)",
    "grpo": "after stage 2 (GRPO)",
}
COLUMNS = {
    **{f"within_{km}_km": (f"≤{km} km", "{:.1%}") for km in THRESHOLDS_KM},
    "median_km": ("median km", "{:,.0f}"),
    "geoscore": ("GeoScore", "{:,.0f}"),
    "country_accuracy": ("country", "{:.1%}"),
    "unparseable": ("unparsed", "{:.1%}"),
}


def write_report(
    folder: Path,
    *,
    constant_latlon_deg: np.ndarray,
    index: RegionIndex,
    num_samples: int,
    world: Image.Image | None,
    console: Console,
) -> dict[str, Any]:
    """Print the closing tables, write report/ and summary.json, and return the summary.

    Args:
        folder: of the run.
        constant_latlon_deg: (2,) the best constant guess.
        index: looks countries up.
        num_samples: bootstrap resamples.
        world: equirectangular picture of the Earth for the map, or None for no map.
    """
    stages = [stage for stage in STAGES if predictions_path(folder, stage).exists()]
    predictions = {stage: read_predictions(folder, stage) for stage in stages}
    rows = _rows(predictions, constant_latlon_deg, index, num_samples)
    console.print(_accuracy_table(rows, len(predictions[stages[-1]])))
    summary: dict[str, Any] = {
        "num_images": len(predictions[stages[-1]]),
        "reward": REWARD,
        "rows": {row: {name: asdict(value) for name, value in columns.items()} for row, columns in rows.items()},
    }
    if len(stages) == 2:
        change = stage_change(predictions["supervised"], predictions["grpo"], num_samples)
        console.print(_change_table(change))
        summary["stage_2_minus_stage_1"] = {name: asdict(value) for name, value in change.items()}
    text = json.dumps(summary, indent=2, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
    _draw(folder, predictions, world)
    return summary


def _rows(
    predictions: dict[str, list[HeldOutPrediction]],
    constant_latlon_deg: np.ndarray,
    index: RegionIndex,
    num_samples: int,
) -> dict[str, dict[str, Estimate]]:
    any_stage = next(iter(predictions.values()))
    constant = torch.tensor(constant_latlon_deg).expand(len(any_stage), 2)
    answers = {"constant": (constant, any_stage)}
    answers |= {stage: (greedy_points(records), records) for stage, records in predictions.items()}
    return {
        row: held_out_summary(points.numpy(), true_points(records).numpy(), index, num_samples=num_samples)
        for row, (points, records) in answers.items()
    }


def stage_change(
    before: Sequence[HeldOutPrediction], after: Sequence[HeldOutPrediction], num_samples: int
) -> dict[str, Estimate]:
    """Multiscale reward of stage 2 minus that of stage 1, image by image, with paired bootstrap intervals.

    Args:
        before, after: the same images in the same order; ids may repeat.
        num_samples: bootstrap resamples.
    Returns:
        `<row>_stage_1`, `<row>_stage_2` and `<row>_change` for the rows `sampled_reward` (each image's mean over its
        samples; left out where there are none) and `greedy_reward`.
    Raises:
        ValueError: when the two stages did not answer the same images.
    """
    _check_same_images(before, after)
    first, second = answer_rewards(before), answer_rewards(after)
    change: dict[str, Estimate] = {}
    for name in [name for name in ("sampled_reward", "greedy_reward") if name in first]:
        change[f"{name}_stage_1"] = bootstrap(first[name], num_samples=num_samples)
        change[f"{name}_stage_2"] = bootstrap(second[name], num_samples=num_samples)
        change[f"{name}_change"] = paired_difference(first[name], second[name], num_samples=num_samples)
    return change


def _check_same_images(before: Sequence[HeldOutPrediction], after: Sequence[HeldOutPrediction]) -> None:
    if len(before) != len(after):
        raise ValueError(f"both stages must answer the same images, got {len(before)} and {len(after)} answers.")
    for position, (first, second) in enumerate(zip(before, after, strict=True)):
        if (first.id, len(first.sampled_latlon_deg)) != (second.id, len(second.sampled_latlon_deg)):
            raise ValueError(
                f"both stages must answer the same images as often, got at position {position}"
                f" {first.id!r} with {len(first.sampled_latlon_deg)} samples and"
                f" {second.id!r} with {len(second.sampled_latlon_deg)}."
            )


def skipped_lines(skipped_images: Mapping[str, int]) -> list[str]:
    """What to print about unreadable training images: each one once, at most MAX_SKIPPED_LINES of them.

    Args:
        skipped_images: message -> how often it was met.
    """
    if not skipped_images:
        return []
    lines = [f"{len(skipped_images)} training image(s) could not be read and were skipped:"]
    lines += [f"  {message} (met {count}x)" for message, count in list(skipped_images.items())[:MAX_SKIPPED_LINES]]
    if len(skipped_images) > MAX_SKIPPED_LINES:
        lines.append(f"  and {len(skipped_images) - MAX_SKIPPED_LINES} more")
    return lines


def _accuracy_table(rows: dict[str, dict[str, Estimate]], num_images: int) -> Table:
    table = Table(title=f"Greedy answers on {num_images:,} held-out images (95 % bootstrap interval below)")
    table.add_column("")
    for title, _ in COLUMNS.values():
        table.add_column(title, justify="right")
    for row, columns in rows.items():
        table.add_row(ROW_TITLES[row], *[_cell(columns[name], form) for name, (_, form) in COLUMNS.items()])
    return table


def _change_table(change: dict[str, Estimate]) -> Table:
    table = Table(title=f"Mean {REWARD} reward per held-out image, paired (95 % interval below)")
    for title in ("", "after stage 1", "after stage 2", "change"):
        table.add_column(title, justify="right" if title else "left")
    for name, title in (("sampled_reward", "sampled answers"), ("greedy_reward", "greedy answers")):
        if f"{name}_change" not in change:
            continue
        cells = [_cell(change[f"{name}_{part}"], "{:.4f}") for part in ("stage_1", "stage_2")]
        table.add_row(title, *cells, _cell(change[f"{name}_change"], "{:+.4f}"))
    return table


def _cell(value: Estimate, form: str) -> str:
    return f"{form.format(value.value)}\n[dim]{form.format(value.low)} – {form.format(value.high)}[/dim]"


def _draw(folder: Path, predictions: dict[str, list[HeldOutPrediction]], world: Image.Image | None) -> None:
    report = folder / "report"
    report.mkdir(exist_ok=True)
    metrics = read_metrics(folder)
    if any(record["stage"] == "grpo" for record in metrics):
        reward_curve(metrics, report / "reward_curve.png")
    distances = {
        stage: haversine_km(greedy_points(records), true_points(records)).numpy()
        for stage, records in predictions.items()
    }
    distance_histogram(distances, report / "distance_histogram.png")
    if world is None:
        return
    for stage, records in predictions.items():
        median = np.median(charged_km(distances[stage]))
        title = (
            f"After {stage}: truth (dot) to answer (line), {len(records):,} held-out images, median {median:,.0f} km"
        )
        world_map(
            true_points(records).numpy(),
            greedy_points(records).numpy(),
            distances[stage],
            world,
            report / f"world_map_{stage}.png",
            title=title,
        )
