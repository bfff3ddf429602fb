"""The plots of the page as PNG files for papers. Same data and names as the page's own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geogrpo.metrics import THRESHOLDS_KM
from geogrpo.report.page.content import Calibration, Groups
from geogrpo.report.page.plots import error_class, histogram_bars, plotted_groups
from geogrpo.report.tables import COLUMNS, clean_text

ERROR_COLORS = ("#14468a", "#2c83bd", "#41a595", "#dba42a", "#da6a2c", "#a8203c")
"""--error-0 to --error-5 of page.css."""
LINE_COLOR = "#20639b"
WIDTH_INCHES = 3.5
"""One column of a paper."""
DPI = 300


def write_figures(
    folder: str | Path,
    *,
    distance_km: np.ndarray,
    calibration: Calibration | None = None,
    groups: Sequence[Groups] = (),
) -> list[Path]:
    """Write error.png, reliability.png, risk_coverage.png and group_<number>.png, and return their paths.

    Args:
        folder: made when missing.
        distance_km: (N,) km, NaN without coordinates.
        calibration: None for neither of its two figures.
        groups: one figure each.
    """
    figures = {"error": _error(distance_km)}
    if calibration is not None:
        figures |= {"reliability": _reliability(calibration), "risk_coverage": _risk_coverage(calibration)}
    # Titles are free text, so files are numbered.
    figures |= {f"group_{number}": _groups(group) for number, group in enumerate(groups, start=1)}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=DPI)
    return paths


def _error(distance_km: np.ndarray) -> Figure:
    edges, counts = histogram_bars(distance_km)
    figure, axes = _axes()
    middles = np.sqrt(edges[:-1] * edges[1:])
    colors = [ERROR_COLORS[error_class(km)] for km in middles]
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors, edgecolor="white", linewidth=0.3)
    for km in THRESHOLDS_KM:
        axes.axvline(km, color="0.4", linestyle=":", linewidth=0.7)
    axes.set(xscale="log", xlim=(edges[0], edges[-1]), xlabel="error (km)", ylabel="images")
    axes.set_xticks(THRESHOLDS_KM, [f"{km:,}" for km in THRESHOLDS_KM])
    axes.minorticks_off()
    return figure


def _reliability(calibration: Calibration) -> Figure:
    figure, axes = _axes()
    counts = np.asarray(calibration.counts, float)
    is_used = counts > 0
    stated, observed = np.asarray(calibration.stated)[is_used], np.asarray(calibration.observed)[is_used]
    axes.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=0.8)
    axes.plot(stated, observed, color=LINE_COLOR, linewidth=1.2)
    axes.scatter(
        stated, observed, s=4 + 30 * counts[is_used] / max(counts.max(initial=1), 1), color=LINE_COLOR, zorder=3
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated probability", ylabel="share true")
    return figure


def _risk_coverage(calibration: Calibration) -> Figure:
    figure, axes = _axes()
    axes.plot(calibration.coverage, calibration.risk, color=LINE_COLOR, linewidth=1.2)
    axes.set(xlim=(0, 1), xlabel="share of images answered", ylabel=_plain_text(calibration.risk_name))
    axes.set_ylim(bottom=0)
    return figure


def _groups(groups: Groups) -> Figure:
    rows = plotted_groups(groups)
    figure, axes = _axes(0.6 + 0.24 * len(rows))
    values = np.array([[estimate.value, estimate.low, estimate.high] for _, estimate in rows]).reshape(-1, 3)
    reach = np.abs(values[:, 1:] - values[:, :1]).T
    axes.barh(range(len(rows)), values[:, 0], height=0.6, color=LINE_COLOR, alpha=0.6)
    axes.errorbar(values[:, 0], range(len(rows)), xerr=reach, fmt="none", ecolor="0.15", elinewidth=1)
    axes.set_yticks(range(len(rows)), [_plain_text(name) for name, _ in rows])
    axes.invert_yaxis()
    axes.set(xlabel=COLUMNS[groups.plotted].title)
    return figure


def _axes(height_inches: float = 2.3) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7)
    axes.xaxis.label.set_fontsize(8)
    axes.yaxis.label.set_fontsize(8)
    return figure, axes


def _plain_text(text: str) -> str:
    # matplotlib reads $...$ as mathematics
    return clean_text(text).replace("$", r"\$")
