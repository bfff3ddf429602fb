"""The reward lab: what a preset pays for, before you train on it.

python -m geogrpo.rewards plot multiscale geor_paper        reward against distance, and the best constant guess
python -m geogrpo.rewards probe globe_two_rewards           honest answers, attacks, and what varies within groups
python -m geogrpo.rewards list                              presets, probes and rewards

Truths are GeoNames places, each as likely as it is populous, or the rows of --points. Answers are written by rule and
scored as in training. Rewards that need a judge are left out, and named.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from geogrpo.regions.names import names_version
from geogrpo.rewards import JUDGED_REWARDS, PRESETS, REWARDS
from geogrpo.rewards.lab import (
    ConstantGuess,
    Lab,
    best_constant,
    draw_truths,
    open_lab,
    reward_by_distance,
    spread_in_groups,
)
from geogrpo.rewards.lab_figures import plot_probes, plot_rewards
from geogrpo.rewards.probes import PROBES, run_probes, winning_attacks
from geogrpo.types import Example

TABLE_KM = (1, 25, 100, 200, 750, 2500, 5000)
CURVE_KM = np.geomspace(0.5, 20_000, 48)
PRESETS_PER_TABLE = 4
"""As many as 80 columns hold."""
SUFFIXES = (".png", ".svg", ".pdf")
CURVE_TRUTHS = 200
"""Truths behind each point of a curve."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the options or the data ends with one line and exit code 2."""
    options = _parser().parse_args(arguments)
    console = Console()
    if options.run is _list:
        _list(console)
        return
    # Only here is a ValueError the user's: one raised while scoring is a bug, and keeps its traceback.
    try:
        labs, truths = _open(options, console)
    except ValueError as error:
        print(f"geogrpo.rewards: error: {error}", file=sys.stderr)
        sys.exit(2)
    options.run(options, console, labs, truths)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.rewards",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="plot|probe|list")
    for name, run, about in (
        ("plot", _plot, "reward against distance, and the best constant guess"),
        ("probe", _probe, "what honest answers and attacks earn"),
    ):
        command = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.add_argument("presets", nargs="+", metavar="PRESET", help=f"one or more of {', '.join(PRESETS)}")
        command.add_argument(
            "-o", "--output", type=Path, default=Path(f"rewards_{name}.png"), help="the picture (default: %(default)s)"
        )
        command.add_argument(
            "--points", type=Path, help="truths: a CSV, JSONL or Parquet file with lat and lon columns"
        )
        command.add_argument("--num-truths", type=int, default=1000, help="truths drawn (default: 1000)")
        command.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
        command.set_defaults(run=run)
    listing = commands.add_parser("list", help="presets, probes and rewards", allow_abbrev=False)
    listing.set_defaults(run=_list)
    return parser


def _open(options: argparse.Namespace, console: Console) -> tuple[list[Lab], list[Example]]:
    if options.num_truths < 1:
        raise ValueError(f"--num-truths must be at least 1, got {options.num_truths}.")
    if options.output.suffix not in SUFFIXES or not options.output.parent.is_dir():
        raise ValueError(
            f"--output must be a {', '.join(SUFFIXES)} file in a folder that exists, got {options.output}."
        )
    # Says now which library is missing, if one is
    names_version()
    labs = [open_lab(preset) for preset in dict.fromkeys(options.presets)]
    for lab in labs:
        if lab.left_out:
            console.print(f"{lab.name}: without {', '.join(lab.left_out)}, which needs a judge", style="yellow")
    return labs, draw_truths(options.num_truths, points=options.points, seed=options.seed)


def _plot(options: argparse.Namespace, console: Console, labs: list[Lab], truths: list[Example]) -> None:
    some = truths[:CURVE_TRUTHS]
    with console.status("Scoring answers at every distance"):
        rows = {lab.name: reward_by_distance(lab, some, TABLE_KM) for lab in labs}
        curves = {lab.name: reward_by_distance(lab, some, CURVE_KM.tolist()) for lab in labs}
    with console.status("Looking for the best constant guess"):
        floors = {lab.name: best_constant(lab, truths) for lab in labs}
    exact = {lab.name: lab.mean_reward(PROBES["exact"].answer(truths), truths) for lab in labs}
    for start in range(0, len(labs), PRESETS_PER_TABLE):
        names = [lab.name for lab in labs[start : start + PRESETS_PER_TABLE]]
        console.print(_plot_table({name: rows[name] for name in names}, floors, exact))
    plot_rewards(CURVE_KM.tolist(), curves, floors, options.output)
    console.print(f"{len(truths):,} truths; picture: {options.output}", highlight=False)


