"""Seconds and peak memory of everything that an evaluation computes from answers, OSV-5M's metrics among them.

pytest benchmarks/bench_metrics.py -s        about a minute; the two indices and the tables of names are built once and
are not counted in the seconds, but are in the memory, which is that of the whole process.
"""

import resource
import time
from collections.abc import Callable

import numpy as np
import pytest

from geogrpo.evaluation import HeldOutPrediction
from geogrpo.evaluation.findings import Measures, measure
from geogrpo.evaluation.floors import measure_floors
from geogrpo.metrics import Protocol, evaluate_predictions, osv_index
from geogrpo.regions.index import RegionIndex, default_index
from geogrpo.regions.names import locate
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.types import Example

LIMIT_S = {3_000: 2.0, 5_000_000: 60.0}
"""Images -> seconds allowed."""
LIMIT_GIB = 4.0
ROUNDS = 5
NUM_SAMPLES = 4
"""As evaluation.num_samples has it by default."""


@pytest.fixture(scope="module")
def indices() -> tuple[RegionIndex, RegionIndex]:
    locate("France", None, "Paris")
    return default_index(), osv_index()


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


def predictions(num_images: int, index: RegionIndex) -> list[HeldOutPrediction]:
    """The same as a model writes them: with names, and samples about the answer."""
    points, truth = answers(num_images)
    names = index.names(index.lookup(points).ids)
    rng = np.random.default_rng(1)
    samples = points[:, None] + rng.normal(0, 1, (num_images, NUM_SAMPLES, 2))
    samples[..., 0] = samples[..., 0].clip(-90, 90)
    return [
        HeldOutPrediction(
            id=f"image-{i}",
            true_latlon_deg=tuple(truth[i].tolist()),
            predicted_latlon_deg=_point(points[i]),
            sampled_latlon_deg=[_point(sample) for sample in samples[i]],
            text="",
            country=names[i, 0],
            state=names[i, 1],
            city=names[i, 3],
        )
        for i in range(num_images)
    ]


def _point(latlon_deg: np.ndarray) -> tuple[float, float] | None:
    return None if np.isnan(latlon_deg).any() else tuple(latlon_deg.tolist())


# The small one first: the peak is that of the process so far.
def test_all_of_metrics_json_for_3000_predictions(benchmark, indices) -> None:  # type: ignore[no-untyped-def]
    """Four tracks, floors, uncertainty, OSV-5M's accuracy."""
    said = predictions(3_000, indices[0])
    examples = {p.id: Example(p.id, "", p.true_latlon_deg) for p in said}
    measures = Measures(Protocol(), bootstrap_samples=2000, seed=0, use_osv=True)
    within_limits(benchmark, 3_000, ROUNDS, lambda: measure(said, examples, measures, indices[0]))


def test_metrics_and_floors_for_5_million_answers(benchmark, indices) -> None:  # type: ignore[no-untyped-def]
    index, osv = indices
    predicted, truth = answers(5_000_000)

    def run() -> None:
        evaluate_predictions(predicted, truth, index=index, osv_index=osv)
        measure_floors(truth, index)

    within_limits(benchmark, 5_000_000, 1, run)


def within_limits(benchmark, num_images: int, rounds: int, run: Callable[[], object]) -> None:  # type: ignore[no-untyped-def]
    """Time `run`; fails when the slowest round, or the process's memory, is beyond its limit."""
    seconds = []

    def timed() -> None:
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)

    benchmark.pedantic(timed, rounds=rounds, iterations=1, warmup_rounds=0)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    benchmark.extra_info |= {"seconds": max(seconds), "peak_gib": round(peak_gib, 2)}
    print(f"\n{num_images:,} answers: slowest {max(seconds):.2f} s, process peak {peak_gib:.2f} GiB")
    assert max(seconds) < LIMIT_S[num_images]
    assert peak_gib < LIMIT_GIB
