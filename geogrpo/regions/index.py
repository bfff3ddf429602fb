"""Which country, state and city a point is in: the nearest GeoNames place by true great-circle distance."""

import os
from functools import cache

import numpy as np

from geogrpo.regions import native
from geogrpo.regions.sources.geonames import Places, load_geonames


def unit_vectors(latlon_deg: np.ndarray) -> np.ndarray:
    """(N, 2) degrees -> (N, 3) float64 points on the unit sphere."""
    lat, lon = np.radians(np.asarray(latlon_deg, dtype=np.float64)).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


class RegionIndex:
    """Nearest named place of any number of points. One index serves labels, rewards and evaluation."""

    def __init__(self, places: Places) -> None:
        if len(places) == 0:
            raise ValueError("a region index needs at least one place.")
        self.places = places
        vectors = unit_vectors(places.latlon_deg)
        # Sorted by height above the equatorial plane: the lookup walks outwards from a point's own height and stops
        # where the difference in height alone exceeds the best distance. Ties go to the lowest place id.
        self._order = np.argsort(vectors[:, 2], kind="stable")
        self._vectors = np.ascontiguousarray(vectors[self._order])

    def nearest(self, latlon_deg: np.ndarray) -> np.ndarray:
        """Index of each point's nearest place.

        Args:
            latlon_deg: (N, 2) degrees; lon wraps. NaN or a latitude beyond the poles gives -1.
        Returns:
            (N,) int64 into `places`, or -1.
        """
        points = np.asarray(latlon_deg, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"latlon_deg must be (N, 2), got {points.shape}.")
        result = np.full(len(points), -1, dtype=np.int64)
        valid = np.isfinite(points).all(axis=1) & (np.abs(points[:, 0]) <= 90)
        num_threads = len(os.sched_getaffinity(0))
        result[valid] = native.nearest(self._vectors, self._order, unit_vectors(points[valid]), num_threads)
        return result

    def country_codes(self, latlon_deg: np.ndarray) -> list[str | None]:
        """ISO 3166-1 alpha-2 code of each point's country, None where the point is not valid. Shape (N, 2) -> N."""
        return [None if place < 0 else self.places.country_code[place] for place in self.nearest(latlon_deg)]


@cache
def default_index() -> RegionIndex:
    """The index over every GeoNames place, built once per process."""
    return RegionIndex(load_geonames())
