"""Finds the leaks. The test set is kept in memory and the training set passes by: of that only places, hashes of looks,
and ids as packed text are kept, some 60 bytes a row.

Shapes: T test rows, N train rows, K pairs.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from geogrpo.auditing.leaks import AuditJob, Hits, Kind, Leaks, PackedIds, Side
from geogrpo.auditing.near_hashes import near_pairs
from geogrpo.auditing.pictures import HashCache, PictureHash, import_imagehash
from geogrpo.auditing.proximity import TrainPlaces, distance_km
from geogrpo.auditing.rows import Batch, RowSource, open_rows
from geogrpo.labelling.workers import Workers

KEYED = (Kind.PHOTO_ID, Kind.AUTHOR, Kind.FILE, Kind.PIXELS)
"""Kinds whose rows have keys that are equal or not."""
OnProgress = Callable[[str, int, int, int], None]


def find_leaks(job: AuditJob, on_progress: OnProgress = lambda name, num_rows, done, size: None) -> Leaks:
    """Compare all rows of the two sets.

    Args:
        on_progress: called after each batch with the file's name, the rows done, and how much of it that is.
    Raises:
        ValueError: naming the file, and the row where there is one.
    """
    with ExitStack() as stack:
        # Processes start with the first batch that is large enough: how many pictures a table has is not known ahead.
        workers = Workers(job.num_workers, None)
        stack.callback(workers.close)
        train_source = stack.enter_context(
            closing(open_rows(job.train, job.train_columns, job.train_images, job.num_workers))
        )
        test_source = stack.enter_context(
            closing(open_rows(job.test, job.test_columns, job.test_images, job.num_workers))
        )
        hasher = None
        if train_source.has_pictures and test_source.has_pictures:
            import_imagehash()
            hasher = _Hasher(stack.enter_context(closing(HashCache(job.cache))), workers)
        elif job.train_images is not None or job.test_images is not None:
            lacking = "TRAIN" if test_source.has_pictures else "TEST"
            raise ValueError(f"pictures are compared where both sets have them; none are known of {lacking}.")
        test_side = Side(str(job.test), test_source.columns)
        test = _TestSet(_reported(test_source, job.test, on_progress), test_side, hasher)
        train = _TrainSet(test, Side(str(job.train), train_source.columns), hasher)
        for batch in _reported(train_source, job.train, on_progress):
            train.add(batch)
        return _leaks(job, test, train, hasher)


def _reported(source: RowSource, path: Path, on_progress: OnProgress) -> Iterator[Batch]:
    num_rows = 0
    for batch in source.batches():
        yield batch
        num_rows += len(batch.ids)
        on_progress(str(path), num_rows, source.done, source.size)


class _Hasher:
    """Hashes of a batch's pictures, None where there is none that can be read; counts them."""

    def __init__(self, cache: HashCache, workers: Workers) -> None:
        self.cache, self._workers = cache, workers

    def hashes(self, batch: Batch, side: Side) -> list[PictureHash | None]:
        found = self.cache.hashes(batch.pictures, self._workers)
        side.count_pictures(batch, found)
        return [value if isinstance(value, PictureHash) else None for value in found]


def _hashes(hasher: _Hasher | None, batch: Batch, side: Side) -> list[PictureHash | None]:
    return [None] * len(batch.ids) if hasher is None else hasher.hashes(batch, side)


def _keys(batch: Batch, hashes: Sequence[PictureHash | None]) -> dict[Kind, Iterable[tuple[Hashable, ...]]]:
    """(N,) of each of KEYED the keys that a row has."""
    return {
        Kind.PHOTO_ID: (() if x is None else (x,) for x in batch.photo_ids),
        Kind.AUTHOR: batch.authors,
        Kind.FILE: (() if x is None else (x.file_digest,) for x in hashes),
        Kind.PIXELS: (() if x is None else (x.pixel_digest,) for x in hashes),
    }


