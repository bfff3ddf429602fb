"""What ignoring the pictures earns on the images at hand: the best constant answers, and places drawn by population.

Shapes: N images, C points.
"""

from dataclasses import dataclass

import numpy as np

from geogrpo.metrics import ConstantFloor, Estimate, Protocol, constant_floors, random_floors
from geogrpo.regions.index import RegionIndex
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.seeds import Stream, stream_seed

MAX_CANDIDATES, MAX_IMAGES, NUM_PRIOR_POINTS = 1000, 20_000, 1000
"""Bounds of the work, whatever the number of images: 40 million distances take 2.5 s on one core."""


@dataclass(frozen=True)
class Floors:
    """What answers earn that do not depend on the picture."""

    num_images: int
    """That they were measured on."""
    num_candidates: int
    """True points tried as the answer to all of them."""
    constant: dict[str, ConstantFloor]
    """Metric -> the best of those; each metric has its own. Chosen on the images that it is measured on."""
    random: dict[str, float]
    """Metric -> its expectation for a place drawn by population."""

    def estimates(self) -> dict[str, dict[str, Estimate]]:
        """ "constant" and "random" -> metric -> value, without intervals, as rows of a table."""
        rows = {"constant": {name: floor.value for name, floor in self.constant.items()}, "random": self.random}
        return {
            row: {name: Estimate(value, np.nan, np.nan) for name, value in values.items()}
            for row, values in rows.items()
        }


def measure_floors(
    true_latlon_deg: np.ndarray, index: RegionIndex, *, protocol: Protocol | None = None, seed: int = 0
) -> Floors:
    """The floors of a test set, on a draw of MAX_IMAGES of it where it is larger.

    Args:
        true_latlon_deg: (N, 2) degrees.
        seed: of the draws.
    """
    rng = np.random.default_rng(stream_seed(seed, Stream.CONSTANT_GUESS))
    truth = _drawn(true_latlon_deg, MAX_IMAGES, rng)
    candidates = _drawn(truth, MAX_CANDIDATES, rng)
    return Floors(
        num_images=len(truth),
        num_candidates=len(candidates),
        constant=constant_floors(candidates, truth, index=index, protocol=protocol),
        random=random_floors(population_points(NUM_PRIOR_POINTS), truth, index=index, protocol=protocol),
    )


def _drawn(points: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return points if len(points) <= count else points[rng.choice(len(points), count, replace=False)]


def population_points(count: int) -> np.ndarray:
    """(count, 2) degrees of GeoNames places as likely as they have people, as even as can be: every
    1 / count-th of all people, in order of country and latitude, gives the place where it lives.

    A random draw of as many would be right on average only; this one has each country's share to 1 / count.
    """
    places = load_geonames()
    order = np.lexsort((places.latlon_deg[:, 0], np.array(places.country_code)))
    people = places.population[order].cumsum()
    # In the middle of each part
    chosen = np.searchsorted(people, (np.arange(count) + 0.5) * people[-1] / count, side="right")
    return places.latlon_deg[order[chosen]]
