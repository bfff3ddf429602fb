"""Chain of Region labels from GPS: what to teach a model before it is rewarded, with no model-written labels.

python -m geogrpo.label photographs/ -o chains.jsonl                              GPS from the photographs' EXIF data
python -m geogrpo.label mp16.csv --images mp16/ -o chains.jsonl --template mixed  GPS from columns, wordings mixed
python -m geogrpo.label mp16.csv -o hard.jsonl --solved predictions_grpo.jsonl   without what a model already solves

The output is a data set: --data.name jsonl --data.path chains.jsonl. Of each example it holds image, id, lat, lon,
country, state and city (English, from the region index), and the chain with its template and language.

A run that was stopped, however it was, goes on when the same command is given again, and ends with the same bytes as
one that was not. <output>.progress.json beside the output holds the options and how far it is.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from geogrpo.labelling.job import LabelJob, LabelReport, write_labels
from geogrpo.labelling.labeller import MIXED, ChainStyle
from geogrpo.labelling.solved import DROP_WITHIN_KM, SOLVED_WITHIN_KM
from geogrpo.labelling.tables import IMAGE_COLUMNS
from geogrpo.regions.chain import CHAIN_TEMPLATES

MAX_DEFAULT_WORKERS = 8
"""More wait for a disk rather than for a processor."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the options or the data ends with one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # Names of places and files are in every alphabet, the terminal's encoding may be ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        job, start = _job(options), time.monotonic()
        with _progress(job.input) as on_progress:
            report = write_labels(job, on_progress)
        _show_report(job, report, time.monotonic() - start)
        if not report.record.num_written:
            raise ValueError(f"{job.input}: none of {report.record.num_rows:,} rows became an example; see above why.")
    except (ValueError, OSError) as error:
        print(f"geogrpo.label: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("geogrpo.label: stopped; the same command goes on", file=sys.stderr)
        # What a shell reports for a program that Ctrl-C ended
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "input", metavar="INPUT", type=Path, help="a folder of photographs, or .csv, .tsv, .jsonl (also .gz), .parquet"
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, required=True, help="the labels, .jsonl")
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    parser.add_argument("--skipped", metavar="FILE", type=Path, help="rows that became no example, and why, .jsonl")
    parser.add_argument(
        "--workers", metavar="N", type=int, help="processes that read image files (default: one a core, at most 8)"
    )
    _add_text(parser)
    _add_table(parser)
    _add_hard_samples(parser)
    return parser


def _add_text(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument_group("text")
    text.add_argument(
        "--template",
        metavar="NAME",
        default="lines",
        help=f"{', '.join(CHAIN_TEMPLATES)}, or {MIXED}: one for each example by a hash of its id (default: lines)",
    )
    text.add_argument(
        "--language",
        metavar="CODE[,CODE]",
        default="en",
        help="of country and state names: CLDR codes such as en,de,ja,zh_Hant; of several, one for each example by a"
        " hash of its id. Countries are CLDR's, states ISO 3166-2's where a translation is sure, else English; cities"
        " stay as GeoNames writes them, and so do labels and sentences, in English (default: en)",
    )
    text.add_argument("--decimals", metavar="N", type=int, default=4, help="of the degrees (default: 4, which is 11 m)")
    text.add_argument(
        "--index", metavar="FILE", type=Path, help="from geogrpo.regions build (default: GeoNames' nearest places)"
    )


def _add_table(parser: argparse.ArgumentParser) -> None:
    table = parser.add_argument_group("images and tables")
    table.add_argument("--lat", metavar="COLUMN", help="degrees north (default: lat or latitude, in any case)")
    table.add_argument("--lon", metavar="COLUMN", help="degrees east (default: lon, lng, long or longitude)")
    table.add_argument("--image", metavar="COLUMN", help=f"image paths (default: {', '.join(IMAGE_COLUMNS)})")
    table.add_argument(
        "--images", metavar="FOLDER", type=Path, help="what image paths are relative to (default: the table's folder)"
    )
    table.add_argument(
        "--check-images",
        action="store_true",
        help="read every image to its end and skip those missing or broken, which training's reader would refuse;"
        " some 10 ms each",
    )


def _add_hard_samples(parser: argparse.ArgumentParser) -> None:
    hard = parser.add_argument_group("hard samples, as in Geo-R (arXiv 2601.00388)")
    hard.add_argument(
        "--solved",
        metavar="FILE",
        type=Path,
        help="leave out what is near a place that a model solves: a run's predictions_<stage>.jsonl, or a table with"
        " coordinates whose rows are all solved",
    )
    hard.add_argument(
        "--solved-within-km",
        metavar="KM",
        type=float,
        help=f"how far from the truth a prediction is right (default: {SOLVED_WITHIN_KM:g})",
    )
    hard.add_argument("--drop-within-km", metavar="KM", type=float, help=f"near (default: {DROP_WITHIN_KM:g})")


def _job(options: argparse.Namespace) -> LabelJob:
    distances = {name: getattr(options, name) for name in ("solved_within_km", "drop_within_km")}
    given = {name: value for name, value in distances.items() if value is not None}
    if given and options.solved is None:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} is of solved places: add --solved FILE.")
    same = ("input", "output", "index", "lat", "lon", "image", "images", "check_images", "solved", "skipped")
    cores = len(os.sched_getaffinity(0))
    return LabelJob(
        style=ChainStyle(
            options.template, tuple(code.strip() for code in options.language.split(",")), options.decimals
        ),
        num_workers=min(cores, MAX_DEFAULT_WORKERS) if options.workers is None else options.workers,
        overwrite=options.overwrite,
        **{name: getattr(options, name) for name in same},
        **given,
    )


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int, int, int], None]]:
    """A bar over the input's bytes or files on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda num_rows, done, size: None
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), TaskProgressColumn())
    with Progress(
        *columns, TextColumn("{task.fields[rows]}"), TimeRemainingColumn(compact=True), console=console
    ) as bar:
        task = bar.add_task(path.name, total=None, rows="reading")
        yield lambda num_rows, done, size: bar.update(task, total=size, completed=done, rows=f"{num_rows:,} rows")


def _show_report(job: LabelJob, report: LabelReport, seconds: float) -> None:
    record = report.record
    num_new = record.num_rows - report.num_rows_before
    if report.num_rows_before:
        print(f"An earlier run had done {report.num_rows_before:,} rows; {num_new:,} were left.")
    rate = f", {num_new / max(seconds, 1e-9):,.0f} rows/s" if num_new else ""
    print(f"Wrote {job.output}: {record.num_written:,} examples of {record.num_rows:,} rows in {seconds:.1f} s{rate}.")
    if report.num_solved_places is not None:
        print(f"Solved places: {report.num_solved_places:,}")
    print(f"Skipped: {record.num_skipped:,}")
    for reason, count in sorted(record.skipped.items(), key=lambda item: -item[1]):
        print(f"  {reason:<40} {count:>12,}  {count / record.num_rows:7.2%}")
        for example in record.examples[reason]:
            print(f"    {example}")
    if record.num_skipped and job.skipped is None:
        print("  --skipped FILE, with --overwrite, writes every one.")
    print("Show with results:", *(report.attributions or ["none"]), sep="\n  ")


if __name__ == "__main__":
    main()
