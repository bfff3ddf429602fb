"""Answers to images, made by hand."""

from typing import Any

from geogrpo.evaluation import HeldOutPrediction
from geogrpo.types import Example

PARIS, LYON, LIMA, NAIROBI, TOKYO = (48.86, 2.35), (45.76, 4.84), (-12.05, -77.04), (-1.29, 36.82), (35.68, 139.69)


def answer(
    example_id: str, truth: tuple[float, float], point: tuple[float, float] | None, *samples: Any, **said: Any
) -> HeldOutPrediction:
    """One image: where it is, the greedy answer, and the samples."""
    return HeldOutPrediction(example_id, truth, point, list(samples), said.pop("text", ""), **said)


def by_id(predictions: list[HeldOutPrediction], **columns: Any) -> dict[str, Example]:
    """The examples of the predictions, all with these columns."""
    return {p.id: Example(p.id, "", p.true_latlon_deg, columns=columns) for p in predictions}
