"""Predictions of other systems: a file with ids and coordinates, names or whole answers.

Columns are found by name, case aside: an id (id, img_id, image, file), coordinates (lat and lon, or latitude and
longitude, each also with pred_ or predicted_ before it), names (country, state, city, likewise), or an answer to be
parsed (text, completion, response, answer). JSON lines may hold predicted_latlon_deg, sampled_latlon_deg and
true_latlon_deg, as our own files do.
"""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from geogrpo.evaluation.answers import HeldOutPrediction
from geogrpo.parsing import parse_completion
from geogrpo.types import Prediction

_PREFIXES = ("predicted_", "prediction_", "pred_", "")
_COLUMNS = {
    "id": ("id", "img_id", "image_id", "image", "file", "filename"),
    "lat": tuple(prefix + name for prefix in _PREFIXES for name in ("lat", "latitude")),
    "lon": tuple(prefix + name for prefix in _PREFIXES for name in ("lon", "lng", "longitude")),
    "country": tuple(prefix + "country" for prefix in _PREFIXES),
    "state": tuple(prefix + name for prefix in _PREFIXES for name in ("state", "region", "province")),
    "city": tuple(prefix + "city" for prefix in _PREFIXES),
    "text": ("text", "completion", "response", "answer"),
}
SUFFIXES = (".csv", ".tsv", ".jsonl")
SAME_PLACE_DEG = 1e-6
"""Two files write a truth alike to so much: 0.1 m."""

Point = tuple[float, float]


@dataclass(frozen=True)
class ForeignAnswer:
    """One row of a file."""

    where: str
    """File and row in words."""
    said: Prediction
    sampled_latlon_deg: list[Point | None]
    """Empty where the file has no samples."""
    true_latlon_deg: Point | None
    """As the file has it; None where it does not."""


def read_foreign(path: Path, *, option: str = "--predictions") -> dict[str, ForeignAnswer]:
    """The predictions of a file by id.

    A row without coordinates, names or an answer is a prediction of nothing: a miss.

    Args:
        option: what named the file.
    Raises:
        ValueError: naming the file, and the row where there is one: a suffix or columns that are not known, an id that
            is missing or occurs twice, coordinates that are no numbers or out of range, another number of samples than
            in the first row.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file. {option} names a file of {', '.join(SUFFIXES)} (also .gz).")
    found: dict[str, ForeignAnswer] = {}
    for where, row in _rows(path):
        columns = _columns(row)
        row_id = row.get(columns.get("id", ""))
        if row_id in (None, ""):
            raise ValueError(
                f"{where}: no id. Expected one of the columns {', '.join(_COLUMNS['id'])}; got {list(row)}."
            )
        if str(row_id) in found:
            earlier = found[str(row_id)].where.rpartition(": ")[2]
            raise ValueError(f"{where}: id {row_id!r} is also that of {earlier}. Give each id once.")
        truth = _pair(row.get("true_latlon_deg"), "true_latlon_deg", where)
        answer = ForeignAnswer(where, _prediction(row, columns, where), _samples(row, where), truth)
        first = next(iter(found.values()), answer)
        if len(answer.sampled_latlon_deg) != len(first.sampled_latlon_deg):
            raise ValueError(
                f"{where}: has {len(answer.sampled_latlon_deg)} samples, {first.where.rpartition(': ')[2]} has"
                f" {len(first.sampled_latlon_deg)}. Give each image as many."
            )
        found[str(row_id)] = answer
    if not found:
        raise ValueError(f"{path}: holds no predictions.")
    return found


def match_predictions(
    found: Mapping[str, ForeignAnswer], truths: Iterable[tuple[str, Point]]
) -> tuple[list[HeldOutPrediction], list[str], list[str]]:
    """Predictions in the order of the truths.

    Args:
        found: from read_foreign.
        truths: id and place of each image.
    Returns:
        the predictions, with an empty one where there is none; the ids without one; the ids of no truth.
    Raises:
        ValueError: naming the row, when a file's own truth is not the data's.
    """
    matched, missing = [], []
    unknown = dict.fromkeys(found)
    num_samples = len(next(iter(found.values())).sampled_latlon_deg)
    nothing = ForeignAnswer("", Prediction("", problem="no prediction"), [None] * num_samples, None)
    for example_id, latlon_deg in truths:
        if example_id not in found:
            missing.append(example_id)
        answer = found.get(example_id, nothing)
        _check_truth(answer, example_id, latlon_deg)
        said = answer.said
        unknown.pop(example_id, None)
        matched.append(
            HeldOutPrediction(
                id=example_id,
                true_latlon_deg=latlon_deg,
                predicted_latlon_deg=said.latlon_deg,
                sampled_latlon_deg=answer.sampled_latlon_deg,
                text=said.text,
                country=said.country,
                state=said.state,
                city=said.city,
                problem=said.problem,
            )
        )
    return matched, missing, list(unknown)


def _check_truth(answer: ForeignAnswer, example_id: str, latlon_deg: Point) -> None:
    theirs = answer.true_latlon_deg
    if theirs is None:
        return
    turns = abs(theirs[1] - latlon_deg[1]) % 360
    if abs(theirs[0] - latlon_deg[0]) > SAME_PLACE_DEG or min(turns, 360 - turns) > SAME_PLACE_DEG:
        raise ValueError(
            f"{answer.where}: true_latlon_deg of {example_id!r} is {theirs}, but {latlon_deg} in the data. Was it made"
            " on other data?"
        )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and row in words, values by column)."""
    name = path.name.lower().removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: the name must end in {', '.join(SUFFIXES)}, or one of these and .gz.")
    with _opened(path) as file:
        if suffix == ".jsonl":
            yield from _json_rows(path, file)
            return
        reader = csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",", strict=True)
        try:
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                if None in row or None in row.values():
                    raise ValueError(f"{where}: has other fields than the header's {len(reader.fieldnames or [])}.")
                yield where, row
        except csv.Error as error:
            raise ValueError(f"{path}: line {reader.line_num}: {error}.") from error


