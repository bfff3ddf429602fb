"""The files of an evaluation for readers: one page, its plots as PNGs, its tables in Markdown and LaTeX.

Shapes: N images.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from geogrpo_kernels import haversine_km
from PIL import Image

from geogrpo.evaluation import HeldOutPrediction, greedy_points, true_points
from geogrpo.evaluation.answers import common_samples
from geogrpo.evaluation.comparison import Comparison
from geogrpo.evaluation.confidence import Uncertainty, image_records, measure_uncertainty
from geogrpo.evaluation.floors import Floors
from geogrpo.evaluation.scores import TRACKS
from geogrpo.metrics import CONTINENT_OF, Estimate, Metrics
from geogrpo.parsing import parse_completion
from geogrpo.regions.index import RegionIndex
from geogrpo.report.finding_tables import comparison_tables, floor_note, floor_rows, region_table, uncertainty_tables
from geogrpo.report.page.content import Calibration, Groups, PageExample, SampledGroup
from geogrpo.report.page.figures import write_figures
from geogrpo.report.page.page import write_page
from geogrpo.report.tables import (
    MetricRow,
    latex_section,
    latex_table,
    main_columns,
    markdown_section,
    markdown_table,
)
from geogrpo.types import Example
from geogrpo.uncertainty import reliability, risk_coverage, sample_radii_km

MAX_EXAMPLES = 1000
"""On the page; it says how many there are when that is not all."""


def write_evaluation(
    folder: Path,
    *,
    predictions: Sequence[HeldOutPrediction],
    examples: Mapping[str, Example],
    scored: Mapping[str, Metrics],
    config: Mapping[str, Any],
    index: RegionIndex,
    world: Image.Image | None,
    comparator: str = "<=",
    floors: Floors | None = None,
    uncertainty: Uncertainty | None = None,
    comparison: Comparison | None = None,
    rewards: Sequence[Mapping[str, float]] = (),
    completions: Sequence[SampledGroup] = (),
) -> None:
    """Write report.html, figures/, metrics.md and metrics.tex.

    Args:
        examples: by id, of every prediction.
        config: of the run, as plain values.
        scored: from evaluation.scores.score_tracks.
        index: says which country a truth is in.
        world: under the page's map; None for the outline of the land.
        comparator: of the thresholds, a key of metrics.COMPARATORS.
        floors: None for none.
        uncertainty: from evaluation.confidence; None measures it here, where there are samples.
        comparison: with another evaluation; None for none.
        rewards: component -> reward for each prediction, at least for the first MAX_EXAMPLES; empty for none.
        completions: sampled while training; empty for none.
    """
    uncertainty = uncertainty or measure_uncertainty(predictions, index)
    columns = main_columns(comparator)
    rows = [MetricRow(TRACKS[track], metrics.estimates) for track, metrics in scored.items()]
    rows += floor_rows(floors) if floors else []
    tables = [region_table(rows)]
    tables += uncertainty_tables(uncertainty) if uncertainty else []
    tables += comparison_tables(comparison, comparator) if comparison else []
    markdown = [markdown_table(rows, columns), *map(markdown_section, tables)]
    (folder / "metrics.md").write_text("\n".join(markdown), encoding="utf-8")
    latex = [latex_table(rows, columns), *map(latex_section, tables)]
    (folder / "metrics.tex").write_text("\n".join(latex), encoding="utf-8")
    distance_km = haversine_km(greedy_points(predictions), true_points(predictions)).numpy()
    calibration = _calibration(uncertainty) if uncertainty else None
    groups = [_continents(next(iter(scored.values())))]
    shown = predictions[:MAX_EXAMPLES]
    cut = f" (the first {len(shown):,} shown)" if len(shown) < len(predictions) else ""
    write_page(
        folder / "report.html",
        title=f"Evaluation on {len(predictions):,} images{cut}",
        summary=rows,
        columns=columns,
        summary_note=floor_note(floors, len(predictions)) if floors else "",
        examples=_page_examples(shown, examples, distance_km, uncertainty, rewards, index),
        config=config,
        calibration=calibration,
        tables=tables,
        groups=groups,
        completions=completions,
        world=world,
    )
    write_figures(folder / "figures", distance_km=distance_km, calibration=calibration, groups=groups)


def _calibration(uncertainty: Uncertainty) -> Calibration | None:
    """Of the consensus's country; None where no consensus is in one."""
    confidence, is_right = uncertainty.outcomes.confidence[:, 0], uncertainty.outcomes.is_right[:, 0]
    if "country" not in uncertainty.levels:
        return None
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
    uncertainty: Uncertainty | None,
    rewards: Sequence[Mapping[str, float]],
    index: RegionIndex,
) -> list[PageExample]:
    truth = true_points(predictions).numpy()
    found = index.lookup(truth)
    names, codes = index.names(found.ids), index.codes(found.country)
    radii = _radii(predictions)
    records = image_records(uncertainty, predictions, index) if uncertainty else itertools.repeat(None)
    shown = []
    for i, (prediction, record) in enumerate(zip(predictions, records, strict=False)):
        has_point = prediction.predicted_latlon_deg is not None
        country, state, _, city = names[i].tolist()
        example = examples[prediction.id]
        radius_50_km, radius_90_km = radii[i] if has_point else (None, None)
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
                rewards=rewards[i] if rewards else {},
                radius_50_km=radius_50_km,
                radius_90_km=radius_90_km,
                facts=_facts_of(record) if record else {},
                problem=prediction.problem,
            )
        )
    return shown


def _radii(predictions: Sequence[HeldOutPrediction]) -> list[tuple[float | None, float | None]]:
    """Of each greedy answer, with half and nine tenths of the samples inside; None without samples."""
    samples = common_samples(predictions)
    if samples is None:
        return [(None, None)] * len(predictions)
    radii = sample_radii_km(samples, greedy_points(predictions).numpy())
    return [(radius_50_km, radius_90_km) for radius_50_km, radius_90_km in radii.tolist()]


def _facts_of(record: Mapping[str, Any]) -> dict[str, str]:
    """What the samples say of one image, in words.

    Args:
        record: from image_records.
    """
    point, level = record["consensus_latlon_deg"], record["backed_off_level"]
    facts = {"Consensus of the samples": "none" if point is None else f"{point[0]:.3f}, {point[1]:.3f}"}
    facts["Clusters"] = ", largest ".join([str(record["num_clusters"]), *(f"{c:.0%}" for c in record["clusters"][:1])])
    if record["conformal_radius_km"] is not None:
        facts["Conformal radius, 90 %"] = f"{record['scaled_conformal_radius_km']:,.0f} km"
        sure = "" if level is None else f" ({level}, {record['confidence'][level]:.0%})"
        facts["Backed off to"] = f"{record['backed_off_name'] or 'no answer'}{sure}"
    return facts


__all__ = ["write_evaluation"]
