"""Points on the sphere: unit vectors, distances between samples, and the means that a sphere has.

Shapes: N images, K samples.
"""

import numpy as np
import torch
from geogrpo_kernels import EARTH_RADIUS_KM, haversine_km

from geogrpo.metrics import charged_km, usable_points


def check_samples(sampled_latlon_deg: np.ndarray) -> np.ndarray:
    """(N, K, 2) float64, NaN where a sample is no place.

    Raises:
        ValueError: unless these are (N, K, 2) with N, K > 0.
    """
    shape = np.shape(sampled_latlon_deg)
    if len(shape) != 3 or shape[2] != 2 or 0 in shape:
        raise ValueError(f"sampled_latlon_deg must be (N, K, 2) with N, K > 0, got {shape}.")
    return usable_points(sampled_latlon_deg)


def check_answers(answer_latlon_deg: np.ndarray, num_images: int) -> np.ndarray:
    """(N, 2) float64, NaN where an answer is no place.

    Raises:
        ValueError: unless these are (N, 2).
    """
    if np.shape(answer_latlon_deg) != (num_images, 2):
        raise ValueError(f"answer_latlon_deg must be ({num_images}, 2), got {np.shape(answer_latlon_deg)}.")
    return usable_points(answer_latlon_deg)


def distances_km(a_latlon_deg: np.ndarray, b_latlon_deg: np.ndarray) -> np.ndarray:
    """(...) great-circle km between points (..., 2) that broadcast; NaN in, NaN out."""
    a, b = np.broadcast_arrays(a_latlon_deg, b_latlon_deg)
    return haversine_km(torch.from_numpy(a.copy()), torch.from_numpy(b.copy())).numpy()


def pairwise_km(samples: np.ndarray) -> np.ndarray:
    """(N, K, K) km between the samples of each image, NaN for a sample that is no place."""
    return distances_km(samples[:, :, None], samples[:, None])


def answer_distances_km(samples: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """(N, K) km from each image's answer to its samples; half the Earth where either is no place."""
    return charged_km(distances_km(samples, answers[:, None]))


def unit_vectors(latlon_deg: np.ndarray) -> np.ndarray:
    """(..., 3) of points (..., 2) in degrees."""
    lat, lon = np.radians(latlon_deg[..., 0]), np.radians(latlon_deg[..., 1])
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def latlon_deg_of(vectors: np.ndarray) -> np.ndarray:
    """(..., 2) degrees of vectors (..., 3) of any length > 0."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.degrees(np.stack([np.arctan2(z, np.hypot(x, y)), np.arctan2(y, x)], axis=-1))


def tangents(base: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions from a point to others along the sphere, and how far they are.

    Args:
        base: (N, 3) unit vectors.
        points: (N, K, 3) unit vectors.
    Returns:
        (N, K, 3) unit vectors at right angles to base, 0 for base itself and its antipode, and (N, K) km.
    """
    cosine = (points * base[:, None]).sum(axis=-1)
    along = points - cosine[..., None] * base[:, None]
    sine = np.linalg.norm(along, axis=-1)
    has_direction = sine > 1e-15
    directions = np.where(has_direction[..., None], along / np.where(has_direction, sine, 1.0)[..., None], 0.0)
    return directions, EARTH_RADIUS_KM * np.arctan2(sine, cosine)


def moved(base: np.ndarray, step_km: np.ndarray) -> np.ndarray:
    """(N, 3) where a walk along the sphere from base ends; step_km (N, 3) is tangent to it."""
    length = np.linalg.norm(step_km, axis=-1, keepdims=True)
    angle = length / EARTH_RADIUS_KM
    direction = step_km / np.where(length > 0, length, 1.0)
    result = np.cos(angle) * base + np.sin(angle) * direction
    return result / np.linalg.norm(result, axis=-1, keepdims=True)
