"""Prints what bench_logprobs.py and bench_policy_loss.py measured as Markdown tables.

python benchmarks/head_results.py benchmarks/results/head_cpu.json [--all]

One table per operation and problem, fastest first; without --all only the first problem.
"""

import json
import sys
from pathlib import Path

TITLES = {
    ("logprobs", "forward"): "Log-probs, forward",
    ("logprobs", "forward+backward"): "Log-probs, forward and backward (any upstream gradient)",
    ("policy_loss", "forward+backward"): "GRPO loss and its gradients",
}
HEADER = ("", "ms", "TFLOP/s", "of peak", "memory", "error, nats", "error of gradients", "")
LEGEND = (
    "TFLOP/s count 2 THV forward and 6 THV with gradients for everybody; peak is PyTorch's matrix product of that "
    "shape and type, measured in the same run (on a CPU geogrpo's float32 products go to oneDNN, which can pass it); "
    "memory is beyond the inputs, returned gradients included. Errors are against float64: the largest of log-probs, "
    "in nats, and the norm of the gradients' error. **Rounded**: the logits were."
)


def table(section: str, mode: str, rows: list[dict]) -> str:
    """Rows of one problem, fastest first."""
    num_tokens, hidden_size, vocab_size = rows[0]["shape"]
    problem = f"T = {num_tokens:,}, H = {hidden_size:,}, V = {vocab_size:,}, {rows[0]['dtype']}"
    title = (
        f"{TITLES[section, mode]}: {problem}; peak {rows[0]['peak_tflops']:.3g} TFLOP/s, "
        f"full float32 logits {memory(rows[0]['full_float32_logits_mb'])}"
    )
    columns = list(zip(HEADER, *(cells(row) for row in sorted(rows, key=lambda row: row["ms"])), strict=True))
    # What no row has is no column.
    columns = [column for column in columns if any(column[1:])]
    header, *lines = zip(*columns, strict=True)
    return "\n".join([title, "", *(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *lines))])


def cells(row: dict) -> tuple[str, ...]:
    """One row under HEADER, ours in bold."""
    name = row["implementation"]
    if row["matmul_precision"] != "highest":
        name += f', matmul precision "{row["matmul_precision"]}"'
    if name.startswith("geogrpo"):
        name = f"**{name}**"
    if row["note"]:
        name += f" ({row['note']})"
    gradients = [value for key, value in row["error"].items() if key.startswith("grad")]
    return (
        name,
        f"{row['ms']:.3g}" if row["ms"] < 1000 else f"{row['ms']:,.0f}",
        f"{row['tflops']:.3g}",
        f"{row['share_of_peak']:.0%}",
        memory(row["extra_mb"]),
        number(row["error"].get("logprobs_nats")),
        number(max(gradients, default=None)),
        "" if row["accuracy"] == "float32" else f"**{row['accuracy']}**",
    )


def memory(megabytes: float) -> str:
    """MB below a gigabyte, GB from there."""
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.2f} GB"


def number(value: float | None) -> str:
    """Two digits."""
    return "" if value is None else f"{value:.1e}".replace("e-0", "e-")


def chunk_table(rows: list[dict]) -> str:
    """Time over the rows of a chunk."""
    lines = ["GRPO loss by rows of a chunk", "", "| | T x H x V | ms | memory |", "|---|---|---|---|"]
    for row in rows:
        shape = " x ".join(f"{size:,}" for size in row["shape"])
        lines.append(f"| {row['implementation']} | {shape} | {row['ms']:.3g} | {memory(row['extra_mb'])} |")
    return "\n".join(lines)


def markdown(results: dict, is_everything: bool) -> str:
    """All tables of a file, where they were measured, and what was left out."""
    parts = []
    for (section, mode), _ in TITLES.items():
        problems: dict[tuple, list[dict]] = {}
        for row in results.get(section, {}).get("rows", []):
            if row["mode"] == mode:
                problems.setdefault((*row["shape"], row["dtype"]), []).append(row)
        chosen = list(problems.values())[: None if is_everything else 1]
        parts += [table(section, mode, rows) for rows in chosen]
    if is_everything and "chunk_rows" in results:
        parts.append(chunk_table(results["chunk_rows"]["rows"]))
    measured = next(section for section in results.values() if "machine" in section)
    versions = ", ".join(f"{name} {version}" for name, version in measured["machine"]["versions"].items())
    threads = measured["machine"].get("threads")
    device = measured["machine"]["device"] + (f", {threads} threads" if threads else "")
    parts.append(f"Measured on {device}; {versions}. {LEGEND}")
    skipped = {name: why for section in results.values() for name, why in section.get("skipped", {}).items()}
    if skipped:
        parts.append("Not measured: " + "; ".join(f"{name} ({why})" for name, why in sorted(skipped.items())) + ".")
    return "\n\n".join(parts)


def main(arguments: list[str]) -> int:
    """Print the tables of a file."""
    files = [argument for argument in arguments if argument != "--all"]
    if len(files) != 1:
        print(__doc__)
        return 2
    print(markdown(json.loads(Path(files[0]).read_text(encoding="utf-8")), "--all" in arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
