"""Builds the page: one HTML file with everything in it.

Completions, ids and file names are somebody else's text. It reaches the page in two ways only: escaped as text, or in
JSON in which no "<" is left; page.js shows it through textContent alone. The Content-Security-Policy admits the page's
own script and style by their hashes, pictures from the page itself, and no address at all.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from geogrpo.metrics import FARTHEST_KM, THRESHOLDS_KM
from geogrpo.report.page.completions import completions_section
from geogrpo.report.page.content import Calibration, Groups, PageExample, SampledGroup
from geogrpo.report.page.pieces import cut, escaped, framed, jpeg, thumbnail
from geogrpo.report.page.plots import error_histogram, group_bars, reliability_diagram, risk_coverage
from geogrpo.report.tables import MISSING, MetricRow, TableColumn, TextTable, formatted, shown_columns
from geogrpo.types import Example

MAX_NARROW_CHARACTERS = 70
"""In a row: two tables of so many fit beside each other on a wide screen."""
WORLD_SIZE = (2048, 1024)
SCRIPTS = ("map.js", "explorer.js", "page.js")


def write_page(
    path: str | Path,
    *,
    title: str,
    summary: Sequence[MetricRow],
    examples: Sequence[PageExample],
    config: Mapping[str, Any],
    columns: Mapping[str, TableColumn] | None = None,
    summary_note: str = "",
    calibration: Calibration | None = None,
    tables: Sequence[TextTable] = (),
    groups: Sequence[Groups] = (),
    completions: Sequence[SampledGroup] = (),
    world: Image.Image | None = None,
) -> None:
    """Write the report of a run to `path`; it opens in a browser from a disk or a mail, without a network.

    Args:
        title: of the page.
        summary: rows of the summary table, such as the best constant guess and the answers after each stage.
        examples: of the map and the list; the histogram is over all of them. Files in them may be missing or broken:
            the page then says so in the picture's place.
        config: plain nested values, shown as YAML.
        columns: of the summary and the groups; None for tables.COLUMNS.
        summary_note: said below the summary table.
        calibration: for the reliability diagram and the risk-coverage curve; None for neither.
        tables: further ones, below the plots.
        groups: one table and one plot each.
        completions: sampled while training, shown by step; none for no such section.
        world: equirectangular picture of the whole Earth under the map; None for the outline of the land alone.
    Raises:
        ValueError: when there are no examples or no summary rows.
    """
    if not examples:
        raise ValueError("examples must hold at least one example, got none: nothing was evaluated.")
    land = _asset("land.json")
    script, style = "\n".join(map(_asset, SCRIPTS)), _asset("page.css")
    distance_km = np.array([math.nan if example.distance_km is None else example.distance_km for example in examples])
    plots = {"Error": error_histogram(distance_km)}
    if calibration is not None:
        plots |= {"Reliability": reliability_diagram(calibration), "Risk and coverage": risk_coverage(calibration)}
    plots |= {group.title: group_bars(group) for group in groups}
    data = {
        "farthest_km": FARTHEST_KM,
        "thresholds_km": THRESHOLDS_KM,
        "world": None if world is None else jpeg(world.convert("RGB").resize(WORLD_SIZE), 70),
        "examples": [_example_record(example) for example in examples],
    }
    parts = {
        "policy": _policy(script, style),
        "title": escaped(title),
        "style": style,
        "lede": _lede(distance_km),
        "summary": _table(summary, columns),
        "summary_note": _note(summary_note),
        "plots": "".join(
            f"<figure><figcaption>{escaped(name)}</figcaption>{svg}</figure>" for name, svg in plots.items()
        ),
        "tables": "".join(map(_text_table, tables)),
        "groups": "".join(
            f"<section><h2>{escaped(group.title)}</h2>{_table(group.rows, columns)}</section>" for group in groups
        ),
        "completions": completions_section(completions),
        "config": escaped(yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True)),
        "land_source": escaped(json.loads(land)["source"]),
        "land": land,
        "data": _embedded(data),
        "script": script,
    }
    # In one pass: what was put in is never searched for placeholders.
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("page.html"))
    Path(path).write_text(page, encoding="utf-8")


def _asset(name: str) -> str:
    return (resources.files("geogrpo.report.page") / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _embedded(data: Any) -> str:
    """JSON that no HTML parser takes for the end of its script."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _lede(distance_km: np.ndarray) -> str:
    num_missing = int(np.isnan(distance_km).sum())
    median = np.median(np.where(np.isnan(distance_km), FARTHEST_KM, distance_km))
    parts = [f"{len(distance_km):,} images", f"median error {median:,.0f} km"]
    return " · ".join([*parts, f"{num_missing:,} without coordinates"])


