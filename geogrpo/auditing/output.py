"""What an audit writes: tables for the terminal, leaks.csv, clean_ids.txt, audit.json and a picture of the curve.

Shapes: T test rows.
"""

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from geogrpo.auditing.leaks import Kind, Leaks, Side
from geogrpo.auditing.proximity import RADII_KM, share_within
from geogrpo.auditing.scores import ALL, Scores, SubsetScore, radius_name

COLORS = {"test": "#d1495b", "baseline": "#3b6fb6"}
_PLOTTED_FROM_KM, _PLOTTED_TO_KM = 1e-3, 2.1e4


def tables(leaks: Leaks, scores: Scores | None) -> list[Table]:
    """What was compared, what leaked, how near TRAIN comes, and the scores where there are predictions."""
    shown = [_sides_table(leaks.train, leaks.test), _leaks_table(leaks), _proximity_table(leaks)]
    if scores is not None:
        shown.append(_score_table("Scores (95 % interval; difference to all)", scores.subsets))
        shown.append(_score_table("Scores by the nearest train row", scores.by_nearest_km, is_compared=False))
    return shown


def _sides_table(train: Side, test: Side) -> Table:
    table = _table("Compared", ("", "TRAIN", "TEST"))
    lines = {
        "rows": "num_rows",
        "with a photo id": "num_photo_ids",
        "with an author": "num_authors",
        "with coordinates": "num_places",
        "pictures compared": "num_pictures",
        "  of these flat: looks not compared": "num_flat",
        "pictures missing": "num_missing",
        "pictures unreadable": "num_unreadable",
    }
    for name, key in lines.items():
        table.add_row(name, *(f"{getattr(side, key):,}" for side in (train, test)))
    return table


def _leaks_table(leaks: Leaks) -> Table:
    table = _table("Leaks", ("kind", "test rows", "share", "train rows", "example: test", "train"))
    num_test = len(leaks.ids)
    for kind in Kind:
        hits = leaks.hits.get(kind)
        if hits is None:
            table.add_row(kind, "not compared")
            continue
        found = np.flatnonzero(hits.is_leaked)
        example = [leaks.ids[found[0]], leaks.train_ids[int(hits.row[found[0]])]] if len(found) else ["", ""]
        num_pairs = f"{hits.num_train.sum():,}"
        table.add_row(kind, f"{len(found):,}", f"{len(found) / num_test:.2%}", num_pairs, *map(_shown, example))
    num = int(leaks.is_leaked.sum())
    table.add_row("[bold]any", f"[bold]{num:,}", f"[bold]{num / num_test:.2%}")
    return table


def _proximity_table(leaks: Leaks) -> Table:
    table = _table("A train row within", ("", "of test rows", "of TRAIN's own rows (random split)"))
    for radius in RADII_KM:
        shares = [share_within(km, radius) for km in (leaks.nearest_km, leaks.baseline_km)]
        table.add_row(radius_name(radius), *("-" if math.isnan(share) else f"{share:.2%}" for share in shares))
    return table


def _score_table(title: str, subsets: dict[str, SubsetScore], *, is_compared: bool = True) -> Table:
    names = list(next(score.metrics for score in subsets.values() if score.metrics))
    table = _table(title, ("", "images", *(_metric(name) for name in names)))
    for subset, score in subsets.items():
        cells = []
        for name, estimate in score.metrics.items():
            cell = f"{_value(name, estimate.value)}\n{_value(name, estimate.low)}..{_value(name, estimate.high)}"
            if is_compared and name in score.minus_all:
                change = score.minus_all[name]
                cell += f"\n{_value(name, change.value, '+')} ({_value(name, change.low, '+')}"
                cell += f"..{_value(name, change.high, '+')})"
            cells.append(cell)
        table.add_row(f"[bold]{subset}" if subset == ALL else subset, f"{score.num_images:,}", *cells, end_section=True)
    return table


def _table(title: str, header: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 or "example" in name or name == "train" else "right")
    return table


