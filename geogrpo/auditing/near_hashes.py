"""Pairs of 64-bit hashes that differ in few bits, without comparing every pair.

Two hashes that differ in at most h bits differ in at most h // 4 bits in one of their four 16-bit bands (pigeonhole).
So for each band, only those are compared whose band is one of the few values that near it.

Shapes: T test hashes, N train hashes, M masks, K pairs.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

NUM_BANDS, BAND_BITS = 4, 16
MAX_HAMMING = 15
"""From 16 on every band would be looked up at 2,517 values, and chance pairs outnumber copies."""
_BLOCK_TRAIN = 2**20
_BLOCK_TEST = 256
"""At 2**20 train hashes some 70,000 comparisons at once when hashes are spread evenly; more where many are alike."""


def near_pairs(test: np.ndarray, train: np.ndarray, max_hamming: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair within `max_hamming` bits.

    Args:
        test: (T,) uint64.
        train: (N,) uint64.
        max_hamming: from 0 to MAX_HAMMING.
    Returns:
        (K,) int64 positions in test, (K,) int64 positions in train, (K,) int64 bits that differ; in this order.
    """
    if not 0 <= max_hamming <= MAX_HAMMING:
        raise ValueError(f"max_hamming must be from 0 to {MAX_HAMMING}, got {max_hamming}.")
    masks = _masks(max_hamming // NUM_BANDS)
    found = [np.empty(0, np.int64)]
    for start in range(0, len(train), _BLOCK_TRAIN):
        block = train[start : start + _BLOCK_TRAIN]
        for band in range(NUM_BANDS):
            for test_rows, train_rows in _candidates(_band(test, band), _band(block, band), masks):
                is_near = np.bitwise_count(test[test_rows] ^ block[train_rows]) <= max_hamming
                found.append(test_rows[is_near] * max(len(train), 1) + train_rows[is_near] + start)
    test_rows, train_rows = np.divmod(np.unique(np.concatenate(found)), max(len(train), 1))
    return test_rows, train_rows, np.bitwise_count(test[test_rows] ^ train[train_rows]).astype(np.int64)


def _masks(num_bits: int) -> np.ndarray:
    """(M,) every 16-bit number with at most so many ones."""
    ones = (bits for count in range(num_bits + 1) for bits in combinations(range(BAND_BITS), count))
    return np.array([sum(1 << bit for bit in bits) for bits in ones], np.int64)


def _band(hashes: np.ndarray, band: int) -> np.ndarray:
    return ((hashes >> np.uint64(band * BAND_BITS)) & np.uint64(2**BAND_BITS - 1)).astype(np.uint16)


def _candidates(
    test_band: np.ndarray, train_band: np.ndarray, masks: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields (test rows, train rows) whose bands differ by one of the masks, each pair once."""
    order = np.argsort(train_band, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(train_band, minlength=2**BAND_BITS))])
    for first in range(0, len(test_band), _BLOCK_TEST):
        values = (test_band[first : first + _BLOCK_TEST, None].astype(np.int64) ^ masks).ravel()
        counts = starts[values + 1] - starts[values]
        # Of each value the positions starts[value], starts[value] + 1, ... of its train hashes
        ends = np.cumsum(counts)
        positions = np.arange(ends[-1]) + np.repeat(starts[values] - (ends - counts), counts)
        yield np.repeat(np.arange(len(values)) // len(masks) + first, counts), order[positions]
