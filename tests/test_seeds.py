"""Streams of random numbers."""

import numpy as np

from geogrpo.seeds import Stream, stream_seed


def test_no_two_purposes_share_random_numbers() -> None:
    """NumPy pads a seed with zeros: (0, 1) and (0, 1, 0, 0) are one stream."""
    assert np.random.default_rng((0, 1)).random() == np.random.default_rng((0, 1, 0, 0)).random()
    numbers = range(3)
    seeds = [stream_seed(seed, stream, a, b) for seed in numbers for stream in Stream for a in numbers for b in numbers]
    assert {len(seed) for seed in seeds} == {4}
    assert len(set(seeds)) == len(seeds) == 9 * 3 * len(Stream)
    # Also apart from a generator made of the seed alone
    assert all(seed[1] > 0 for seed in seeds)
    assert len({float(np.random.default_rng(seed).random()) for seed in seeds}) == len(seeds)
