"""Scores of predictions on all test rows, on those that leaked and those that did not, and by how near TRAIN comes.

All subsets are scored on the same bootstrap resamples, so that a difference has the interval of a paired one.

Shapes: T images with a prediction, K subsets, M metrics that are means, B resamples.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from geogrpo.auditing.leaks import Leaks
from geogrpo.auditing.proximity import RADII_KM, distance_km
from geogrpo.auditing.rows import Columns, TableRows
from geogrpo.metrics import THRESHOLDS_KM, accuracy_within, charged_km, geoscore
from geogrpo.regions.tabular import table_format
from geogrpo.regions.tabular_lines import TextLines
from geogrpo.types import check_latlon

NUM_SAMPLES = 1000
ALL, CLEAN, LEAKED = "all", "without leaked rows", "leaked rows only"
_RESAMPLES_AT_ONCE = 50
_TRUTH, _ANSWER = "true_latlon_deg", "predicted_latlon_deg"


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class SubsetScore:
    """Of some of the images."""

    num_images: int
    metrics: dict[str, Estimate]
    """within_1_km and so on in [0, 1], geoscore in [0, 5000], median_km; empty where there are no images."""
    minus_all: dict[str, Estimate]
    """How much more each is than on all images."""


@dataclass(frozen=True)
class Scores:
    """What predictions are worth."""

    num_predictions: int
    num_without_prediction: int
    """Test rows."""
    num_not_in_test: int
    """Predictions."""
    subsets: dict[str, SubsetScore]
    by_nearest_km: dict[str, SubsetScore]
    """By how far the nearest train row is."""


def read_predictions(path: Path, ids: list[str], latlon_deg: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """How far off each prediction is.

    Args:
        path: JSONL with id, true_latlon_deg and predicted_latlon_deg (null: no answer), as runs write it; or a table
            with id and the predicted lat and lon (empty: no answer), whose truth is that of the test set.
        ids, latlon_deg: (T,), (T, 2) of the test set.
    Returns:
        (T,) km, NaN without an answer; (T,) bool, whether there is a prediction; number of predictions of other ids.
    Raises:
        ValueError: naming file and row.
    """
    row_of = {name: row for row, name in enumerate(ids)}
    truth, answer = latlon_deg.copy(), np.full((len(ids), 2), np.nan)
    is_predicted, num_others = np.zeros(len(ids), bool), 0
    for where, name, true_latlon_deg, predicted_latlon_deg in _predictions(path):
        row = row_of.get(name)
        if row is None:
            num_others += 1
            continue
        if is_predicted[row]:
            raise ValueError(f"{where}: a second prediction for {name!r:.80}.")
        is_predicted[row] = True
        truth[row] = truth[row] if true_latlon_deg is None else true_latlon_deg
        answer[row] = predicted_latlon_deg
        if np.isnan(truth[row]).any():
            raise ValueError(f"{where}: where {name!r:.80} is is known neither here nor in the test set.")
    if not is_predicted.any():
        raise ValueError(f"{path}: none of its {num_others:,} ids is in the test set, which has {ids[0]!r:.80}.")
    return distance_km(truth, answer), is_predicted, num_others


Record = tuple[str, str, tuple[float, float] | None, tuple[float, float]]
"""Where in words, id, truth if given, answer, which is NaN for none."""


def _predictions(path: Path) -> Iterator[Record]:
    is_jsonl = table_format(path).name == "jsonl"
    if not path.is_file():
        raise ValueError(f"{path}: no such file of predictions.")
    if is_jsonl and any(_TRUTH in record or _ANSWER in record for _, record in _first(path)):
        for where, record in _records(path):
            name, truth = record.get("id"), _point(record, _TRUTH, where)
            if not isinstance(name, str | int) or isinstance(name, bool) or truth is None:
                raise ValueError(f"{where}: expected id, {_TRUTH} and {_ANSWER}.")
            yield where, str(name), truth, _point(record, _ANSWER, where) or (np.nan, np.nan)
        return
    with closing(TableRows(path, Columns(), None)) as table:
        if None in (table.columns.id or table.columns.image, table.columns.lat):
            raise ValueError(f"{path}: expected columns id, lat and lon, or JSONL with id, {_TRUTH} and {_ANSWER}.")
        num_rows = 0
        for batch in table.batches():
            for name, (lat, lon) in zip(batch.ids, batch.latlon_deg.tolist(), strict=True):
                num_rows += 1
                yield f"{path}: row {num_rows}", name, None, (lat, lon)


def _first(path: Path) -> Iterator[tuple[str, dict]]:
    yield from (record for record, _ in zip(_records(path), range(1), strict=False))


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with closing(TextLines(path)) as lines:
        try:
            for line in lines:
                if line.isspace():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("expected a JSON object.")
                yield f"{path}: line {lines.number}", record
        except (ValueError, RecursionError) as error:
            # What the caller raises while it has the line does not come here.
            raise ValueError(f"{path}: line {lines.number}: {error}") from error


def _point(record: dict[str, Any], key: str, where: str) -> tuple[float, float] | None:
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


def score(leaks: Leaks, path: Path, *, num_samples: int = NUM_SAMPLES, seed: int = 0) -> Scores:
    """Score a file of predictions on all subsets.

    Raises:
        ValueError: naming file and row.
    """
    off_km, has, num_others = read_predictions(path, leaks.ids, leaks.latlon_deg)
    subsets = {ALL: np.ones(len(has), bool), CLEAN: ~leaks.is_leaked, LEAKED: leaks.is_leaked}
    for kind, hits in leaks.hits.items():
        subsets[f"without {kind}"], subsets[f"only {kind}"] = ~hits.is_leaked, hits.is_leaked
    bins = nearest_bins(leaks.nearest_km)
    both = {name: mask[has] for name, mask in (subsets | bins).items()}
    found = score_subsets(off_km[has], both, num_samples=num_samples, seed=seed)
    return Scores(
        num_predictions=int(has.sum()),
        num_without_prediction=int((~has).sum()),
        num_not_in_test=num_others,
        subsets={name: found[name] for name in subsets},
        by_nearest_km={name: found[name] for name in bins},
    )


def nearest_bins(nearest_km: np.ndarray) -> dict[str, np.ndarray]:
    """(T,) bool by name, which says how far the nearest train row is: "10 m", "10 m - 100 m" and so on."""
    edges = (-1.0, *RADII_KM, np.inf)
    names = [f"up to {radius_name(RADII_KM[0])}"]
    names += [f"{radius_name(a)} - {radius_name(b)}" for a, b in pairwise(RADII_KM)]
    names.append(f"over {radius_name(RADII_KM[-1])}")
    pairs = zip(names, pairwise(edges), strict=True)
    return {name: (nearest_km > low) & (nearest_km <= high) for name, (low, high) in pairs}


def radius_name(radius_km: float) -> str:
    """10 m, 1 km."""
    return f"{radius_km * 1000:g} m" if radius_km < 1 else f"{radius_km:g} km"


def score_subsets(
    off_km: np.ndarray, subsets: dict[str, np.ndarray], *, num_samples: int, seed: int = 0
) -> dict[str, SubsetScore]:
    """Every metric on every subset.

    Args:
        off_km: (T,) km, NaN without an answer.
        subsets: (T,) bool by name; ALL is what the others are compared with.
        num_samples: bootstrap resamples of the T images.
    """
    columns = {f"within_{km:g}_km": accuracy_within(off_km, km) for km in THRESHOLDS_KM} | {
        "geoscore": geoscore(off_km)
    }
    masks = np.stack([subsets[name] for name in subsets])
    values, charged = np.stack(list(columns.values()), axis=-1), charged_km(off_km)
    point = _statistics(np.ones((1, len(off_km)), np.int64), masks, values, charged)[0]
    rng, draws = np.random.default_rng(seed), []
    for start in range(0, num_samples, _RESAMPLES_AT_ONCE):
        num = min(_RESAMPLES_AT_ONCE, num_samples - start)
        counts = rng.multinomial(len(off_km), np.full(len(off_km), 1 / len(off_km)), size=num)
        draws.append(_statistics(counts, masks, values, charged))
    samples = np.concatenate(draws)
    names, of_all = [*columns, "median_km"], list(subsets).index(ALL)
    scores = {}
    for k, name in enumerate(subsets):
        num_images = int(masks[k].sum())
        own = (point[k], samples[:, k]) if num_images else None
        scores[name] = SubsetScore(
            num_images,
            _estimates(names, *own) if own else {},
            _estimates(names, own[0] - point[of_all], own[1] - samples[:, of_all]) if own and k != of_all else {},
        )
    return scores


def _estimates(names: list[str], point: np.ndarray, samples: np.ndarray) -> dict[str, Estimate]:
    # A resample that holds none of a small subset says nothing of it.
    known = samples[~np.isnan(samples).any(axis=1)]
    low, high = np.percentile(known, [2.5, 97.5], axis=0) if len(known) else np.full((2, len(names)), np.nan)
    triples = zip(point.tolist(), low.tolist(), high.tolist(), strict=True)
    return {name: Estimate(*triple) for name, triple in zip(names, triples, strict=True)}


def _statistics(counts: np.ndarray, masks: np.ndarray, values: np.ndarray, charged: np.ndarray) -> np.ndarray:
    """(B, K, M + 1): means of the columns, then the median, where each image stands (B, T) times; NaN where never."""
    order = np.argsort(charged)
    result = np.full((len(counts), len(masks), values.shape[1] + 1), np.nan)
    for k, mask in enumerate(masks):
        totals = counts[:, mask].sum(axis=1)
        some = totals > 0
        if not some.any():
            continue
        result[some, k, :-1] = counts[some][:, mask] @ values[mask] / totals[some, None]
        here = order[mask[order]]
        ends = np.cumsum(counts[some][:, here], axis=1)
        # Of an even number the median is the mean of the two in the middle.
        middle = [
            (ends > position[:, None]).argmax(axis=1) for position in ((totals[some] - 1) // 2, totals[some] // 2)
        ]
        result[some, k, -1] = (charged[here[middle[0]]] + charged[here[middle[1]]]) / 2
    return result
