"""From a batch of rows to lines of labels: where each row is, what its chain says, and why it is none.

Shapes: N rows of a batch.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from geogrpo.labelling.languages import LocalNames
from geogrpo.labelling.rows import Batch, Problem, Reason
from geogrpo.labelling.solved import DROP_WITHIN_KM, SolvedPlaces
from geogrpo.labelling.workers import Workers, image_problem
from geogrpo.parsing import parse_completion
from geogrpo.regions.chain import CHAIN_TEMPLATES, chain_of_region
from geogrpo.regions.index import RegionIndex
from geogrpo.types import Example, check_latlon

MIXED = "mixed"
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
_PLAIN = re.compile(r"(?:[^\W\d_](?:[^\W\d_]|['’.-](?=[^\W\d_ ]))*(?: |$))*")
"""Names of words of letters, with an apostrophe, a dot or a hyphen inside at most."""
_LEVELS = ("country", "state", "city")
Names = tuple[str | None, str | None, str | None]
"""Country, state, city."""


@dataclass(frozen=True)
class ChainStyle:
    """How chains are written."""

    template: str = "lines"
    """A key of CHAIN_TEMPLATES, or MIXED: one for each example, by a hash of its id."""
    languages: tuple[str, ...] = ("en",)
    """Of place names. Of several, one for each example by a hash of its id."""
    decimals: int = 4
    """Of the degrees; 4 are 11 m."""


@dataclass(frozen=True)
class Labels:
    """What a batch became."""

    lines: list[str]
    problems: dict[int, Problem]
    """By row of the batch: every row that has no line."""


class Labeller:
    """Makes lines of labels. One that has labelled all batches of a source in order knows every id.

    Args:
        index: where names come from.
        solved: with places, rows within `drop_within_km` of one are left out.
        image_folder: what the images of a batch are relative to; with it, every image is read to its end.
    """

    def __init__(
        self,
        index: RegionIndex,
        style: ChainStyle,
        *,
        workers: Workers,
        solved: SolvedPlaces | None = None,
        drop_within_km: float = DROP_WITHIN_KM,
        image_folder: Path | None = None,
    ) -> None:
        self._index, self._style, self._workers = index, style, workers
        self._solved, self._drop_within_km, self._image_folder = solved, drop_within_km, image_folder
        self._templates = list(CHAIN_TEMPLATES) if style.template == MIXED else [style.template]
        self._names = [LocalNames(language) for language in style.languages]
        self._ids = _IdSet()
        self._local_names = lru_cache(maxsize=2**16)(self._find_local_names)

    def know(self, ids: Sequence[str]) -> None:
        """Ids that an earlier run has written."""
        self._ids.add(np.array([_hashes(each)[0] for each in ids], np.uint64))

    def label(self, batch: Batch) -> Labels:
        """The lines of a batch, and what is wrong with each of its other rows."""
        problems = dict(batch.problems) | _coordinate_problems(batch)
        rows = np.array([row for row in range(len(batch)) if row not in problems], np.int64)
        rows = self._far_from_solved(rows, batch, problems)
        ids = self._index.lookup(batch.latlon_deg[rows]).ids
        is_somewhere = ids[:, 0] >= 0
        problems |= {row: Problem(Reason.NOWHERE) for row in rows[~is_somewhere].tolist()}
        rows, ids = rows[is_somewhere], ids[is_somewhere]
        if self._image_folder is not None:
            paths = [str(self._image_folder / batch.images[row]) for row in rows]
            found = self._workers.map(image_problem, paths)
            problems |= {row: problem for row, problem in zip(rows.tolist(), found, strict=True) if problem}
        # (country, state, city): counties are in no chain.
        lines = self._lines(batch, rows.tolist(), ids[:, (0, 1, 3)], problems)
        return Labels(self._of_new_ids(batch, lines, problems), problems)

    def _far_from_solved(self, rows: np.ndarray, batch: Batch, problems: dict[int, Problem]) -> np.ndarray:
        if self._solved is None or not len(rows):
            return rows
        distance_km = self._solved.distance_km(batch.latlon_deg[rows])
        is_near = distance_km <= self._drop_within_km
        for row, km in zip(rows[is_near].tolist(), distance_km[is_near].tolist(), strict=True):
            problems[row] = Problem(Reason.NEAR_SOLVED, f"{km:.1f} km")
        return rows[~is_near]

    def _lines(
        self, batch: Batch, rows: list[int], region_ids: np.ndarray, problems: dict[int, Problem]
    ) -> dict[int, tuple[int, str]]:
        """(hash of the id, line) by row, without the rows that have a problem; those found here are added."""
        names = list(map(tuple, self._index.names(region_ids).tolist()))
        codes = self._index.codes(region_ids[:, :2]).tolist()
        points = batch.latlon_deg.tolist()
        found = {}
        for row, named, coded in zip(rows, names, codes, strict=True):
            if row in problems:
                continue
            id_hash, template_hash, language_hash = _hashes(batch.ids[row])
            template = self._templates[template_hash % len(self._templates)]
            language = language_hash % len(self._names)
            local = self._local_names(language, named, *coded)
            latlon_deg = (points[row][0], points[row][1])
            text = chain_of_region(Example("", "", latlon_deg, *local), self._style.decimals, template)
            if not _is_read_back(template, local, self._style.decimals):
                problems[row] = Problem(Reason.UNREADABLE_CHAIN, " / ".join(text.splitlines()))
                continue
            record = {"id": batch.ids[row], "image": batch.images[row], "lat": latlon_deg[0], "lon": latlon_deg[1]}
            record |= dict(zip(_LEVELS, named, strict=True))
            record |= {"template": template, "language": self._style.languages[language], "chain": text}
            found[row] = (id_hash, _ENCODE(record) + "\n")
        return found

    def _of_new_ids(self, batch: Batch, lines: dict[int, tuple[int, str]], problems: dict[int, Problem]) -> list[str]:
        """The lines of ids that no line had before; the others' rows become problems."""
        rows = list(lines)
        is_new = self._ids.add(np.array([lines[row][0] for row in rows], np.uint64))
        kept = []
        for row, new in zip(rows, is_new.tolist(), strict=True):
            if new:
                kept.append(lines[row][1])
            else:
                problems[row] = Problem(Reason.DUPLICATE_ID, batch.ids[row])
        return kept

    def _find_local_names(self, language: int, named: Names, country_code: str | None, state_code: str | None) -> Names:
        """The names in one of the languages; the city as the index has it."""
        country, state, city = named
        local = self._names[language]
        local_state = local.state(country_code, state_code, state) if state else None
        return local.country(country_code, str(country)), local_state, city