def _note(text: str) -> str:
    return f'<p class="note">{escaped(text)}</p>' if text else ""


def _text_table(table: TextTable) -> str:
    num_characters = max(len("".join(row)) for row in [table.header, *table.rows])
    width = "wide" if num_characters > MAX_NARROW_CHARACTERS else "narrow"
    numbers = "".join(f'<th class="number" scope="col">{escaped(title)}</th>' for title in table.header[1:])
    lines = [
        f'<tr><th scope="row">{escaped(row[0])}</th>'
        + "".join(f'<td class="number">{escaped(cell)}</td>' for cell in row[1:])
        + "</tr>"
        for row in table.rows
    ]
    body = framed(f"<th>{escaped(table.header[0])}</th>{numbers}", lines)
    return f'<section class="{width}"><h2>{escaped(table.title)}</h2>{body}{_note(table.note)}</section>'


def _table(rows: Sequence[MetricRow], wanted: Mapping[str, TableColumn] | None = None) -> str:
    columns = shown_columns(rows, wanted)
    has_counts = any(row.num_images is not None for row in rows)
    titles = ["images"] * has_counts + [column.title for column in columns.values()]
    header = "".join(f'<th class="number" scope="col">{escaped(title)}</th>' for title in titles)
    lines = []
    for row in rows:
        cells = [MISSING if row.num_images is None else f"{row.num_images:,}"] * has_counts
        for key, column in columns.items():
            estimate = row.estimate(key)
            cells.append(MISSING)
            if estimate is not None:
                value, *ends = formatted(estimate, column.form)
                cells[-1] = value + (f"<small>{' – '.join(ends)}</small>" if ends else "")
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row">{escaped(row.name)}</th>{numbers}</tr>')
    return framed(f"<th></th>{header}", lines)


def _example_record(example: PageExample) -> dict[str, Any]:
    image, image_problem = None, None
    if example.image is not None:
        image, image_problem = thumbnail(Example(example.id, example.image, example.true_latlon_deg))
    return {
        "id": cut(example.id),
        "image": image,
        "image_problem": image_problem,
        "truth": _rounded(example.true_latlon_deg),
        "predicted": _rounded(example.predicted_latlon_deg),
        "distance_km": None if example.distance_km is None else round(example.distance_km, 3),
        "country": _optional_text(example.country),
        "continent": _optional_text(example.continent),
        "text": cut(example.text),
        "thinking": cut(example.thinking),
        "names": [
            [cut(level), _optional_text(true), _optional_text(predicted)]
            for level, (true, predicted) in example.names.items()
        ],
        "rewards": [
            [cut(name), round(value, 4) if math.isfinite(value) else None] for name, value in example.rewards.items()
        ],
        "facts": [[cut(term), cut(value)] for term, value in example.facts.items()],
        "radius_50_km": example.radius_50_km,
        "radius_90_km": example.radius_90_km,
        "problem": _optional_text(example.problem),
    }


def _rounded(latlon_deg: tuple[float, float] | None) -> list[float] | None:
    return None if latlon_deg is None else [round(float(degrees), 5) for degrees in latlon_deg]


def _optional_text(text: str | None) -> str | None:
    return None if text is None else cut(text)


def _plain(value: Any) -> Any:
    """Mappings, lists and scalars as YAML knows them; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
