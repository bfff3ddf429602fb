"""Do 100,000 pairs of place names mean the same place: the target is 2 s on one core.

pytest benchmarks/bench_names.py        a few seconds, of which three build the tables
"""

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from geogrpo.regions.names import same_place, same_places
from geogrpo.regions.sources.geonames import load_geonames

NUM_PAIRS, NUM_TRUTHS, LIMIT_S = 100_000, 5_000, 2.0


def test_answers_to_5000_photographs(benchmark: BenchmarkFixture) -> None:
    """What 100,000 completions look like: many answers for fewer photographs, half of them right."""
    places = load_geonames()
    generator = np.random.default_rng(0)
    truth = generator.integers(0, len(places), NUM_TRUTHS)[generator.integers(0, NUM_TRUTHS, NUM_PAIRS)]
    answer = np.where(generator.random(NUM_PAIRS) < 0.5, truth, generator.permutation(truth))
    cities = np.array(places.city, dtype=object)
    parents = np.array(places.country, dtype=object)[truth].tolist()
    # Builds the tables
    same_place("Paris", "London")
    same = benchmark.pedantic(
        same_places,
        args=(cities[answer].tolist(), cities[truth].tolist()),
        kwargs={"level": "city", "parent": parents},
        # Answers are kept: a second round would only look them up.
        rounds=1,
    )
    assert same[answer == truth].all()
    assert benchmark.stats.stats.total <= LIMIT_S