def _is_read_back(template: str, names: Names, decimals: int) -> bool:
    """Whether the parser reads the same names from a chain: a name like "Foo; Bar" has a template's own marks.

    Independent of the coordinates, so one point stands for all.
    """
    text = " ".join(name for name in names if name)
    lower = text.lower()
    # Most names, at a hundredth of the time: without marks and digits, and no "Long ... Lat" to be an order.
    if _PLAIN.fullmatch(text) and not ("lat" in lower and ("lon" in lower or "lng" in lower)):
        return True
    return _is_parsed_back(template, names, decimals)


@lru_cache(maxsize=2**16)
def _is_parsed_back(template: str, names: Names, decimals: int) -> bool:
    point = (12.0, 34.0)
    prediction = parse_completion(chain_of_region(Example("", "", point, *names), decimals, template))
    read = (prediction.country, prediction.state, prediction.city)
    # Of several spaces in a name the parser leaves one in some templates.
    same = [" ".join((name or "").split()) for name in read] == [" ".join((name or "").split()) for name in names]
    return same and prediction.latlon_deg == point


def _coordinate_problems(batch: Batch) -> dict[int, Problem]:
    """Of the rows that the source found nothing wrong with."""
    lat, lon = batch.latlon_deg.T
    # Written so that NaN, which compares false, is bad.
    is_bad = ~((np.abs(lat) <= 90) & (np.abs(lon) <= 180)) | ((lat == 0) & (lon == 0))
    return {
        row: _coordinate_problem(*batch.latlon_deg[row].tolist())
        for row in np.flatnonzero(is_bad).tolist()
        if row not in batch.problems
    }


def _coordinate_problem(lat_deg: float, lon_deg: float) -> Problem:
    if lat_deg != lat_deg or lon_deg != lon_deg:
        return Problem(Reason.MISSING_COORDINATES)
    try:
        check_latlon((lat_deg, lon_deg), "this row")
    except ValueError as error:
        return Problem(Reason.OUT_OF_RANGE, str(error).removeprefix("this row: "))
    return Problem(Reason.ZERO_ISLAND, "what a camera without a fix writes")


def _hashes(example_id: str) -> tuple[int, int, int]:
    """Three independent numbers in [0, 2**64) that only the id decides."""
    digest = blake2b(example_id.encode(), digest_size=24).digest()
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:16]), int.from_bytes(digest[16:])


class _IdSet:
    """64-bit hashes of ids, 8 bytes each: a Python set of 5 million ids would take 600 MB.

    Two of 5 million ids have one hash with a probability of 7e-7; the second is then reported as a duplicate.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.uint64)

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """(N,) uint64 -> (N,) bool, whether each was not there before, neither earlier in the array."""
        is_new = np.zeros(len(hashes), bool)
        _, first = np.unique(hashes, return_index=True)
        is_new[first] = True
        at = np.minimum(np.searchsorted(self._sorted, hashes), max(len(self._sorted) - 1, 0))
        if len(self._sorted):
            is_new &= self._sorted[at] != hashes
        self._sorted = np.sort(np.concatenate([self._sorted, hashes[is_new]]), kind="stable")
        return is_new
