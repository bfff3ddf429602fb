"""Prints what bench_train_step.py measured as Markdown tables.

python benchmarks/train_step_results.py benchmarks/results/train_step_cpu.json
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

STEP_HEADER = ("", "step", "sampling", "update", "completions/s", "process", "of it before", "GPU")
UPDATE_HEADER = ("", "update", "per completion", "memory", "per completion", "unique tokens")


def table(title: str, header: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    """Markdown, without columns that are empty."""
    columns = [column for column in zip(header, *lines, strict=True) if any(column[1:])]
    head, *rows = zip(*columns, strict=True)
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))])


def step_table(rows: list[dict]) -> str:
    """Whole steps on one problem, fastest first."""
    first = rows[0]
    width, height = first["image_size"]
    title = (
        f"{first['problem']}: {first['num_prompts']} prompts of {first['num_prompt_tokens']:,} tokens"
        f" ({width} x {height} pixels), G = {first['group_size']}, {first['new_tokens']} new tokens"
    )
    return table(title, STEP_HEADER, map(step_cells, sorted(rows, key=lambda row: row["step_s"])))


def step_cells(row: dict) -> tuple[str, ...]:
    """One row under STEP_HEADER, ours in bold."""
    name = f"**{row['contender']}**" if row["contender"] == "geogrpo" else row["contender"]
    return (
        ", ".join(part for part in (name, row["dtype"], row["note"]) if part),
        *(seconds(row, f"{phase}_s") for phase in ("step", "sampling", "update")),
        f"{row['completions_per_s']:.3g}",
        memory(row["process_mb"]),
        memory(row["process_before_mb"]),
        memory(row["device_mb"]) if row["device_mb"] else "",
    )


def seconds(row: dict, name: str) -> str:
    """Median, and least to most."""
    return f"{row[name]:.3g} s ({row[name + '_min']:.3g} to {row[name + '_max']:.3g})"


def update_cells(name: str, row: dict) -> tuple[str, ...]:
    """One row under UPDATE_HEADER."""
    return (
        name,
        seconds(row, "update_s"),
        f"{row['ms_per_completion']:.3g} ms",
        memory(row["extra_mb"]),
        f"{row['mb_per_completion']:.3g} MB",
        f"{row['unique_tokens']:,}",
    )


def update_name(row: dict) -> str:
    """Path, dtype and rows."""
    return f"{row['path']}, {row['dtype']}" + (", a row per group" if row["is_row_per_group"] else ", one row")


def curve_name(row: dict) -> str:
    """What a point of a curve differs in."""
    width, height = row["image_size"]
    point = {
        "group size": f"G = {row['group_size']}",
        "prompt": f"{width} x {height} pixels",
        "completion": f"{row['new_tokens']} new tokens",
        "ranks": f"{row['num_ranks']} ranks of {row['threads']} threads",
    }
    return f"{point[row['curve']]}, {row['path']}"


def memory(megabytes: float) -> str:
    """MB below a gigabyte, GB from there."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2f} GB"


def by(key: str, rows: list[dict]) -> dict[str, list[dict]]:
    """Rows that share a value, in the order of its first."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def markdown(results: dict) -> str:
    """All tables of a file, where they were measured, and what was left out."""
    rows = {section: results.get(section, {}).get("rows", []) for section in ("steps", "updates", "curves")}
    parts = [step_table(found) for found in by("problem", rows["steps"]).values()]
    if rows["updates"]:
        lines = [update_cells(update_name(row), row) for row in rows["updates"]]
        parts.append(table(f"Update alone, {rows['updates'][0]['problem']}", UPDATE_HEADER, lines))
    for curve, found in by("curve", rows["curves"]).items():
        lines = [update_cells(curve_name(row), row) for row in found]
        parts.append(table(f"Update alone by {curve}", UPDATE_HEADER, lines))
    parts.append(measured_on(results))
    skipped = {name: why for section in results.values() for name, why in section["skipped"].items()}
    if skipped:
        parts.append("Not measured: " + "; ".join(f"{name} ({why})" for name, why in sorted(skipped.items())) + ".")
    return "\n\n".join(parts)


def measured_on(results: dict) -> str:
    """Machine and versions, TRL's from its own environment."""
    machine = next(iter(results.values()))["machine"]
    threads = f", {machine['threads']} threads" if "threads" in machine else ""
    ours = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peers = [row["versions"] for row in results.get("steps", {}).get("rows", []) if "trl" in row["versions"]]
    theirs = ", ".join(f"{name} {version}" for name, version in peers[0].items()) if peers else "none"
    return f"Measured on {machine['device']}{threads}; ours: {ours}; TRL's: {theirs}."


def main(arguments: list[str]) -> int:
    """Print the tables of a file."""
    if len(arguments) != 1:
        print(__doc__)
        return 2
    print(markdown(json.loads(Path(arguments[0]).read_text(encoding="utf-8"))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