def _json_rows(path: Path, file: TextIO) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        where = f"{path}: line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not valid JSON ({error}).") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: expected an object, got {type(row).__name__}.")
        yield where, row


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        # utf-8-sig: spreadsheets put a mark before the first column's name
        with opener(path, "rt", encoding="utf-8-sig", newline="") as file:
            yield file
    except (UnicodeDecodeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: not UTF-8 text, or cut short ({error}). Save it as UTF-8.") from error


def _columns(row: dict[str, Any]) -> dict[str, str]:
    """What we look for -> the column that holds it."""
    by_lower = {str(name).strip().lower(): name for name in row}
    found = {}
    for wanted, names in _COLUMNS.items():
        name = next((name for name in names if name in by_lower), None)
        if name is not None:
            found[wanted] = by_lower[name]
    return found


def _prediction(row: dict[str, Any], columns: dict[str, str], where: str) -> Prediction:
    text = row.get(columns.get("text", ""))
    names = {level: _name(row.get(columns.get(level, "")), where) for level in ("country", "state", "city")}
    if "predicted_latlon_deg" in row:
        latlon_deg = _pair(row["predicted_latlon_deg"], "predicted_latlon_deg", where)
    elif "lat" in columns and "lon" in columns:
        latlon_deg = _latlon_deg(row[columns["lat"]], row[columns["lon"]], where)
    elif not any(names.values()) and isinstance(text, str):
        return parse_completion(text)
    elif not {"country", "text"} & columns.keys():
        raise ValueError(f"{where}: neither coordinates, names nor an answer among the columns {list(row)}.")
    else:
        latlon_deg = None
    problem = row.get("problem")
    return Prediction(
        text if isinstance(text, str) else "",
        country=names["country"],
        state=names["state"],
        city=names["city"],
        latlon_deg=latlon_deg,
        problem=problem if problem and isinstance(problem, str) else None if latlon_deg else "no coordinates",
    )


def _samples(row: dict[str, Any], where: str) -> list[Point | None]:
    pairs = row.get("sampled_latlon_deg") or []
    if not isinstance(pairs, list):
        raise ValueError(f"{where}: sampled_latlon_deg must be a list of points, got {pairs!r:.80}.")
    return [_pair(pair, "each of sampled_latlon_deg", where) for pair in pairs]


def _pair(pair: Any, name: str, where: str) -> Point | None:
    """The point of a JSON line, None for null."""
    if pair is None:
        return None
    if not isinstance(pair, list) or len(pair) != 2:
        raise ValueError(f"{where}: {name} must be [latitude, longitude] or null, got {pair!r:.80}.")
    return _latlon_deg(pair[0], pair[1], where)


def _latlon_deg(lat: Any, lon: Any, where: str) -> Point | None:
    """The point; None where both values are missing."""
    if all(value is None or (isinstance(value, str) and not value.strip()) for value in (lat, lon)):
        return None
    try:
        lat_deg, lon_deg = float(lat), float(lon)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: latitude and longitude must be numbers, got {lat!r} and {lon!r}.") from error
    if math.isnan(lat_deg) and math.isnan(lon_deg):
        return None
    if not (abs(lat_deg) <= 90 and abs(lon_deg) <= 180):
        swapped = " Are latitude and longitude swapped?" if abs(lon_deg) <= 90 and abs(lat_deg) <= 180 else ""
        raise ValueError(f"{where}: ({lat_deg}, {lon_deg}) is no latitude and longitude in degrees.{swapped}")
    return lat_deg, lon_deg


def _name(value: Any, where: str) -> str | None:
    if not isinstance(value, str | None):
        raise ValueError(f"{where}: a place name must be a text, got {value!r}.")
    return value or None
