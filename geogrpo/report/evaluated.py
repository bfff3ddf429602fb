"""The files of an evaluation for readers: one page, its plots as PNGs, the table in Markdown and LaTeX.

Shapes: N images, K samples.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from geogrpo_kernels import haversine_km
from PIL import Image

from geogrpo.config import RunConfig
from geogrpo.config_files import config_to_dict
from geogrpo.evaluation import HeldOutPrediction, greedy_points, sampled_points, true_points
from geogrpo.evaluation.scores import TRACKS
from geogrpo.metrics import CONTINENT_OF, Estimate, Metrics
from geogrpo.parsing import parse_completion
from geogrpo.regions.index import RegionIndex
from geogrpo.report.page.content import Calibration, Groups, PageExample
from geogrpo.report.page.figures import write_figures
from geogrpo.report.page.page import write_page
from geogrpo.report.tables import MetricRow, latex_table, markdown_table
from geogrpo.types import Example
from geogrpo.uncertainty import level_confidence, reliability, risk_coverage, sample_radii_km

MAX_EXAMPLES = 1000
"""On the page; it says how many there are when that is not all."""


def write_evaluation(
    folder: Path,
    *,
    predictions: Sequence[HeldOutPrediction],
    examples: Mapping[str, Example],
    scored: Mapping[str, Metrics],
    config: RunConfig,
    index: RegionIndex,
    world: Image.Image | None,
) -> None:
    """Write report.html, figures/, metrics.md and metrics.tex.

    Args:
        examples: by id, of every prediction.
        scored: from evaluation.scores.score_tracks.
        index: says which country a truth is in.
        world: under the page's map; None for the outline of the land.
    """
    rows = [MetricRow(TRACKS.get(track, track), scored[track].estimates) for track in scored]
    (folder / "metrics.md").write_text(markdown_table(rows) + "\n", encoding="utf-8")
    (folder / "metrics.tex").write_text(latex_table(rows) + "\n", encoding="utf-8")
    truth, answers = true_points(predictions), greedy_points(predictions)
    distance_km = haversine_km(answers, truth).numpy()
    samples = _samples(predictions)
    calibration = None if samples is None else _calibration(answers.numpy(), samples, truth.numpy(), distance_km, index)
    groups = [_continents(next(iter(scored.values())))]
    shown = predictions[:MAX_EXAMPLES]
    cut = f" (the first {len(shown):,} shown)" if len(shown) < len(predictions) else ""
    write_page(
        folder / "report.html",
        title=f"Evaluation on {len(predictions):,} images{cut}",
        summary=rows,
        examples=_page_examples(shown, examples, distance_km, samples, index),
        config=config_to_dict(config),
        calibration=calibration,
        groups=groups,
        world=world,
    )
    write_figures(folder / "figures", distance_km=distance_km, calibration=calibration, groups=groups)


def _samples(predictions: Sequence[HeldOutPrediction]) -> np.ndarray | None:
    """(N, K, 2) degrees; None where there are none, or not as many for each image."""
    numbers = {len(prediction.sampled_latlon_deg) for prediction in predictions}
    return sampled_points(predictions).numpy() if len(numbers) == 1 and numbers != {0} else None


def _calibration(
    answers: np.ndarray, samples: np.ndarray, truth: np.ndarray, distance_km: np.ndarray, index: RegionIndex
) -> Calibration:
    """Of the country: the share of samples in the answer's country, against whether that is the truth's."""
    # An answer in no country is no statement of confidence in one.
    confidence = np.nan_to_num(level_confidence(samples, answers, index)[:, 0])
    found, there = index.lookup(answers).country, index.lookup(truth).country
    is_right = (found >= 0) & (found == there)
    bins = reliability(confidence, is_right)
    curve = risk_coverage(confidence, (~is_right).astype(np.float64))
    return Calibration(
        stated=bins.confidence,
        observed=bins.accuracy,
        counts=bins.count,
        coverage=curve.coverage,
        risk=curve.risk,
        risk_name="share in the wrong country",
    )


def _continents(metrics: Metrics) -> Groups:
    rows = [
        MetricRow(
            name, {key: Estimate(value, math.nan, math.nan) for key, value in group.values.items()}, group.num_images
        )
        for name, group in metrics.by_continent.items()
    ]
    return Groups("Continents of the truth", rows)


def _page_examples(
    predictions: Sequence[HeldOutPrediction],
    examples: Mapping[str, Example],
    distance_km: np.ndarray,
    samples: np.ndarray | None,
    index: RegionIndex,
) -> list[PageExample]:
    answers, truth = greedy_points(predictions).numpy(), true_points(predictions).numpy()
    found = index.lookup(truth)
    names, codes = index.names(found.ids), index.codes(found.country)
    radii = None if samples is None else sample_radii_km(samples[: len(predictions)], answers)
    shown = []
    for i, prediction in enumerate(predictions):
        has_point = prediction.predicted_latlon_deg is not None
        country, state, _, city = names[i].tolist()
        example = examples[prediction.id]
        radius_50_km, radius_90_km = (None, None) if radii is None or not has_point else map(_finite, radii[i])
        shown.append(
            PageExample(
                id=prediction.id,
                image=example.image if example.image != "" else None,
                true_latlon_deg=prediction.true_latlon_deg,
                predicted_latlon_deg=prediction.predicted_latlon_deg,
                distance_km=float(distance_km[i]) if has_point else None,
                country=country,
                continent=CONTINENT_OF.get(codes[i] or ""),
                text=prediction.text,
                thinking=parse_completion(prediction.text).thinking or "",
                names={
                    "country": (example.country or country, prediction.country),
                    "state": (example.state or state, prediction.state),
                    "city": (example.city or city, prediction.city),
                },
                radius_50_km=radius_50_km,
                radius_90_km=radius_90_km,
                problem=prediction.problem,
            )
        )
    return shown


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


__all__ = ["write_evaluation"]
