"""What K sampled answers say together: clusters, one answer, and how far the samples lie from it.

A sample without coordinates is elsewhere: in no cluster, and half the Earth from every answer.

Shapes: N images, K samples.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from geogrpo_kernels import EARTH_RADIUS_KM

from geogrpo.metrics import FARTHEST_KM, charged_km
from geogrpo.regions.index import LEVELS, RegionIndex
from geogrpo.uncertainty.sphere import (
    answer_distances_km,
    check_answers,
    check_samples,
    latlon_deg_of,
    moved,
    pairwise_km,
    tangents,
    unit_vectors,
)

LINKAGE_KM = 25.0
"""The field's city threshold."""
BLOCK_PAIRS = 1 << 21
"""Pairs of samples in memory at once: 16 MiB for each array of them."""
# A step must shorten the sum of the distances by a centimetre; samples within a metre count as met.
MAX_STEPS, GAIN_KM, NEAR_KM = 100, 1e-5, 1e-3
LEAST_CURVATURE = 1e-7
"""Per km: a thousandth of a sphere's own, for directions in which the sum of distances is flat."""


@dataclass(frozen=True)
class SampleSummary:
    """What the samples of each image say."""

    answer_latlon_deg: np.ndarray
    """(N, 2) degrees, the geometric median; NaN where no sample has coordinates."""
    expected_km: np.ndarray
    """(N,) mean distance from the answer to the samples."""
    radius_50_km: np.ndarray
    """(N,) around the answer, with half of the samples inside."""
    radius_90_km: np.ndarray
    """(N,) with nine tenths of the samples inside."""
    cluster: np.ndarray
    """(N, K) int64, 0 for the largest; -1 without coordinates."""
    level_confidence: np.ndarray
    """(N, 4) share of the samples in the answer's country, state, county and city; NaN where it is in none."""


def summarize_samples(
    sampled_latlon_deg: np.ndarray, index: RegionIndex, *, linkage_km: float = LINKAGE_KM
) -> SampleSummary:
    """Answer, radii, clusters and confidence of each image.

    Args:
        sampled_latlon_deg: (N, K, 2) degrees, NaN without coordinates.
        index: says which regions points are in.
        linkage_km: see sample_clusters.
    """
    samples = check_samples(sampled_latlon_deg)
    answers = geometric_median(samples)
    radii = sample_radii_km(samples, answers, shares=(0.5, 0.9))
    return SampleSummary(
        answer_latlon_deg=answers,
        expected_km=answer_distances_km(samples, answers).mean(axis=1),
        radius_50_km=radii[:, 0],
        radius_90_km=radii[:, 1],
        cluster=sample_clusters(samples, linkage_km=linkage_km),
        level_confidence=level_confidence(samples, answers, index),
    )


def sample_clusters(sampled_latlon_deg: np.ndarray, *, linkage_km: float = LINKAGE_KM) -> np.ndarray:
    """Clusters of each image's samples by single linkage: two samples at most linkage_km apart are in one cluster,
    and so is what a chain of such pairs connects.

    Args:
        sampled_latlon_deg: (N, K, 2) degrees, NaN without coordinates.
        linkage_km: > 0. A chain may be much longer.
    Returns:
        (N, K) int64 from 0, the largest cluster first and of equal ones the one whose first sample is first; -1
        without coordinates. The partition does not depend on the order of the samples.
    """
    if not linkage_km > 0:
        raise ValueError(f"linkage_km must be > 0, got {linkage_km}.")
    samples = check_samples(sampled_latlon_deg)
    return np.concatenate([_clusters(samples[rows], linkage_km) for rows in _blocks(samples)])


