"""Answers for images: as written to a file, and as arrays of points.

Shapes: N images, K samples.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geogrpo.parsing import parse_completion
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
    country: str | None = None
    """Names as the greedy completion gives them."""
    state: str | None = None
    city: str | None = None
    problem: str | None = None
    """What is malformed in it (types.Prediction)."""
    sampled_texts: list[str] = field(default_factory=list)
    """The samples' completions."""

    def to_json(self) -> dict[str, Any]:
        """The record as written to a file of predictions."""
        return asdict(self)


def read_held_out(path: Path) -> list[HeldOutPrediction]:
    """The predictions of a file that `to_json` made, in order."""
    with path.open(encoding="utf-8") as lines:
        return [HeldOutPrediction(**json.loads(line)) for line in lines]


def held_out_prediction(example: Example, text: str, sampled_texts: Sequence[str]) -> HeldOutPrediction:
    """What a greedy completion and samples say about an example."""
    said = parse_completion(text)
    return HeldOutPrediction(
        id=example.id,
        true_latlon_deg=example.latlon_deg,
        predicted_latlon_deg=said.latlon_deg,
        sampled_latlon_deg=[parse_completion(other).latlon_deg for other in sampled_texts],
        text=text,
        country=said.country,
        state=said.state,
        city=said.city,
        problem=said.problem,
        sampled_texts=list(sampled_texts),
    )


def greedy_points(predictions: Sequence[HeldOutPrediction]) -> torch.Tensor:
    """(N, 2) float64, NaN where there is none."""
    return _points([prediction.predicted_latlon_deg for prediction in predictions])


def sampled_points(predictions: Sequence[HeldOutPrediction]) -> torch.Tensor:
    """(N, K, 2) float64, NaN where there is none."""
    return torch.stack([_points(prediction.sampled_latlon_deg) for prediction in predictions])


def common_samples(predictions: Sequence[HeldOutPrediction]) -> np.ndarray | None:
    """(N, K, 2) float64 as sampled_points; None where there are no samples, or not as many for each image."""
    numbers = {len(prediction.sampled_latlon_deg) for prediction in predictions}
    return sampled_points(predictions).numpy() if len(numbers) == 1 and numbers != {0} else None


def true_points(predictions: Sequence[HeldOutPrediction]) -> torch.Tensor:
    """(N, 2) float64."""
    return torch.tensor([prediction.true_latlon_deg for prediction in predictions], dtype=torch.float64)


def _points(points: Sequence[tuple[float, float] | None]) -> torch.Tensor:
    nowhere = (math.nan, math.nan)
    return torch.tensor([point or nowhere for point in points], dtype=torch.float64).view(-1, 2)
