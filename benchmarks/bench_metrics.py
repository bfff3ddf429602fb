"""Seconds and peak memory of evaluate_predictions for 3,000 and 5 million answers, OSV-5M's metrics among them.

pytest benchmarks/bench_metrics.py -s        about a minute; the two indices are built once and are not counted in the
seconds, but are in the memory, which is that of the whole process.
"""

import resource
import time

import numpy as np
import pytest

from geogrpo.metrics import evaluate_predictions, osv_index
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames

LIMIT_S = {3_000: 2.0, 5_000_000: 60.0}
"""Images -> seconds allowed."""
LIMIT_GIB = 4.0
ROUNDS = {3_000: 5, 5_000_000: 1}


@pytest.fixture(scope="module")
def indices() -> tuple[RegionIndex, RegionIndex]:
    return RegionIndex.build(places=load_geonames()), osv_index()


def answers(num_images: int) -> tuple[np.ndarray, np.ndarray]:
    """Truths about GeoNames places, answers 1 to 10,000 km off in latitude and longitude, one in fifty without."""
    rng = np.random.default_rng(0)
    places = load_geonames().latlon_deg
    truth = places[rng.integers(0, len(places), num_images)] + rng.normal(0, 0.1, (num_images, 2))
    truth[:, 0] = truth[:, 0].clip(-90, 90)
    spread_deg = 10 ** rng.uniform(-2, 2, (num_images, 1))
    predicted = truth + rng.normal(0, 1, (num_images, 2)) * spread_deg
    predicted[:, 0] = predicted[:, 0].clip(-90, 90)
    predicted[rng.random(num_images) < 0.02] = np.nan
    return predicted, truth


# The small one first: the peak is that of the process so far.
@pytest.mark.parametrize("num_images", sorted(LIMIT_S))
def test_metrics(benchmark, indices, num_images) -> None:  # type: ignore[no-untyped-def]
    index, osv = indices
    predicted, truth = answers(num_images)
    seconds = []

    def run() -> None:
        started = time.perf_counter()
        evaluate_predictions(predicted, truth, index=index, osv_index=osv)
        seconds.append(time.perf_counter() - started)

    benchmark.pedantic(run, rounds=ROUNDS[num_images], iterations=1, warmup_rounds=0)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    benchmark.extra_info |= {"seconds": max(seconds), "peak_gib": round(peak_gib, 2)}
    print(f"\n{num_images:,} answers: slowest {max(seconds):.2f} s, process peak {peak_gib:.2f} GiB")
    assert max(seconds) < LIMIT_S[num_images]
    assert peak_gib < LIMIT_GIB