def _shown(text: str) -> str:
    # Ids are data: [ would open a style
    return f"{text:.60}".replace("[", "\\[")


def _metric(name: str) -> str:
    return name.removeprefix("within_").replace("_", " ")


def _value(name: str, value: float, sign: str = "") -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:{sign}.1f}" if name.startswith("within") else f"{value:{sign},.0f}"


def notes(leaks: Leaks, scores: Scores | None) -> list[str]:
    """What a reader of the tables must know besides."""
    lines = []
    if Kind.FILE not in leaks.hits:
        lines.append("No pictures were compared: --train-images and --test-images name their folders.")
    for name, side in (("TRAIN", leaks.train), ("TEST", leaks.test)):
        num = side.num_missing + side.num_unreadable
        if num:
            lines.append(
                f"{name}: {num:,} pictures could not be compared, which clears nobody, such as "
                + "; ".join(side.examples)
            )
    if leaks.num_ids_far_apart:
        lines.append(
            f"Of {leaks.hits[Kind.PHOTO_ID].is_leaked.sum():,} test rows with a photo id of TRAIN,"
            f" {leaks.num_ids_far_apart:,} are over 1 km from it: are these numbers of rows rather than of photographs?"
        )
    if np.isnan(leaks.nearest_km).all():
        lines.append("No distances: coordinates are not known of both sets.")
    if leaks.num_hashes_cached:
        lines.append(f"Pictures: {leaks.num_hashes_cached:,} hashes kept by an earlier audit.")
    if scores is not None and scores.num_without_prediction + scores.num_not_in_test:
        lines.append(
            f"Predictions: {scores.num_predictions:,} scored; {scores.num_without_prediction:,} test rows have none,"
            f" {scores.num_not_in_test:,} are of other ids."
        )
    return lines


def write_files(folder: Path, leaks: Leaks, scores: Scores | None, options: dict[str, Any]) -> list[Path]:
    """leaks.csv, clean_ids.txt, audit.json and proximity.png, in place of those of an earlier audit."""
    paths = [folder / name for name in ("leaks.csv", "clean_ids.txt", "audit.json", "proximity.png")]
    _write_leaks(paths[0], leaks)
    clean = [name for name, is_leaked in zip(leaks.ids, leaks.is_leaked.tolist(), strict=True) if not is_leaked]
    text = "".join(f"{name}\n" for name in clean)
    paths[1].write_text(text, encoding="utf-8", errors="backslashreplace")
    summary = json.dumps(_finite(to_json(leaks, scores, options)), indent=1, ensure_ascii=False)
    paths[2].write_text(summary + "\n", encoding="utf-8", errors="backslashreplace")
    proximity_figure(leaks, scores, paths[3])
    return paths


def _write_leaks(path: Path, leaks: Leaks) -> None:
    """A line for each test row and kind, with the one train row that gives most away."""
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["test_id", "train_id", "kind", "distance_km", "hamming", "num_train_rows"])
        for kind, hits in leaks.hits.items():
            km = leaks.pair_km(kind)
            for row in np.flatnonzero(hits.is_leaked).tolist():
                distance = "" if np.isnan(km[row]) else f"{km[row]:.4f}"
                hamming = int(hits.measure[row]) if kind is Kind.LOOKS else ""
                train_id = leaks.train_ids[int(hits.row[row])]
                writer.writerow([leaks.ids[row], train_id, str(kind), distance, hamming, int(hits.num_train[row])])


