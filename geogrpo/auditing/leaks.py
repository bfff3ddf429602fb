"""What an audit is asked, and what it finds: which test rows the training set gives away, and by what.

Shapes: T test rows, N train rows, S places of the baseline, K pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import numpy as np

from geogrpo.auditing.near_hashes import MAX_HAMMING
from geogrpo.auditing.pictures import PictureHash
from geogrpo.auditing.proximity import distance_km
from geogrpo.auditing.rows import Batch, Columns

NUM_EXAMPLES = 5
SAME_PLACE_KM = 1.0
"""One photograph has one place: pairs of one number that are farther apart are likely row numbers."""


class Kind(StrEnum):
    """How a train row gives a test row away."""

    PHOTO_ID = "photo id"
    AUTHOR = "author"
    FILE = "same file"
    PIXELS = "same pixels"
    LOOKS = "near duplicate"
    PLACE = "near place"


@dataclass(frozen=True)
class AuditJob:
    """What to compare.

    Raises:
        ValueError: naming the option at fault.
    """

    train: Path
    test: Path
    train_columns: Columns = field(default_factory=Columns)
    test_columns: Columns = field(default_factory=Columns)
    train_images: Path | None = None
    """What a table's image paths are below; None where its pictures are not compared."""
    test_images: Path | None = None
    max_hamming: int = 4
    """Bits in which the perceptual hashes of near duplicates differ at most, of 64."""
    near_km: float | None = None
    """A train row this near is a leak too; None for none."""
    cache: Path | None = None
    """Where hashes are kept; None for nowhere."""
    num_workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.max_hamming <= MAX_HAMMING:
            raise ValueError(f"--max-hamming must be from 0 to {MAX_HAMMING}, got {self.max_hamming}.")
        if self.near_km is not None and not 0 <= self.near_km < float("inf"):
            raise ValueError(f"--near-km must be a distance from 0, got {self.near_km}.")
        if self.num_workers < 1:
            raise ValueError(f"--workers must be at least 1, got {self.num_workers}.")


@dataclass
class Side:
    """What is known of one of the two sets, in numbers of rows."""

    path: str
    columns: Columns
    num_rows: int = 0
    num_photo_ids: int = 0
    num_authors: int = 0
    num_places: int = 0
    num_pictures: int = 0
    """Compared, flat ones included."""
    num_missing: int = 0
    """Pictures that are not where they should be."""
    num_unreadable: int = 0
    num_flat: int = 0
    """Of the pictures; of these no looks are compared."""
    examples: list[str] = field(default_factory=list)
    """The first missing and unreadable pictures, in words."""

    def count(self, batch: Batch) -> None:
        """Add a batch's rows."""
        self.num_rows += len(batch.ids)
        self.num_photo_ids += sum(x is not None for x in batch.photo_ids)
        self.num_authors += sum(map(bool, batch.authors))
        self.num_places += int((~np.isnan(batch.latlon_deg[:, 0])).sum())

    def count_pictures(self, batch: Batch, hashes: Sequence[PictureHash | str | None]) -> None:
        """Add a batch's pictures."""
        for row, value in enumerate(hashes):
            if isinstance(value, PictureHash):
                self.num_pictures += 1
                self.num_flat += value.is_flat
                continue
            self.num_missing += value is None
            self.num_unreadable += value is not None
            if len(self.examples) < NUM_EXAMPLES:
                what = f"{batch.ids[row]}: no such file" if value is None else f"{batch.pictures[row]}: {value}"
                self.examples.append(what.encode("utf-8", "backslashreplace").decode())


class Hits:
    """Of each test row: how many train rows give it away, and the one that does most.

    Args:
        num_test: T.
    """

    def __init__(self, num_test: int) -> None:
        self.num_train = np.zeros(num_test, np.int64)
        self.row = np.full(num_test, -1, np.int64)
        """(T,) the train row of the least measure, the first of equals; -1 where there is none."""
        self.measure = np.full(num_test, np.inf)

    def add(self, test_rows: np.ndarray, train_rows: np.ndarray, measure: np.ndarray) -> None:
        """(K,) pairs, no pair twice, train rows after those of earlier calls; measure is km or bits, inf if unknown."""
        np.add.at(self.num_train, test_rows, 1)
        order = np.lexsort((train_rows, measure, test_rows))
        rows, first = np.unique(test_rows[order], return_index=True)
        best = order[first]
        is_better = (measure[best] < self.measure[rows]) | (self.row[rows] < 0)
        self.row[rows[is_better]] = train_rows[best[is_better]]
        self.measure[rows[is_better]] = measure[best[is_better]]

    @property
    def is_leaked(self) -> np.ndarray:
        """(T,) bool."""
        return self.num_train > 0


class PackedIds:
    """Texts of many rows in little memory."""

    def __init__(self) -> None:
        self._blobs: list[bytes] = []
        self._first_rows: list[int] = [0]

    def add(self, ids: Sequence[str]) -> None:
        """Append rows."""
        # No reader lets NUL pass.
        self._blobs.append("\0".join(ids).encode("utf-8", "backslashreplace"))
        self._first_rows.append(self._first_rows[-1] + len(ids))

    def __getitem__(self, row: int) -> str:
        blob = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return self._blobs[blob].decode().split("\0")[row - self._first_rows[blob]]


@dataclass
class Leaks:
    """What was found."""

    train: Side
    test: Side
    ids: list[str]
    """(T,) of the test rows."""
    latlon_deg: np.ndarray
    """(T, 2) degrees of the test rows, NaN where unknown."""
    hits: dict[Kind, Hits]
    """Of the checks that could be made."""
    train_ids: PackedIds
    train_latlon_deg: np.ndarray
    """(N, 2)."""
    nearest_km: np.ndarray
    """(T,) to the nearest train row, NaN where unknown."""
    nearest_row: np.ndarray
    """(T,) that row, -1 where unknown."""
    baseline_km: np.ndarray
    """(S,) from train rows drawn at random to the nearest other one."""
    num_hashes_cached: int
    num_hashes_computed: int

    @property
    def is_leaked(self) -> np.ndarray:
        """(T,) bool: by any kind."""
        found = np.zeros(len(self.ids), bool)
        for hits in self.hits.values():
            found |= hits.is_leaked
        return found

    @property
    def num_ids_far_apart(self) -> int:
        """Test rows whose photo id is in the training set, but more than SAME_PLACE_KM away."""
        return int((self.pair_km(Kind.PHOTO_ID) > SAME_PLACE_KM).sum()) if Kind.PHOTO_ID in self.hits else 0

    def pair_km(self, kind: Kind) -> np.ndarray:
        """(T,) km from each leaked test row to the train row that gives it away; NaN where unknown."""
        hits = self.hits[kind]
        km = np.full(len(self.ids), np.nan)
        rows = np.flatnonzero(hits.is_leaked)
        km[rows] = distance_km(self.latlon_deg[rows], self.train_latlon_deg[hits.row[rows]])
        return km
