"""What the compiled index computes, written out in NumPy: every region and every place against every point.

Shapes: N points, K rings, V vertices, P places.
"""

import numpy as np

from geogrpo.regions.build import fixed_point


def polygon_regions(
    points_latlon_deg: np.ndarray, vertices: np.ndarray, ring_offset: np.ndarray, ring_region: np.ndarray
) -> np.ndarray:
    """The first region that holds each point, by the even-odd rule over the region's rings.

    A ray runs from the point to the west. It crosses an edge that has one end above the point and one at its height or
    below, if the crossing is at the point or west of it. All of it in int64: exact.

    Args:
        points_latlon_deg: (N, 2) degrees, valid, lon in [-180, 180).
        vertices: (V, 2) fixed point x, y; rings closed.
        ring_offset: (K + 1,).
        ring_region: (K,) region of each ring.
    Returns:
        (N,) int64 region, -1 for none.
    """
    x, y = fixed_point(points_latlon_deg).astype(np.int64).T
    x, y = x % 3_600_000_000, np.minimum(y, 1_800_000_000 - 1)
    inside = np.zeros((int(ring_region.max()) + 1 if len(ring_region) else 0, len(x)), dtype=bool)
    for ring, region in enumerate(ring_region.tolist()):
        corners = vertices[ring_offset[ring] : ring_offset[ring + 1]].astype(np.int64)
        lower = np.where((corners[:-1, 1] <= corners[1:, 1])[:, None], corners[:-1], corners[1:])
        upper = corners[:-1] + corners[1:] - lower
        for (ax, ay), (bx, by) in zip(lower.tolist(), upper.tolist(), strict=True):
            straddles = (ay <= y) & (y < by)
            inside[region] ^= straddles & ((bx - ax) * (y - ay) <= (x - ax) * (by - ay))
    return np.where(inside.any(axis=0), inside.argmax(axis=0), -1) if len(inside) else np.full(len(x), -1)


def nearest_places(point_vectors: np.ndarray, place_vectors: np.ndarray) -> np.ndarray:
    """Number of the place at the smallest distance, the lower one on a tie. (N, 3), (P, 3) float64 -> (N,) int64."""
    best = np.empty(len(point_vectors), dtype=np.int64)
    for row, point in enumerate(point_vectors):
        difference = place_vectors - point
        # The order of the compiled sum: a tie is one to the last bit.
        distance2 = difference[:, 0] ** 2 + difference[:, 1] ** 2 + difference[:, 2] ** 2
        best[row] = int(distance2.argmin())
    return best