def _clusters(samples: np.ndarray, linkage_km: float) -> np.ndarray:
    num_images, num_samples = samples.shape[:2]
    # NaN compares false, with itself too
    is_linked = pairwise_km(samples) <= linkage_km
    is_place = ~np.isnan(samples[..., 0])
    nobody = np.full((num_images, 1), num_samples)
    first = np.where(is_place, np.arange(num_samples), num_samples)
    while True:
        # The least number of a linked sample, and that one's, until it is the least of the whole cluster
        spread = np.where(is_linked, first[:, None, :], num_samples).min(axis=2)
        spread = np.take_along_axis(np.concatenate([spread, nobody], axis=1), spread, axis=1)
        if (spread == first).all():
            break
        first = spread
    image = np.arange(num_images)[:, None]
    size = np.zeros((num_images, num_samples + 1), dtype=np.int64)
    np.add.at(size, (image, first), 1)
    # Samples without coordinates are no cluster
    size[:, num_samples] = -1
    rank = np.argsort(np.argsort(-size, axis=1, kind="stable"), axis=1, kind="stable")
    return np.where(is_place, rank[image, first], -1)


def best_sample(sampled_latlon_deg: np.ndarray) -> np.ndarray:
    """(N, 2) degrees: of each image's samples the one with the least mean distance to all of them, of equal ones the
    first; NaN where none has coordinates.

    Args:
        sampled_latlon_deg: (N, K, 2) degrees, NaN without coordinates.
    """
    samples = check_samples(sampled_latlon_deg)
    return np.concatenate([_best(samples[rows]) for rows in _blocks(samples)])


def _best(samples: np.ndarray) -> np.ndarray:
    expected = charged_km(pairwise_km(samples)).mean(axis=2)
    expected[np.isnan(samples[..., 0])] = np.inf
    return samples[np.arange(len(samples)), expected.argmin(axis=1)]


def geometric_median(sampled_latlon_deg: np.ndarray) -> np.ndarray:
    """(N, 2) degrees: the point on the sphere with the least mean distance to the samples, by the best of some
    multiples of Weiszfeld's and Newton's step along the sphere, from the best sample on; never worse than that sample.
    NaN where no sample has coordinates.

    On a sphere the mean distance may have several minima: this is the one that the best sample leads to.

    Args:
        sampled_latlon_deg: (N, K, 2) degrees, NaN without coordinates.
    Source: P. T. Fletcher et al., "The geometric median on Riemannian manifolds", 2009; Y. Vardi and C.-H. Zhang, "The
        multivariate L1-median and associated data depth", 2000, for steps that start on a sample.
    """
    samples = check_samples(sampled_latlon_deg)
    return np.concatenate([_median(samples[rows]) for rows in _blocks(samples)])


def _median(samples: np.ndarray) -> np.ndarray:
    start = _best(samples)
    # What is no place pulls nowhere: its weight is 0.
    is_place = ~np.isnan(samples[..., 0])
    vectors = unit_vectors(np.where(is_place[..., None], samples, 0.0))
    point = unit_vectors(np.nan_to_num(start))
    rows = np.flatnonzero(is_place.any(axis=1))
    has_moved = np.zeros(len(samples), dtype=bool)
    for _ in range(MAX_STEPS):
        if len(rows) == 0:
            break
        better, gain_km = _better_point(point[rows], vectors[rows], is_place[rows])
        rows, better = rows[gain_km > GAIN_KM], better[gain_km > GAIN_KM]
        point[rows], has_moved[rows] = better, True
    return np.where(has_moved[:, None], latlon_deg_of(point), start)