class _Looks:
    """Perceptual hashes, and the rows they are of."""

    def __init__(self) -> None:
        self._rows, self._phashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]

    def add(self, first_row: int, hashes: Sequence[PictureHash | None]) -> None:
        """Append what a batch's pictures look like; flat ones are left out."""
        some = [(first_row + i, x.phash) for i, x in enumerate(hashes) if x is not None and not x.is_flat]
        self._rows.append(np.array([row for row, _ in some], np.int64))
        self._phashes.append(np.array([phash for _, phash in some], np.uint64))

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows and hashes."""
        return np.concatenate(self._rows), np.concatenate(self._phashes)


class _TestSet:
    """The test rows by everything that a train row can have in common with them."""

    def __init__(self, batches: Iterable[Batch], side: Side, hasher: _Hasher | None) -> None:
        self.side, self.ids, self.looks = side, list[str](), _Looks()
        self.known: dict[Kind, dict[Hashable, list[int]]] = {kind: {} for kind in KEYED}
        points = [np.empty((0, 2))]
        for batch in batches:
            side.count(batch)
            hashes = _hashes(hasher, batch, side)
            for kind, keys in _keys(batch, hashes).items():
                for row, some in enumerate(keys, start=len(self.ids)):
                    for key in some:
                        self.known[kind].setdefault(key, []).append(row)
            self.looks.add(len(self.ids), hashes)
            points.append(batch.latlon_deg)
            self.ids += batch.ids
        self.latlon_deg = np.concatenate(points)
        self._check_ids()

    def _check_ids(self) -> None:
        if not self.ids:
            raise ValueError(f"{self.side.path}: no rows.")
        row_of: dict[str, int] = {}
        for row, name in enumerate(self.ids, start=1):
            if not name:
                raise ValueError(f"{self.side.path}: row {row} has no id.")
            earlier = row_of.setdefault(name, row)
            if earlier != row:
                raise ValueError(
                    f"{self.side.path}: rows {earlier} and {row} have one id, {name!r:.80}. Remove one, or name another"
                    " column with --test-id."
                )


class _TrainSet:
    """What is kept of the train rows that have passed."""

    def __init__(self, test: _TestSet, side: Side, hasher: _Hasher | None) -> None:
        self._test, self.side, self._hasher = test, side, hasher
        self.ids, self.looks = PackedIds(), _Looks()
        self.hits = {kind: Hits(len(test.ids)) for kind in KEYED}
        self._points = [np.empty((0, 2))]

    def add(self, batch: Batch) -> None:
        """Let a batch pass."""
        first_row = self.side.num_rows
        self.side.count(batch)
        hashes = _hashes(self._hasher, batch, self.side)
        for kind, keys in _keys(batch, hashes).items():
            test_rows, rows = _pairs(keys, self._test.known[kind])
            if len(rows):
                km = distance_km(self._test.latlon_deg[test_rows], batch.latlon_deg[rows])
                self.hits[kind].add(test_rows, rows + first_row, np.where(np.isnan(km), np.inf, km))
        self.looks.add(first_row, hashes)
        self.ids.add(batch.ids)
        self._points.append(batch.latlon_deg)

    def latlon_deg(self) -> np.ndarray:
        """(N, 2) degrees."""
        points = np.concatenate(self._points)
        self._points = [points]
        return points


def _pairs(keys: Iterable[tuple[Hashable, ...]], known: dict[Hashable, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(K,) test rows and (K,) rows of a batch that have a key in common, each pair once."""
    test_rows: list[int] = []
    rows: list[int] = []
    for row, some in enumerate(keys if known else ()):
        for position, key in enumerate(some):
            found = known.get(key)
            if found is not None:
                # Another key of the row may have led to the same test row.
                earlier = {test_row for other in some[:position] for test_row in known.get(other, ())}
                new = [test_row for test_row in found if test_row not in earlier]
                test_rows += new
                rows += [row] * len(new)
    return np.array(test_rows, np.int64), np.array(rows, np.int64)


def _leaks(job: AuditJob, test: _TestSet, train: _TrainSet, hasher: _Hasher | None) -> Leaks:
    points = train.latlon_deg()
    places = TrainPlaces(points)
    nearest_km, nearest_row = places.nearest(test.latlon_deg)
    hits = {kind: train.hits[kind] for kind in _checks(test.side, train.side)}
    if not hits and np.isnan(nearest_km).all():
        raise ValueError(
            f"{job.train} and {job.test} have nothing in common to compare: no photo ids, authors, coordinates or"
            f" pictures in both. Columns taken: {train.side.columns} and {test.side.columns}."
        )
    if Kind.PIXELS in hits:
        hits[Kind.LOOKS] = _looks_alike(job.max_hamming, test, train)
    if job.near_km is not None:
        hits[Kind.PLACE] = Hits(len(test.ids))
        rows = np.flatnonzero(nearest_km <= job.near_km)
        hits[Kind.PLACE].add(rows, nearest_row[rows], nearest_km[rows])
    cache = hasher.cache if hasher is not None else None
    return Leaks(
        train=train.side,
        test=test.side,
        ids=test.ids,
        latlon_deg=test.latlon_deg,
        hits=hits,
        train_ids=train.ids,
        train_latlon_deg=points,
        nearest_km=nearest_km,
        nearest_row=nearest_row,
        baseline_km=places.baseline_km(),
        num_hashes_cached=cache.num_found if cache else 0,
        num_hashes_computed=cache.num_computed if cache else 0,
    )


def _checks(test: Side, train: Side) -> list[Kind]:
    """The kinds that both sets have something for."""
    has = {
        Kind.PHOTO_ID: test.num_photo_ids and train.num_photo_ids,
        Kind.AUTHOR: test.num_authors and train.num_authors,
        Kind.FILE: test.num_pictures and train.num_pictures,
        Kind.PIXELS: test.num_pictures and train.num_pictures,
    }
    for side in (train, test):
        if side.num_missing + side.num_unreadable and not side.num_pictures:
            raise ValueError(f"{side.path}: none of its pictures can be read. {side.examples[0]}")
    return [kind for kind, number in has.items() if number]


def _looks_alike(max_hamming: int, test: _TestSet, train: _TrainSet) -> Hits:
    hits = Hits(len(test.ids))
    (test_rows, test_hashes), (train_rows, train_hashes) = test.looks.arrays(), train.looks.arrays()
    at_test, at_train, num_bits = near_pairs(test_hashes, train_hashes, max_hamming)
    hits.add(test_rows[at_test], train_rows[at_train], num_bits.astype(np.float64))
    return hits
