"""Seeds of random numbers: one stream for each purpose, so that no two purposes ever draw the same numbers."""

from enum import IntEnum


class Stream(IntEnum):
    """What random numbers are for. From 1: NumPy pads a seed with zeros, so a 0 would not tell two seeds apart."""

    DATA_ORDER = 1
    """The order of the examples in an epoch."""
    SAMPLING = 2
    """The completions of a GRPO step."""
    EVALUATION = 3
    """The sampled answers to held-out images."""
    TINY_MODEL = 4
    """Which examples the tiny model's tokenizer is trained on."""
    CONSTANT_GUESS = 5
    """Which training points the best constant guess is chosen from."""
    HELD_OUT = 6
    """Which held-out examples are evaluated on."""
    CROPS = 7
    """How far the crop around a place is shifted."""
    RESAMPLING = 8
    """Which examples take the place of groups without signal."""


def stream_seed(seed: int, stream: Stream, a: int = 0, b: int = 0) -> tuple[int, int, int, int]:
    """The seed of numbers `a`, `b` of a stream, for numpy.random.default_rng: no two (seed, stream, a, b) share one."""
    return seed, int(stream), a, b