def _better_point(point: np.ndarray, vectors: np.ndarray, is_place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best end (N, 3) of some steps from each point (N, 3), and by how many km the sum of distances falls (N,)."""
    directions, distance_km = tangents(point, vectors)
    is_near = distance_km < NEAR_KM
    pulls = (is_place & ~is_near).astype(np.float64)
    pull = (directions * pulls[..., None]).sum(axis=1)
    weiszfeld_km = _weiszfeld_step_km(pull, pulls / np.maximum(distance_km, NEAR_KM), (is_place & is_near).sum(axis=1))
    newton_km = _newton_step_km(pull, point, directions, distance_km, pulls)
    best, best_km = point, (distance_km * is_place).sum(axis=1)
    before_km = best_km
    # Longer and shorter ones for valleys that are flat, or bend
    for step_km in (weiszfeld_km, 8 * weiszfeld_km, newton_km, newton_km / 4):
        end = moved(point, step_km)
        sum_km = (tangents(end, vectors)[1] * is_place).sum(axis=1)
        is_better = sum_km < best_km
        best, best_km = np.where(is_better[:, None], end, best), np.where(is_better, sum_km, best_km)
    return best, before_km - best_km


def _weiszfeld_step_km(pull: np.ndarray, weight: np.ndarray, num_met: np.ndarray) -> np.ndarray:
    """(N, 3). Samples met hold the point back, each with a force of at most 1."""
    strength, total = np.linalg.norm(pull, axis=-1), weight.sum(axis=1)
    share = np.maximum(0.0, 1 - num_met / np.maximum(strength, 1e-300))
    return pull * np.where(total > 0, share / np.where(total > 0, total, 1.0), 0.0)[:, None]


def _newton_step_km(
    pull: np.ndarray, point: np.ndarray, directions: np.ndarray, distance_km: np.ndarray, pulls: np.ndarray
) -> np.ndarray:
    """(N, 3). A distance curves across its direction only, by the cotangent of its angle. Where the sum curves
    downward the step is taken as if it curved upward as much: down the slope, not up to a ridge.
    """
    angle = np.clip(distance_km / EARTH_RADIUS_KM, NEAR_KM / EARTH_RADIUS_KM, math.pi - 1e-6)
    curvature = pulls / (np.tan(angle) * EARTH_RADIUS_KM)
    across = np.eye(3) - point[:, :, None] * point[:, None, :]
    hessian = curvature.sum(axis=1)[:, None, None] * across
    hessian -= np.einsum("nk,nki,nkj->nij", curvature, directions, directions)
    values, axes = np.linalg.eigh(hessian)
    along = np.einsum("nij,ni->nj", axes, pull) / np.maximum(np.abs(values), LEAST_CURVATURE)
    # Upright the matrix is 0, and rounding there must not become a step.
    return np.einsum("nij,njk,nk->ni", across, axes, along)


def sample_radii_km(
    sampled_latlon_deg: np.ndarray, answer_latlon_deg: np.ndarray, *, shares: Sequence[float] = (0.5, 0.9)
) -> np.ndarray:
    """The least radii around the answers that hold given shares of all samples, those without coordinates too.

    Args:
        sampled_latlon_deg: (N, K, 2) degrees, NaN without coordinates.
        answer_latlon_deg: (N, 2) degrees.
        shares: S numbers in (0, 1].
    Returns:
        (N, S) km; FARTHEST_KM where too few samples, or not the answer, have coordinates.
    """
    samples = check_samples(sampled_latlon_deg)
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"shares must be one or more numbers in (0, 1], got {tuple(shares)}.")
    distance_km = np.sort(answer_distances_km(samples, check_answers(answer_latlon_deg, len(samples))), axis=1)
    # 0.07 * 100 is 7.000000000000001
    ranks = [max(math.ceil(share * samples.shape[1] - 1e-9), 1) - 1 for share in shares]
    return np.minimum(distance_km[:, ranks], FARTHEST_KM)


def level_confidence(sampled_latlon_deg: np.ndarray, answer_latlon_deg: np.ndarray, index: RegionIndex) -> np.ndarray:
    """(N, 4) share of all K samples that lie in the answer's country, state, county and city; NaN where the answer is
    in no region of a level.

    Args:
        sampled_latlon_deg: (N, K, 2) degrees, NaN without coordinates.
        answer_latlon_deg: (N, 2) degrees.
        index: says which regions points are in.
    """
    samples = check_samples(sampled_latlon_deg)
    answers = index.lookup(check_answers(answer_latlon_deg, len(samples))).ids
    shares = np.empty((len(samples), len(LEVELS)))
    for rows in _blocks(samples):
        shares[rows] = (index.lookup(samples[rows]).ids == answers[rows, None]).mean(axis=1)
    return np.where(answers >= 0, shares, np.nan)


def _blocks(samples: np.ndarray) -> Iterator[slice]:
    """Rows of few enough pairs of samples."""
    block = max(1, BLOCK_PAIRS // samples.shape[1] ** 2)
    for start in range(0, len(samples), block):
        yield slice(start, start + block)
