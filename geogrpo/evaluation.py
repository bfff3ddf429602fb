"""Held-out evaluation: greedy and sampled answers of a policy, and what they are worth.

Shapes: N images, K samples.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from geogrpo_kernels import haversine_km

from geogrpo.config import EvaluationConfig
from geogrpo.data.loader import encode_all
from geogrpo.distributed import all_gather_list, all_max, shard_slice
from geogrpo.metrics import Estimate, geoscore, summarize
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.prompts import parse_completion
from geogrpo.regions.index import RegionIndex
from geogrpo.rollout import Engine
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example


@dataclass(frozen=True)
class HeldOutPrediction:
    """Answers for one held-out image; a point is None where the answer has no usable coordinates."""

    id: str
    true_latlon_deg: tuple[float, float]
    predicted_latlon_deg: tuple[float, float] | None
    """Greedy decoding."""
    sampled_latlon_deg: list[tuple[float, float] | None]
    """Independent samples."""
    text: str
    """The greedy completion."""

    def to_json(self) -> dict[str, Any]:
        """The record as written to predictions_<stage>.jsonl."""
        return asdict(self)


def predict_held_out(
    policy: Policy,
    processor: Processor,
    engine: Engine,
    examples: Sequence[Example],
    config: EvaluationConfig,
    *,
    max_new_tokens: int,
    seed: int,
) -> tuple[list[HeldOutPrediction], list[str]]:
    """Answers for every readable image, in order, and a message for each unreadable one; the same on every rank."""
    mine = range(len(examples))[shard_slice(len(examples))]
    predictions: list[HeldOutPrediction] = []
    skipped: list[str] = []
    # As many batches on every rank, some of them empty: sampling gathers parameters together.
    for batch_number in range(math.ceil(all_max(len(mine)) / config.batch_size)):
        positions = mine[batch_number * config.batch_size :][: config.batch_size]
        batch = encode_all(examples, positions, processor.encode_prompt, positions)
        skipped += batch.skipped
        sampling: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "seeds": [stream_seed(seed, Stream.EVALUATION, position) for position in batch.positions],
        }
        greedy = engine.sample(policy, batch.prompts, group_size=1, temperature=0.0, **sampling)
        sampled_texts: list[list[str]] = [[] for _ in batch.prompts]
        if config.num_samples > 0:
            sampled_texts = engine.sample(
                policy, batch.prompts, group_size=config.num_samples, temperature=config.temperature, **sampling
            ).texts
        for prompt, (text,), others in zip(batch.prompts, greedy.texts, sampled_texts, strict=True):
            predictions.append(
                HeldOutPrediction(
                    id=prompt.example.id,
                    true_latlon_deg=prompt.example.latlon_deg,
                    predicted_latlon_deg=parse_completion(text).latlon_deg,
                    sampled_latlon_deg=[parse_completion(other).latlon_deg for other in others],
                    text=text,
                )
            )
    return all_gather_list(predictions), all_gather_list(skipped)


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


def greedy_points(predictions: Sequence[HeldOutPrediction]) -> torch.Tensor:
    """(N, 2) float64, NaN where there is none."""
    return _points([prediction.predicted_latlon_deg for prediction in predictions])


def sampled_points(predictions: Sequence[HeldOutPrediction]) -> torch.Tensor:
    """(N, K, 2) float64, NaN where there is none."""
    return torch.stack([_points(prediction.sampled_latlon_deg) for prediction in predictions])


def true_points(predictions: Sequence[HeldOutPrediction]) -> torch.Tensor:
    """(N, 2) float64."""
    return torch.tensor([prediction.true_latlon_deg for prediction in predictions], dtype=torch.float64)


def _points(points: Sequence[tuple[float, float] | None]) -> torch.Tensor:
    nowhere = (math.nan, math.nan)
    return torch.tensor([point or nowhere for point in points], dtype=torch.float64).view(-1, 2)
