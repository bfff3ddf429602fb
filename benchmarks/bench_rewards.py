"""Scoring 100,000 completions, parsing and names included: the target is 10 s on two cores, and one is used.

pytest benchmarks/bench_rewards.py        half a minute
"""

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from geogrpo.config import RewardConfig
from geogrpo.regions.chain import chain_of_region, fill_regions
from geogrpo.regions.index import default_index
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.rewards import find_rewards
from geogrpo.rewards.scoring import Scores, score_completions
from geogrpo.types import Example

NUM_PROMPTS, GROUP_SIZE, LIMIT_S = 12_500, 8, 10.0


def make_completions() -> tuple[list[str], list[Example]]:
    """Chains of region, no two alike: half of them right about the names, the others about another photograph."""
    rng = np.random.default_rng(0)
    places = load_geonames()
    points = places.latlon_deg[rng.integers(0, len(places), NUM_PROMPTS)]
    truths = fill_regions(
        [Example(str(i), "", tuple(point)) for i, point in enumerate(points.tolist())], default_index()
    )
    examples = [truth for truth in truths for _ in range(GROUP_SIZE)]
    said = [example if rng.random() < 0.5 else examples[rng.integers(len(examples))] for example in examples]
    jitter = rng.normal(0, 0.2, (len(said), 2))
    answers = []
    for place, (north, east) in zip(said, jitter.tolist(), strict=True):
        lat_deg, lon_deg = place.latlon_deg
        point = (min(max(lat_deg + north, -90.0), 90.0), (lon_deg + east + 180) % 360 - 180)
        answers.append(Example(place.id, "", point, place.country, place.state, place.city))
    return [chain_of_region(answer, 4) for answer in answers], examples


@pytest.mark.parametrize("preset", ["chain_of_region", "multiscale"])
def test_scoring_100000_completions(benchmark: BenchmarkFixture, preset: str) -> None:
    completions, examples = make_completions()
    assert len(set(completions)) > 0.999 * len(completions)
    config = RewardConfig(preset=preset)
    rewards = find_rewards(config)

    def score() -> Scores:
        nothing = [""] * len(completions)
        ids: list[list[int]] = [[]] * len(completions)
        return score_completions(nothing, completions, examples, ids, rewards, config, group_size=GROUP_SIZE)

    # One round: names once compared are remembered, and the first preset also builds the tables of names (3 s).
    scores = benchmark.pedantic(score, rounds=1)
    assert scores.components["format"].min() == 1.0
    assert 0.2 < float(scores.total.mean()) < 1.2
    assert benchmark.stats.stats.total <= LIMIT_S
