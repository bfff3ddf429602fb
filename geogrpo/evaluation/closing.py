"""The closing table of a run, and the floor for ignoring the image.

Shapes: N images, K samples.
"""

from collections.abc import Sequence

import numpy as np
import torch
from geogrpo_kernels import haversine_km

from geogrpo.evaluation.answers import HeldOutPrediction, greedy_points, sampled_points, true_points
from geogrpo.metrics import Estimate, geoscore, summarize
from geogrpo.regions.index import RegionIndex
from geogrpo.rewards.distance import multiscale
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example


def best_constant_guess(examples: Sequence[Example], *, max_points: int = 2000, seed: int = 0) -> np.ndarray:
    """(2,) degrees: the training point with the highest mean GeoScore over the training points.

    It is the floor for ignoring the image. Candidates and scored points are one random draw of `max_points` examples.
    """
    rng = np.random.default_rng(stream_seed(seed, Stream.CONSTANT_GUESS))
    drawn = rng.permutation(len(examples))[:max_points]
    points = np.array([examples[int(i)].latlon_deg for i in drawn], dtype=np.float64)
    pairs = torch.from_numpy(points)
    distance_km = haversine_km(pairs[:, None].expand(-1, len(pairs), -1), pairs.expand(len(pairs), -1, -1)).numpy()
    return points[int(geoscore(distance_km).mean(axis=1).argmax())]


def held_out_summary(
    predicted_latlon_deg: np.ndarray, true_latlon_deg: np.ndarray, index: RegionIndex, *, num_samples: int
) -> dict[str, Estimate]:
    """Every column of the closing table for one row of answers, countries looked up from the coordinates.

    Args:
        predicted_latlon_deg: (N, 2) degrees, NaN without coordinates.
        true_latlon_deg: (N, 2) degrees.
        num_samples: bootstrap resamples.
    """
    distance_km = haversine_km(torch.from_numpy(predicted_latlon_deg), torch.from_numpy(true_latlon_deg)).numpy()
    predicted, truth = index.lookup(predicted_latlon_deg).country, index.lookup(true_latlon_deg).country
    right = (predicted >= 0) & (predicted == truth)
    return summarize(distance_km, right, num_samples=num_samples)


def answer_rewards(predictions: Sequence[HeldOutPrediction]) -> dict[str, np.ndarray]:
    """(N,) multiscale reward of answers, one yardstick whatever GRPO is paid for.

    Args:
        predictions: at least one, all with as many samples.
    Returns:
        `greedy_reward`; with samples also `sampled_reward`, an image's mean, and `best_sample_reward`, its largest.
    """
    truth, sampled = true_points(predictions), sampled_points(predictions)
    found = {"greedy_reward": multiscale(haversine_km(greedy_points(predictions), truth)).numpy()}
    if sampled.numel():
        rewards = multiscale(haversine_km(sampled, truth[:, None].expand_as(sampled)))
        found |= {"sampled_reward": rewards.mean(-1).numpy(), "best_sample_reward": rewards.amax(-1).numpy()}
    return found