def to_json(leaks: Leaks, scores: Scores | None, options: dict[str, Any]) -> dict[str, Any]:
    """All numbers of the audit."""
    num_test = len(leaks.ids)
    found = {str(kind): int(hits.is_leaked.sum()) for kind, hits in leaks.hits.items()}
    curves = {"test": leaks.nearest_km, "random split of train": leaks.baseline_km}
    return {
        "geogrpo": metadata.version("geogrpo"),
        "options": options,
        "train": asdict(leaks.train),
        "test": asdict(leaks.test),
        "leaked_test_rows": {**found, "any": int(leaks.is_leaked.sum())},
        "leaked_share": {name: num / num_test for name, num in found.items()} | {"any": float(leaks.is_leaked.mean())},
        "not_compared": [str(kind) for kind in Kind if kind not in leaks.hits],
        "photo_ids_over_1_km_apart": leaks.num_ids_far_apart,
        "share_with_a_train_row_within": {
            name: {radius_name(radius): share_within(km, radius) for radius in RADII_KM} for name, km in curves.items()
        },
        "scores": asdict(scores) if scores is not None else None,
        "notes": notes(leaks, scores),
    }


def _finite(value: Any) -> Any:
    """The same with null for NaN, which is no JSON."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def proximity_figure(leaks: Leaks, scores: Scores | None, path: Path) -> None:
    """Share of test rows with a train row within x km, and beside it what answers are worth by that distance."""
    figure = Figure(figsize=(8 if scores is None else 14, 5), layout="constrained")
    axes = figure.subplots(1, 1 if scores is None else 2, squeeze=False)[0]
    _draw_curve(axes[0], leaks)
    if scores is not None:
        _draw_scores(axes[1], scores)
    figure.savefig(path, dpi=110)


def _draw_curve(axes: Axes, leaks: Leaks) -> None:
    curves = (
        ("test", "test rows", leaks.nearest_km, "-"),
        ("baseline", "TRAIN's own rows (a random split)", leaks.baseline_km, "--"),
    )
    for key, label, km, style in curves:
        known = np.sort(km[~np.isnan(km)])
        if len(known):
            # Both ends drawn, so that the steps of a small test set reach the borders of the picture.
            x = np.concatenate([[_PLOTTED_FROM_KM], np.clip(known, _PLOTTED_FROM_KM, None), [_PLOTTED_TO_KM]])
            y = np.concatenate([[0], np.arange(1, len(known) + 1), [len(known)]]) / len(known)
            axes.step(x, 100 * y, where="post", color=COLORS[key], linestyle=style, label=f"{label}: {len(known):,}")
    for radius in RADII_KM:
        axes.axvline(radius, color="black", linestyle=":", linewidth=0.8)
        place = axes.get_xaxis_transform()
        axes.text(radius, 1.01, radius_name(radius), transform=place, fontsize=8, rotation=40, rotation_mode="anchor")
    axes.set(xscale="log", xlim=(_PLOTTED_FROM_KM, _PLOTTED_TO_KM), ylim=(0, 101))
    axes.set(xlabel="distance to the nearest train row (km; 1 m also stands for less)", ylabel="share of rows (%)")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, loc="best")
    axes.grid(alpha=0.25)


def _draw_scores(axes: Axes, scores: Scores) -> None:
    names = list(scores.by_nearest_km)
    for metric, color, label in (
        ("within_1_km", COLORS["baseline"], "within 1 km"),
        ("within_25_km", COLORS["test"], "within 25 km"),
    ):
        found = [
            (x, scores.by_nearest_km[name].metrics[metric])
            for x, name in enumerate(names)
            if scores.by_nearest_km[name].num_images
        ]
        y = np.array([100 * estimate.value for _, estimate in found])
        low = np.array([100 * estimate.low for _, estimate in found])
        high = np.array([100 * estimate.high for _, estimate in found])
        # A subset whose interval is not known has no bar.
        bars = np.nan_to_num(np.clip([y - low, high - y], 0, None))
        axes.errorbar([x for x, _ in found], y, yerr=bars, marker="o", capsize=3, color=color, label=label)
    labels = [f"{name}\n{scores.by_nearest_km[name].num_images:,}" for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=7)
    axes.set(
        xlim=(-0.6, len(names) - 0.4),
        ylim=(0, 101),
        xlabel="nearest train row; images",
        ylabel="answers (%), 95 % interval",
    )
    axes.legend(frameon=False, loc="best")
    axes.grid(alpha=0.25)
