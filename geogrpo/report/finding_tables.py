"""What an evaluation found, as rows and tables of text: answers, floors, regions, comparison, what agreement of the
samples is worth.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from geogrpo.evaluation.comparison import Comparison
from geogrpo.evaluation.confidence import Uncertainty
from geogrpo.evaluation.floors import Floors
from geogrpo.evaluation.halves import ALPHA, Chosen, Observed
from geogrpo.evaluation.scores import TRACKS
from geogrpo.metrics import Difference, Estimate
from geogrpo.report.tables import (
    MISSING,
    REGION_COLUMNS,
    MetricRow,
    TableColumn,
    TextTable,
    compact_interval,
    formatted,
    formatted_share,
    main_columns,
    shown_columns,
)

FLOORS = {"constant": "floor: best constant", "random": "floor: random place"}
LEAST_SHOWN_P = 0.001


def floor_rows(floors: Floors) -> list[MetricRow]:
    """A row of each floor."""
    return [MetricRow(FLOORS[name], values) for name, values in floors.estimates().items()]


def floor_note(floors: Floors, num_images: int) -> str:
    """What the floors are, in words.

    Args:
        num_images: of the evaluation.
    """
    drawn = f" Both are of {floors.num_images:,} of the images, drawn at random." * (floors.num_images < num_images)
    return (
        "Floors do not look at the picture. The best constant answer is the best of"
        f" {floors.num_candidates:,} of the true places, for each metric another one, chosen on these very images: that"
        " flatters it. The random place is one of GeoNames', as likely as it has people, on average over all draws."
        f"{drawn}"
    )


def region_table(rows: Sequence[MetricRow]) -> TextTable:
    """Answers in the truth's region, level by level."""
    columns = shown_columns(rows, REGION_COLUMNS)
    note = "A level counts only images whose truth has a region there."
    if any(key.startswith("osv_") for key in columns):
        note += " OSV: as OSV-5M compares, by the names of reverse_geocoder's nearest places."
    cells = [[row.name, *[formatted_share(row.estimate(key)) for key in columns]] for row in rows]
    return TextTable("Regions", ("", *[column.title for column in columns.values()]), cells, note)


def comparison_tables(comparison: Comparison, comparator: str) -> list[TextTable]:
    """A table for each track.

    Args:
        comparator: of the thresholds.
    """
    columns = main_columns(comparator) | REGION_COLUMNS
    left_out = f"; {comparison.num_only_here:,} that the other lacks are left out" * bool(comparison.num_only_here)
    note = (
        f"On the {comparison.num_images:,} images that both have a row for{left_out}. Paired: images are drawn for the"
        " interval, and their two answers exchanged for the p-value, together. No p-value is corrected for there being"
        " several."
    )
    return [
        TextTable(
            f"Compared with {comparison.other}: {TRACKS[track]}",
            ("", "other", "this", "difference", "95 % interval", "p"),
            [_difference_cells(columns[name], differences[name]) for name in columns if name in differences],
            note * (i == 0),
        )
        for i, (track, differences) in enumerate(comparison.tracks.items())
    ]


def _difference_cells(column: TableColumn, found: Difference) -> list[str]:
    is_share = "%" in column.form
    form, scale = ("{:+.1f}", 100) if is_share else (column.form.replace("{:", "{:+"), 1)
    change, low, high = (form.format(scale * value) for value in (found.value, found.low, found.high))
    p_value = f"<\N{NO-BREAK SPACE}{LEAST_SHOWN_P}" if found.p_value < LEAST_SHOWN_P else f"{found.p_value:.3f}"
    values = [column.form.format(value) for value in (found.before, found.after)]
    return [column.title, *values, change + " points" * is_share, f"{low} to {high}", p_value]


def uncertainty_tables(uncertainty: Uncertainty) -> list[TextTable]:
    """What the confidence in each level is worth, and what the radii hold."""
    return [_confidence_table(uncertainty), _radius_table(uncertainty)]


