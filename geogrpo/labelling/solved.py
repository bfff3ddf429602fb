"""Hard samples as Geo-R selects them: what lies near a place that a model already solves is left out.

Geo-R (arXiv 2601.00388) takes 100,000 photographs that a small model localizes correctly, drops every sample within
200 km of one of them, and runs GRPO on the rest, where answers of a group still differ. The paper does not say from
which distance on an answer is correct; ours is 25 km, the "city" threshold of Im2GPS.

Shapes: N points, S solved places.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from geogrpo_kernels import haversine_km

from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import Places
from geogrpo.regions.tabular import CHUNK_ROWS, table_format
from geogrpo.regions.tabular_lines import TextLines
from geogrpo.regions.tabular_rows import Wanted
from geogrpo.types import check_latlon

SOLVED_WITHIN_KM = 25.0
DROP_WITHIN_KM = 200.0
_TRUTH, _ANSWER = "true_latlon_deg", "predicted_latlon_deg"


class SolvedPlaces:
    """Where a model is right already.

    Args:
        latlon_deg: (S, 2) float64 degrees; S may be 0.
    """

    def __init__(self, latlon_deg: np.ndarray) -> None:
        places = np.unique(latlon_deg, axis=0)
        self.num_places = len(places)
        self._index = RegionIndex.build(places=_nameless(places)) if len(places) else None

    def distance_km(self, latlon_deg: np.ndarray) -> np.ndarray:
        """(N, 2) degrees -> (N,) great-circle km to the nearest solved place, infinite where there is none."""
        if self._index is None:
            return np.full(len(latlon_deg), np.inf)
        return self._index.nearest_with_distance(latlon_deg)[1]


def _nameless(latlon_deg: np.ndarray) -> Places:
    same, none = ["solved"] * len(latlon_deg), [None] * len(latlon_deg)
    return Places(latlon_deg, np.zeros(len(latlon_deg), np.int64), same, same, list(none), list(none), same)


def read_solved(path: Path, within_km: float = SOLVED_WITHIN_KM) -> np.ndarray:
    """The places that a model solves.

    Args:
        path: predictions_<stage>.jsonl or completions of a run, where a place is solved when an answer is within
            `within_km` of the truth; or any table with coordinates, where every row is a solved place.
    Returns:
        (S, 2) float64 degrees, with repeats.
    Raises:
        ValueError: naming file and line.
    """
    is_jsonl = table_format(path).name == "jsonl"
    if not path.is_file():
        raise ValueError(f"{path}: no such file. --solved names predictions or a table of solved places.")
    return _solved_predictions(path, within_km) if is_jsonl and _holds_predictions(path) else _all_points(path)


def _holds_predictions(path: Path) -> bool:
    return any(_TRUTH in record for _, record in _records(path, limit=1))


def _solved_predictions(path: Path, within_km: float) -> np.ndarray:
    truths, answers = [], []
    for where, record in _records(path):
        truth, answer = (_point(record, key, where) for key in (_TRUTH, _ANSWER))
        if truth is None:
            raise ValueError(f"{where}: {_TRUTH} must be [latitude, longitude], got null.")
        if answer is not None:
            truths.append(truth)
            answers.append(answer)
    pairs = torch.tensor([truths, answers], dtype=torch.float64).reshape(2, -1, 2)
    return pairs[0][haversine_km(pairs[1], pairs[0]) <= within_km].numpy()


def _records(path: Path, limit: int | None = None) -> Iterator[tuple[str, dict]]:
    """(file and line in words, object) of every line that is not blank, or of the first few."""
    with closing(TextLines(path)) as lines:
        num_records = 0
        try:
            for line in lines:
                if line.isspace():
                    continue
                record = json.loads(line.strip())
                if not isinstance(record, dict):
                    raise ValueError(f"expected an object with {_TRUTH} and {_ANSWER}.")
                yield f"{path}: line {lines.number}", record
                num_records += 1
                if num_records == limit:
                    return
        except (ValueError, RecursionError) as error:
            # What the caller raises while it has the line does not come here.
            raise ValueError(f"{path}: line {lines.number}: {error}") from error


def _point(record: dict, key: str, where: str) -> tuple[float, float] | None:
    value = record.get(key, ...)
    if value is None:
        return None
    is_pair = isinstance(value, list) and len(value) == 2
    if not is_pair or any(isinstance(x, bool) or not isinstance(x, int | float) for x in value):
        got = "nothing" if value is ... else f"{value!r:.60}"
        raise ValueError(f"{where}: {key} must be [latitude, longitude] in degrees, got {got}.")
    point = (float(value[0]), float(value[1]))
    check_latlon(point, f"{where}: {key}")
    return point


def _all_points(path: Path) -> np.ndarray:
    table = table_format(path)
    points = []
    with closing(table.read(path, Wanted(None, None, (), table.name))) as reader:
        for chunk in reader.chunks(CHUNK_ROWS):
            for row, point in enumerate(chunk.latlon_deg.tolist()):
                check_latlon(point, chunk.where(row))
            points.append(chunk.latlon_deg)
    return np.concatenate(points)
