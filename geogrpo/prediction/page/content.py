"""What the page says about a photograph, as HTML. A model's words reach it escaped, and in no other way."""

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image

from geogrpo.prediction.estimate import SHOWN_LEVELS
from geogrpo.prediction.page.world_map import world_map
from geogrpo.prediction.text import (
    NONE,
    agreement_text,
    km_text,
    place_text,
    point_text,
    radii_text,
)
from geogrpo.report.tables import clean_text

PREVIEW_SIDE = 640
"""Longest side in pixels of the picture on the page."""
JPEG_QUALITY = 85


def escaped(text: str) -> str:
    """The text as HTML. Gradio's HTML component is a template, to which "{{" and "${" would mean something."""
    return html.escape(clean_text(text)).replace("{", "&#123;").replace("$", "&#36;")


def head_html(sent_to: str | None, *, is_kept: bool) -> str:
    """The title, and what becomes of a photograph: truly, whatever the options.

    Args:
        sent_to: address of the model's server; None where the model is in the page's own process.
    """
    where = "answered on the machine that serves this page" if sent_to is None else f"sent to {sent_to}"
    kept = "kept by this page without its metadata" if is_kept else "not kept by this page"
    return (
        '<div class="gg-head"><h1>Where was this taken?</h1><p>The model sees the pixels alone. A position in the'
        " file's own metadata is only compared with the answer afterwards. The picture is"
        f" {escaped(where)}, and {kept}.</p></div>"
    )


def preview_html(picture: Image.Image) -> str:
    """The RGB picture, made smaller."""
    small = picture.copy()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=JPEG_QUALITY)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="gg-preview" alt="The photograph" src="data:image/jpeg;base64,{data}">'


def waiting_html(text: str) -> str:
    """What is shown while a model answers."""
    return f'<p class="gg-wait" role="status">{escaped(text)}</p>'


def problem_html(text: str) -> str:
    """What went wrong."""
    return f'<p class="gg-problem" role="alert">{escaped(text)}</p>'


def said_html(text: str, *, is_whole: bool) -> str:
    """The model's words so far."""
    # Half of a character that takes several tokens
    shown = text if is_whole else text.rstrip("\N{REPLACEMENT CHARACTER}")
    cursor = "" if is_whole else '<span class="gg-cursor"></span>'
    return f'<h3>In the model\'s words</h3><pre class="gg-said">{escaped(shown)}{cursor}</pre>'


def answer_html(record: Mapping[str, Any]) -> str:
    """Chain, point, radii, and the photograph's own position."""
    rows = [(level.title(), escaped(record[level] or NONE)) for level in SHOWN_LEVELS if level in record]
    if "granularity" not in record:
        rows += _point_rows(record)
    elif record["agreement"]:
        rows.append(("Agreement", escaped(agreement_text(record["agreement"], record))))
    rows += _truth_rows(record)
    body = "".join(f"<dt>{escaped(name)}</dt><dd>{value}</dd>" for name, value in rows)
    return f'<dl class="gg-answer">{body}</dl>'


def _point_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    point = NONE if record["latlon_deg"] is None else point_text(record["latlon_deg"])
    source = ", found by the names" if record["is_from_names"] else ""
    rows = [("Coordinates", escaped(point + source))]
    if record["num_samples"]:
        rows.append(("Radius", escaped(radii_text(record))))
        if record["agreement"]:
            rows.append(("Agreement", escaped(agreement_text(record["agreement"], record["regions"]))))
    if record["problem"] is not None:
        rows.append(("Problem", escaped(record["problem"])))
    return rows


def _truth_rows(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    truth = record["truth"]
    if truth is None:
        problem = record.get("gps_problem")
        text = "none in the file" if problem is None else f"cannot be read: {problem}"
        return [("Own GPS", escaped(text))]
    if "is_right" in truth:
        names = ", ".join(truth[level] or NONE for level in reversed(SHOWN_LEVELS) if level in truth)
        return [("Own GPS", escaped(f"{names}: {'right' if truth['is_right'] else 'wrong'}"))]
    km = truth["distance_km"]
    distance = "the answer has no point" if km is None else f"{km_text(km)} from the answer"
    place = f"{place_text(truth)} ({point_text(truth['latlon_deg'])})"
    return [("Own GPS", f"<strong>{escaped(distance)}</strong>: {escaped(place)}")]


def map_html(record: Mapping[str, Any]) -> str:
    """The map with its legend, and the table of alternatives; nothing where no point is known or revealed."""
    drawn = world_map(record)
    if drawn is None:
        return ""
    marks = [
        ("answer", "answer", record["latlon_deg"]),
        ("radius", "50 % and 90 % of the samples", _has_radius(record)),
        ("alternative", "samples", record["alternatives"]),
        ("own", "the photograph's own GPS", record["truth"]),
    ]
    legend = "".join(f'<li><i class="gg-mark gg-{kind}"></i>{text}</li>' for kind, text, is_there in marks if is_there)
    return f'<figure class="gg-map">{drawn}<ul class="gg-legend">{legend}</ul></figure>{_alternatives(record)}'


def _has_radius(record: Mapping[str, Any]) -> bool:
    return bool(record["radius_50_km"] or record["radius_90_km"])


def _alternatives(record: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{alternative['share']:.0%}</td><td>{escaped(place_text(alternative))}"
        f"{' <em>the answer</em>' if alternative['holds_answer'] else ''}</td>"
        f"<td>{point_text(alternative['latlon_deg'])}</td></tr>"
        for number, alternative in enumerate(record["alternatives"], start=1)
    )
    if not rows:
        return ""
    return (
        f'<h3>Where {record["num_samples"]} samples lie</h3><table class="gg-alternatives"><thead><tr><th></th>'
        f"<th>share</th><th>place</th><th>coordinates</th></tr></thead><tbody>{rows}</tbody></table>"
    )
