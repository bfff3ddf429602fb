"""Where photographs were taken: chain, coordinates, radius and alternatives.

python -m geogrpo.predict beach.jpg --model runs/demo/model
python -m geogrpo.predict *.heic --server http://localhost:8000/v1 --format geojson -o places.geojson
python -m geogrpo.predict beach.jpg --model runs/demo/model --granularity country

The answer is the model's greedy one: its names, its coordinates (where it gives none, the place that its names mean)
and its reasoning. --samples K further answers say how sure it is: the radii are those around the greedy answer's point
that hold 50 % and 90 % of them, and the alternatives are where they lie together, named by the region index.

The model is shown the pixels and nothing else. The GPS position in a photograph's own metadata is compared with the
answer afterwards. Images are told by their content: JPEG, PNG, WebP, TIFF, and HEIC with geogrpo[heic].

Exit code 0; 1 when an image could not be answered, which standard error names while the others are; 2 for a mistake in
the options, or a model or server that does not work.
"""

import argparse
import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from geogrpo.chat_server import ServerError
from geogrpo.distributed import leave_together
from geogrpo.prediction import Predictor, read_photograph
from geogrpo.prediction.geojson import feature_collection
from geogrpo.prediction.options import add_options, predictor_of
from geogrpo.prediction.record import place_record
from geogrpo.prediction.text import record_text

FORMATS = ("text", "json", "geojson")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; the module's text says what the exit codes mean."""
    for stream in (sys.stdout, sys.stderr):
        # Names of places and files are in every alphabet, the terminal's encoding may be ASCII.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        _check_output(options.output, options.images)
        predictor = predictor_of(options)
        with _opened(options.output) as output:
            num_failed = predict(
                predictor, options.images, output, format=options.format, granularity=options.granularity
            )
    except (ValueError, OSError) as error:
        print(f"geogrpo.predict: error: {error}", file=sys.stderr)
        sys.exit(2)
    finally:
        leave_together()
    if num_failed:
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", metavar="IMAGE", type=Path, nargs="+", help="a photograph's file")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="text; json: JSON lines, one object for each image; geojson: one FeatureCollection (default: text)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="written instead of the standard output")
    add_options(parser)
    return parser


def _check_output(output: Path | None, images: Sequence[Path]) -> None:
    """Before a model is loaded for it."""
    if output is None:
        return
    if not output.parent.is_dir():
        raise ValueError(f"-o {output}: there is no folder {output.parent}.")
    if any(output.resolve() == image.resolve() for image in images):
        raise ValueError(f"-o {output}: that is one of the images.")


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
    else:
        with path.open("w", encoding="utf-8") as file:
            yield file


def predict(
    predictor: Predictor, images: Sequence[Path], output: TextIO, *, format: str, granularity: str | None = None
) -> int:
    """Write the answer to each image, text and JSON lines as they come and GeoJSON at the end.

    Args:
        format: one of FORMATS.
        granularity: one of record.GRANULARITIES; None reveals everything.
    Returns:
        How many images could not be answered; standard error names them.
    Raises:
        ServerError: when the server gives no answer: it would give none to the next image either.
    """
    records = []
    for path in images:
        try:
            record = _record(predictor, path, granularity)
        except ServerError:
            if granularity is None:
                raise
            # The server's words may be the model's.
            raise ServerError("the server gave no usable answer; --granularity hides what it said") from None
        except ValueError as error:
            print(f"geogrpo.predict: {error}", file=sys.stderr)
            continue
        records.append(record)
        if format != "geojson":
            separator = "\n" if format == "text" and len(records) > 1 else ""
            line = record_text(record) if format == "text" else _json(record)
            print(separator + line, end="", file=output, flush=True)
    if format == "geojson":
        print(_json(feature_collection(records)), end="", file=output, flush=True)
    return len(images) - len(records)


def _record(predictor: Predictor, path: Path, granularity: str | None) -> dict[str, Any]:
    photograph = read_photograph(path)
    try:
        estimate = predictor.predict(photograph.picture)
    except ServerError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return place_record(
        str(path),
        estimate,
        predictor.index,
        own_latlon_deg=photograph.own_latlon_deg,
        gps_problem=photograph.gps_problem,
        granularity=granularity,
    )


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    main()