def _plot_table(rows: dict[str, list], floors: dict[str, ConstantGuess], exact: dict[str, float]) -> Table:
    table = Table(title="Mean reward of an honest answer by its distance, and of the best constant guess")
    table.add_column("")
    for name in rows:
        table.add_column(name, justify="right", overflow="fold")
    for i, km in enumerate(TABLE_KM):
        table.add_row(f"{km:,} km", *(f"{values[i]:.3f}" for values in rows.values()))
    table.add_section()
    table.add_row("best constant", *(f"{floors[name].reward:.3f}" for name in rows))
    table.add_row("given as", *(floors[name].place for name in rows))
    table.add_row("of an exact answer", *(f"{floors[name].reward / exact[name]:.1%}" for name in rows))
    return table


def _probe(options: argparse.Namespace, console: Console, labs: list[Lab], truths: list[Example]) -> None:
    results = {}
    for lab in labs:
        with console.status(f"Probing {lab.name}"):
            results[lab.name] = run_probes(lab, truths)
            spread = spread_in_groups(lab, truths[:CURVE_TRUTHS])
        console.print(_probe_table(lab, results[lab.name]))
        console.print(_spread_table(lab, spread))
        winners = winning_attacks(results[lab.name])
        verdict = f"earn more than an honest answer: {', '.join(winners)}" if winners else "no attack pays"
        console.print(f"{lab.name}: {verdict}\n", style="red" if winners else "green", highlight=False)
    plot_probes(results, options.output)
    console.print(f"{len(truths):,} truths; picture: {options.output}", highlight=False)


def _probe_table(lab: Lab, results: dict) -> Table:
    table = Table(title=f"{lab.name}: what answers earn on average")
    components = list(results["empty"].components)
    for column in ("probe", ""):
        table.add_column(column, no_wrap=True)
    table.add_column("reward", justify="right")
    for name in components:
        table.add_column(name, justify="right", style="dim", overflow="fold")
    for name, probe in PROBES.items():
        result = results[name]
        values = [f"{value:.3f}" for value in (result.reward, *result.components.values())]
        kind = "honest" if probe.is_honest else "attack"
        table.add_row(name, kind, *values, end_section=name == "right country")
    return table


def _spread_table(lab: Lab, spread: dict[str, dict[str, float]]) -> Table:
    table = Table(title=f"{lab.name}: mean standard deviation within a group of honest answers")
    table.add_column("group")
    for name in next(iter(spread.values())):
        table.add_column(name, justify="right")
    for kind, values in spread.items():
        table.add_row(kind, *(f"{value:.3f}" for value in values.values()))
    return table


def _list(console: Console) -> None:
    table = Table(title="Presets (grpo.rewards.preset)", show_lines=True)
    for column in ("preset", "weights", "gates", "about"):
        table.add_column(column)
    for name, preset in PRESETS.items():
        weights = "\n".join(f"{weight:g} {reward}" for reward, weight in preset.weights.items())
        table.add_row(name, weights, "\n".join(preset.gates), preset.about)
    console.print(table)
    table = Table(title="Probes")
    for column in ("probe", "", "answer"):
        table.add_column(column)
    for name, probe in PROBES.items():
        table.add_row(name, "honest" if probe.is_honest else "attack", probe.about)
    console.print(table)
    table = Table(title="Rewards (keys of grpo.rewards.weights)")
    for column in ("reward", "about"):
        table.add_column(column)
    for name, reward in {**REWARDS, **JUDGED_REWARDS}.items():
        about = " ".join((reward.__doc__ or "").split("\n\n")[0].split())
        table.add_row(name, about)
    console.print(table)


if __name__ == "__main__":
    main()
