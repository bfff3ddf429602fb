"""The plots of the page as inline SVG: no style of their own, page.css colours them for light and dark.

Shapes: N images.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log10

import numpy as np

from geogrpo.metrics import THRESHOLDS_KM, Estimate
from geogrpo.report.page.content import Calibration, Groups
from geogrpo.report.tables import COLUMNS, clean_text, formatted

WIDTH, HEIGHT = 480, 270
LEFT, RIGHT, TOP, BOTTOM = 52, 464, 26, 226
"""The frame that holds the data, in the units of the picture."""
BARS_PER_DECADE = 10
FARTHEST_EDGE_KM = 20_100.0
MAX_BARS = 20
"""Of a plot of groups; its table has them all."""


@dataclass(frozen=True)
class _Scale:
    """Data values to positions."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (log10(self.low), log10(self.high)) if self.is_log else (self.low, self.high)
        share = ((log10(value) if self.is_log else value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 2)


def plotted_groups(groups: Groups) -> list[tuple[str, Estimate]]:
    """(name, estimate) of the rows that have the metric, in their order; the MAX_BARS with most images if more do."""
    rows = [(row, estimate) for row in groups.rows if (estimate := row.estimate(groups.plotted))]
    largest = sorted(range(len(rows)), key=lambda i: -(rows[i][0].num_images or 0))[:MAX_BARS]
    return [(rows[i][0].name, rows[i][1]) for i in sorted(largest)]


def error_class(distance_km: float) -> int:
    """Which of THRESHOLDS_KM is the first that the distance does not exceed; their number beyond the last."""
    return int(np.searchsorted(THRESHOLDS_KM, distance_km, side="left"))


def histogram_bars(distance_km: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (B + 1,) in km, every threshold among them, and counts (B,) of the finite distances.

    A bar counts what is beyond its left edge and up to its right one; the first counts all up to the first threshold.
    """
    stops = (*THRESHOLDS_KM, FARTHEST_EDGE_KM)
    pieces = [np.array([THRESHOLDS_KM[0] * 10 ** (-1 / BARS_PER_DECADE)])]
    for low, high in pairwise(stops):
        pieces.append(np.geomspace(low, high, round(log10(high / low) * BARS_PER_DECADE), endpoint=False))
    edges = np.concatenate([*pieces, stops[-1:]])
    bars = np.searchsorted(edges[1:-1], distance_km[np.isfinite(distance_km)], side="left")
    return edges, np.bincount(bars, minlength=len(edges) - 1)


def error_histogram(distance_km: np.ndarray) -> str:
    """(N,) km, NaN without coordinates -> how far off the answers are, on a logarithmic axis with the thresholds."""
    edges, counts = histogram_bars(distance_km)
    num_missing = int(np.isnan(distance_km).sum())
    x = _Scale(edges[0], edges[-1], LEFT, RIGHT, is_log=True)
    y = _Scale(0, _round_up(max(1, int(counts.max()))), BOTTOM, TOP)
    parts = _y_axis(y, "images")
    for left, right, count in zip(edges[:-1], edges[1:], counts.tolist(), strict=True):
        bar = {
            "x": x(left) + 0.5,
            "y": y(count),
            "width": round(x(right) - x(left) - 1, 2),
            "height": BOTTOM - y(count),
        }
        title = _element("title", f"up to {right:,.3g} km: {count:,}")
        parts.append(_element("rect", title, cls=f"error-{error_class((left * right) ** 0.5)}", **bar))
    for km in THRESHOLDS_KM:
        parts.append(_element("line", x1=x(km), x2=x(km), y1=TOP - 6, y2=BOTTOM, cls="threshold"))
        parts.append(_text(f"{km:,}", x(km), BOTTOM + 16))
    note = f"; {num_missing:,} without an answer not shown" if num_missing else ""
    parts.append(_text(f"error (km){note}", (LEFT + RIGHT) / 2, HEIGHT - 8, cls="label"))
    return _svg("Histogram of the error in kilometres", parts)


def reliability_diagram(calibration: Calibration) -> str:
    """How often what was stated with a probability was true; dots as large as the bin has statements."""
    x, y = _Scale(0, 1, LEFT, RIGHT), _Scale(0, 1, BOTTOM, TOP)
    parts = [*_y_axis(y, "true", percent=True), *_x_axis(x, "stated probability")]
    parts.append(_element("line", x1=x(0), y1=y(0), x2=x(1), y2=y(1), cls="reference"))
    bins = [bin_ for bin_ in _triples(calibration) if bin_[2] > 0]
    parts.append(_line([(x(stated), y(observed)) for stated, observed, _ in bins]))
    most = max([count for _, _, count in bins], default=1)
    for stated, observed, count in bins:
        title = _element("title", f"stated {stated:.0%}, true {observed:.0%}, {count:,.0f} statements")
        radius = round(2.5 + 4.5 * (count / most) ** 0.5, 2)
        parts.append(_element("circle", title, cx=x(stated), cy=y(observed), r=radius, cls="dot"))
    return _svg("Reliability diagram: stated probability against observed frequency", parts)


def risk_coverage(calibration: Calibration) -> str:
    """The error on the images answered, when the least certain are left out."""
    coverage, risk = np.asarray(calibration.coverage, float), np.asarray(calibration.risk, float)
    known = np.isfinite(risk)
    x, y = _Scale(0, 1, LEFT, RIGHT), _Scale(0, _round_up(float(max(risk[known], default=1.0))), BOTTOM, TOP)
    parts = [*_y_axis(y, calibration.risk_name), *_x_axis(x, "share of images answered")]
    parts.append(_line([(x(c), y(r)) for c, r in zip(coverage[known], risk[known], strict=True)]))
    return _svg(f"{calibration.risk_name} against the share of images answered", parts)


def group_bars(groups: Groups) -> str:
    """One bar per group, with its 95 % interval where it has one."""
    column = COLUMNS[groups.plotted]
    rows = plotted_groups(groups)
    row_height, left, top = 26, 150, 8
    bottom = top + row_height * len(rows)
    x = _Scale(0, _round_up(max([np.fmax(e.value, e.high) for _, e in rows], default=1.0)), left, RIGHT)
    parts = []
    for tick in _ticks(x.high):
        parts.append(_element("line", x1=x(tick), x2=x(tick), y1=top, y2=bottom, cls="grid"))
        parts.append(_text(_short(tick, "%" in column.form), x(tick), bottom + 16))
    for i, (name, estimate) in enumerate(rows):
        parts += _group_bar(name, estimate, column.form, x, top + row_height * i + row_height / 2)
    parts.append(_text(column.title, (left + RIGHT) / 2, bottom + 36, cls="label"))
    return _svg(f"{groups.title}: {column.title}", parts, height=bottom + 44)


def _group_bar(name: str, estimate: Estimate, form: str, x: _Scale, middle: float) -> list[str]:
    value, *ends = formatted(estimate, form)
    title = _element("title", f"{name}: {value}" + (f" ({' – '.join(ends)})" if ends else ""))
    parts = [
        _text(name if len(name) <= 20 else name[:19] + "…", x.start - 8, middle + 4, anchor="end"),
        _element(
            "rect", title, x=x.start, y=middle - 7, width=round(x(estimate.value) - x.start, 2), height=14, cls="bar"
        ),
    ]
    if ends:
        parts.append(_element("line", x1=x(estimate.low), x2=x(estimate.high), y1=middle, y2=middle, cls="whisker"))
    return parts


def _triples(calibration: Calibration) -> list[tuple[float, float, float]]:
    arrays = (calibration.stated, calibration.observed, calibration.counts)
    return list(zip(*[np.asarray(array, float).tolist() for array in arrays], strict=True))


def _y_axis(y: _Scale, label: str, *, percent: bool = False) -> list[str]:
    parts = [_text(label, 4, 12, anchor="start", cls="label")]
    for tick in _ticks(y.high):
        parts.append(_element("line", x1=LEFT, x2=RIGHT, y1=y(tick), y2=y(tick), cls="grid"))
        parts.append(_text(_short(tick, percent), LEFT - 8, y(tick) + 4, anchor="end"))
    return parts


def _x_axis(x: _Scale, label: str) -> list[str]:
    ticks = [_text(_short(tick, True), x(tick), BOTTOM + 16) for tick in _ticks(x.high)]
    return [*ticks, _text(label, (LEFT + RIGHT) / 2, HEIGHT - 8, cls="label")]


def _round_up(value: float) -> float:
    """The next of 1, 2, 2.5, 4, 5 or 10 times a power of ten, for the end of an axis; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(log10(value))
    return float(next(step * power for step in (1, 2, 2.5, 4, 5, 10) if step * power >= value * (1 - 1e-9)))


def _ticks(high: float) -> list[float]:
    # 2 and 4 have short quarters, all else that _round_up gives has short fifths.
    parts = 4 if f"{high:e}".startswith(("2.0", "4.0")) else 5
    return [high * i / parts for i in range(parts + 1)]


def _short(value: float, percent: bool) -> str:
    return f"{value:.0%}" if percent else f"{value:,.6g}"


def _line(points: Sequence[tuple[float, float]]) -> str:
    return _element("polyline", points=" ".join(f"{x:g},{y:g}" for x, y in points), cls="line")


def _text(text: str, x: float, y: float, *, anchor: str = "middle", cls: str = "tick") -> str:
    return _element("text", html.escape(clean_text(text)), x=x, y=y, text_anchor=anchor, cls=cls)


def _svg(description: str, parts: Sequence[str], *, height: float = HEIGHT) -> str:
    return _element("svg", "".join(parts), viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=description)


def _element(name: str, inner: str = "", **attributes: object) -> str:
    """An element; of `inner`, markup stays. `cls` is its class, and _ stands for - in other attributes."""
    if name == "title":
        inner = html.escape(clean_text(inner))
    pairs = [(("class" if key == "cls" else key.replace("_", "-")), str(value)) for key, value in attributes.items()]
    written = "".join(f' {key}="{html.escape(clean_text(value))}"' for key, value in pairs)
    return f"<{name}{written}>{inner}</{name}>"