def _confidence_table(uncertainty: Uncertainty) -> TextTable:
    rows = [
        [
            level,
            f"{found.accuracy:.1%}",
            f"{found.mean_confidence:.1%}",
            f"{found.expected_calibration_error:.3f}",
            f"{found.aurc:.3f}",
            f"{found.num_images:,}",
        ]
        for level, found in uncertainty.levels.items()
    ]
    return TextTable(
        f"Confidence of the consensus of {uncertainty.num_samples} samples",
        ("", "right", "stated", "ECE", "AURC", "images"),
        rows,
        "Stated: mean share of the samples that are in the consensus's own region. ECE: mean distance of stated from"
        " right, over ten bins. AURC: mean share of wrong answers over all coverages, the surest images first.",
    )


def _radius_table(uncertainty: Uncertainty) -> TextTable:
    summary, everywhere = uncertainty.summary, f"all {len(uncertainty.is_calibration):,} images"
    radii = ((50, uncertainty.coverage_50, summary.radius_50_km), (90, uncertainty.coverage_90, summary.radius_90_km))
    rows = [
        [f"samples' {aim} % radius", f"{aim}%", formatted_share(coverage), everywhere, _median(radius_km)]
        for aim, coverage, radius_km in radii
    ]
    note = "Too few images to calibrate on one half of them and observe the other."
    if uncertainty.chosen and uncertainty.observed:
        rows += _calibrated_rows(uncertainty.chosen, uncertainty.observed)
        note = (
            "Conformal radii and the threshold to back off by were chosen on"
            f" {uncertainty.is_calibration.sum():,} images and observed on the others; an image's half follows"
            " from a hash of its id."
        )
    return TextTable("Radii and back-off", ("", "aim", "observed", "on", "size"), rows, note)


def _calibrated_rows(chosen: Chosen, observed: Observed) -> list[list[str]]:
    aim, others = f"{1 - ALPHA:.0%}", f"{observed.num_images:,} images"
    threshold = chosen.back_off.threshold
    at = "no threshold reaches the aim" if math.isinf(threshold) else f"confidence ≥ {threshold:.0%}"
    levels = ", ".join(f"{level} {count:,}" for level, count in observed.back_off_counts.items())
    scaled = f"median {observed.scaled_median_km:,.0f} km"
    target = f"{chosen.target_accuracy:.0%}"
    return [
        [
            "conformal radius, one for all",
            aim,
            formatted_share(observed.radius_coverage),
            others,
            f"{chosen.radius_km:,.0f} km",
        ],
        ["conformal radius, scaled by spread", aim, formatted_share(observed.scaled_coverage), others, scaled],
        ["right at the level backed off to", target, formatted_share(observed.back_off_accuracy), "those answered", at],
        ["answered at some level", MISSING, formatted_share(observed.back_off_coverage), others, levels],
    ]


def _median(radius_km: np.ndarray) -> str:
    return f"median {np.median(radius_km):,.0f} km"


def answers_table(answers: Mapping[str, Mapping[str, Estimate]], num_images: int, comparator: str) -> Table:
    """For the console: metrics as rows, answers as columns, each value above its interval.

    Args:
        answers: "coordinates", "constant" and so on -> metric -> estimate.
        num_images: of the evaluation.
        comparator: of the thresholds.
    """
    # Six columns of answers fit a terminal of 80 characters.
    title = f"{num_images:,} images (95 % interval below)"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("", overflow="fold")
    rows = [MetricRow(name, values) for name, values in answers.items()]
    for row in rows:
        table.add_column(f"floor:\n{row.name}" if row.name in FLOORS else row.name, justify="right", overflow="fold")
    for key, column in shown_columns(rows, main_columns(comparator) | REGION_COLUMNS).items():
        table.add_row(column.title, *[_above_interval(row.estimate(key), column) for row in rows])
    return table


def _above_interval(estimate: Estimate | None, column: TableColumn) -> str:
    if estimate is None:
        return MISSING
    value, *ends = formatted(estimate, column.form)
    return f"{value}\n{compact_interval(ends)}" if ends else value


def console_table(table: TextTable) -> Table:
    """For the console."""
    shown = Table(title=Text(table.title), caption=Text(table.note), caption_justify="left")
    for i, title in enumerate(table.header):
        shown.add_column(Text(title), justify="right" if i else "left")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


__all__ = [
    "answers_table",
    "comparison_tables",
    "console_table",
    "floor_note",
    "floor_rows",
    "region_table",
    "uncertainty_tables",
]
