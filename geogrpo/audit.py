"""Does a test set leak into a training set? Same photographs, same authors, copies, and places next to each other.

python -m geogrpo.audit mp16.csv im2gps3k.csv -o audit/                           ids, authors and coordinates
python -m geogrpo.audit mp16.csv im2gps3k.csv --train-images mp16/ --test-images im2gps3k/ -o audit/    pictures too
python -m geogrpo.audit train/ test/ -o audit/ --predictions predictions_grpo.jsonl   scores with and without leaks

TRAIN and TEST are folders of photographs, or tables: .csv, .tsv, .jsonl (also .gz), .parquet. Flickr photo ids and
authors are read from ids, image paths and addresses too. -o FOLDER takes leaks.csv (one line for each test row and
kind: the train row that gives most away), clean_ids.txt (test ids with no leak found), audit.json, proximity.png and
hashes.sqlite, which makes the next audit of the same pictures fast.

A place near a train row's is no leak unless --near-km says so: two people photograph the same square.
"""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from geogrpo.auditing.leaks import AuditJob
from geogrpo.auditing.output import notes, tables, write_files
from geogrpo.auditing.rows import NAMES, Columns
from geogrpo.auditing.scores import score
from geogrpo.auditing.search import find_leaks

MAX_DEFAULT_WORKERS = 16
PLAIN_WIDTH = 160
"""Columns of text where there is no terminal, whose 80 would cut the tables."""
CACHE_NAME = "hashes.sqlite"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the options or the data ends with one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # Ids and names of files are in every alphabet, the terminal's encoding may be ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        _audit(options)
    except (ValueError, OSError) as error:
        print(f"geogrpo.audit: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("geogrpo.audit: stopped; hashes of pictures are kept where there is -o", file=sys.stderr)
        # What a shell reports for a program that Ctrl-C ended
        sys.exit(130)


def _audit(options: argparse.Namespace) -> None:
    job = _job(options)
    for path in (options.predictions, options.test, options.train):
        # Before hours of hashing
        if path is not None and not path.exists():
            raise ValueError(f"{path}: no such file or folder.")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
    with _progress() as on_progress:
        leaks = find_leaks(job, on_progress)
    scores = score(leaks, options.predictions, seed=options.seed) if options.predictions is not None else None
    console = Console()
    if not console.is_terminal:
        console = Console(width=PLAIN_WIDTH)
    for table in tables(leaks, scores):
        console.print(table)
    for line in notes(leaks, scores):
        print(line)
    if options.output is not None:
        given = {name: str(value) for name, value in vars(options).items() if value is not None}
        written = write_files(options.output, leaks, scores, given)
        print("Wrote", ", ".join(str(path) for path in written))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("train", metavar="TRAIN", type=Path, help="folder or table")
    parser.add_argument("test", metavar="TEST", type=Path, help="folder or table; its ids must differ")
    parser.add_argument("-o", "--output", metavar="FOLDER", type=Path, help="files of an earlier audit are replaced")
    parser.add_argument(
        "--predictions",
        metavar="FILE",
        type=Path,
        help="score these with and without leaked rows: a run's predictions_<stage>.jsonl (id, true_latlon_deg,"
        " predicted_latlon_deg), or a table with id and the predicted lat and lon",
    )
    parser.add_argument(
        "--near-km", metavar="KM", type=float, help="a train row this near is a leak (default: none is)"
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the bootstrap (default: 0)")
    pictures = parser.add_argument_group("pictures (pip install 'geogrpo[audit]')")
    for side in ("train", "test"):
        pictures.add_argument(
            f"--{side}-images",
            metavar="FOLDER",
            type=Path,
            help=f"what image paths of the table {side.upper()} are below",
        )
    pictures.add_argument(
        "--max-hamming",
        metavar="N",
        type=int,
        default=4,
        help="bits of 64 in which perceptual hashes of near duplicates differ at most (default: 4)",
    )
    pictures.add_argument(
        "--workers", metavar="N", type=int, help="processes that hash (default: one a core, at most 16)"
    )
    pictures.add_argument(
        "--cache", metavar="FILE", type=Path, help=f"where hashes are kept (default: {CACHE_NAME} in FOLDER)"
    )
    for side in ("train", "test"):
        group = parser.add_argument_group(f"columns of {side.upper()}")
        for name, known in NAMES.items():
            group.add_argument(f"--{side}-{name}", metavar="COLUMN", help=f"default: {', '.join(known)}, in any case")
    return parser


def _job(options: argparse.Namespace) -> AuditJob:
    columns: dict[str, Any] = {}
    for side in ("train", "test"):
        names = [field.name for field in fields(Columns)]
        columns[f"{side}_columns"] = Columns(**{name: getattr(options, f"{side}_{name}") for name in names})
    default_cache = options.output / CACHE_NAME if options.output is not None else None
    cores = len(os.sched_getaffinity(0))
    same = ("train", "test", "train_images", "test_images", "max_hamming", "near_km")
    return AuditJob(
        cache=options.cache or default_cache,
        num_workers=min(cores, MAX_DEFAULT_WORKERS) if options.workers is None else options.workers,
        **{name: getattr(options, name) for name in same},
        **columns,
    )


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int, int], None]]:
    """A bar for each of the two sets on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda name, num_rows, done, size: None
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), TaskProgressColumn())
    with Progress(
        *columns, TextColumn("{task.fields[rows]}"), TimeRemainingColumn(compact=True), console=console
    ) as bar:
        tasks: dict[str, Any] = {}

        def show(name: str, num_rows: int, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=size, rows="")
            bar.update(tasks[name], total=size, completed=done, rows=f"{num_rows:,} rows")

        yield show


if __name__ == "__main__":
    main()
