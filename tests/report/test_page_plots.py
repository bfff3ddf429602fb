"""The plots by hand: which bar an error counts in, and where points are drawn."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from geogrpo.metrics import THRESHOLDS_KM, Estimate
from geogrpo.report.page import page as page_module
from geogrpo.report.page.content import Calibration, Groups
from geogrpo.report.page.figures import ERROR_COLORS, write_figures
from geogrpo.report.page.plots import (
    MAX_BARS,
    _round_up,
    _ticks,
    error_class,
    error_histogram,
    group_bars,
    histogram_bars,
    plotted_groups,
    reliability_diagram,
    risk_coverage,
)
from geogrpo.report.tables import MetricRow

STYLE = (Path(page_module.__file__).parent / "page.css").read_text(encoding="utf-8")
CALIBRATION = Calibration(
    stated=np.array([0.25, 0.75, 0.9]),
    observed=np.array([0.0, 1.0, 0.5]),
    counts=np.array([10, 40, 0]),
    coverage=np.array([0.5, 1.0]),
    risk=np.array([np.nan, 80.0]),
)


def elements(svg: str, name: str) -> list[ElementTree.Element]:
    return [element for element in ElementTree.fromstring(svg).iter() if element.tag == name]


def points(svg: str) -> list[tuple[float, ...]]:
    (line,) = elements(svg, "polyline")
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]


def test_an_error_at_a_threshold_is_of_the_near_side() -> None:
    assert [error_class(km) for km in (0.0, 1.0, 1.01, 25.0, 2500.0, 2500.1)] == [0, 0, 1, 1, 4, 5]


def test_every_finite_error_is_in_one_bar_and_thresholds_part_bars() -> None:
    distance_km = np.array([0.0, 0.5, 1.0, 1.001, 25.0, 25.1, 20015.1, np.nan])
    edges, counts = histogram_bars(distance_km)
    assert counts.sum() == 7
    assert counts[0] == 3
    assert counts[-1] == 1
    for km in THRESHOLDS_KM:
        within = int((distance_km <= km).sum())
        assert counts[: int(np.flatnonzero(edges == km)[0])].sum() == within


def test_the_histogram_draws_the_counts_in_the_colours_of_the_thresholds() -> None:
    svg = error_histogram(np.array([0.5, 100.0, 100.0, 9000.0, np.nan]))
    drawn = [(bar.attrib["class"], float(bar.attrib["height"])) for bar in elements(svg, "rect")]
    # The axis ends at 2 images, 200 units above its start
    assert [bar for bar in drawn if bar[1]] == [("error-0", 100.0), ("error-2", 200.0), ("error-5", 100.0)]
    assert "1 without an answer not shown" in svg


def test_a_histogram_of_no_answers_is_empty() -> None:
    svg = error_histogram(np.array([np.nan, np.nan]))
    assert {float(bar.attrib["height"]) for bar in elements(svg, "rect")} == {0.0}


def test_the_reliability_diagram_leaves_empty_bins_out() -> None:
    svg = reliability_diagram(CALIBRATION)
    assert points(svg) == [(155.0, 226.0), (361.0, 26.0)]
    small, large = (float(circle.attrib["r"]) for circle in elements(svg, "circle"))
    # Areas beyond the least are as the counts: 10 and 40
    assert (large - 2.5) / (small - 2.5) == pytest.approx(2.0)


def test_the_risk_coverage_curve_leaves_unknown_risks_out() -> None:
    assert points(risk_coverage(CALIBRATION)) == [(464.0, 66.0)]


def test_bars_of_groups_have_their_intervals() -> None:
    rows = [MetricRow("Asia & <b>", {"geoscore": Estimate(2000.0, 1000.0, 4000.0)}), MetricRow("none", {})]
    svg = group_bars(Groups("Continents", rows))
    (bar,) = elements(svg, "rect")
    (whisker,) = [line for line in elements(svg, "line") if line.attrib["class"] == "whisker"]
    assert (float(bar.attrib["x"]), float(bar.attrib["width"])) == (150.0, 157.0)
    assert (float(whisker.attrib["x1"]), float(whisker.attrib["x2"])) == (228.5, 464.0)
    assert "Asia & <b>" in [text.text for text in elements(svg, "text")]


def test_a_group_without_an_interval_is_a_bar_alone(tmp_path: Path) -> None:
    groups = Groups("Countries", [MetricRow("Peru", {"geoscore": Estimate(2000.0, np.nan, np.nan)})])
    svg = group_bars(groups)
    assert float(elements(svg, "rect")[0].attrib["width"]) == 314.0
    assert "whisker" not in svg
    assert len(write_figures(tmp_path, distance_km=np.ones(1), groups=[groups])) == 2


def test_of_many_groups_those_with_most_images_are_plotted_in_their_order() -> None:
    rows = [MetricRow(f"{i}", {"geoscore": Estimate(1.0, 0.5, 1.5)}, num_images=i) for i in range(MAX_BARS + 5)]
    names = [name for name, _ in plotted_groups(Groups("Countries", rows))]
    assert names == [f"{i}" for i in range(5, MAX_BARS + 5)]


@pytest.mark.parametrize(
    ("value", "end", "ticks"),
    [(0, 1, 5), (1, 1, 5), (3, 4, 4), (0.07, 0.1, 5), (180, 200, 4), (201, 250, 5), (4001, 5000, 5), (9999, 10000, 5)],
)
def test_axes_end_at_short_numbers(value: float, end: float, ticks: int) -> None:
    assert _round_up(value) == pytest.approx(end)
    assert len(_ticks(_round_up(value))) == ticks + 1
    assert all(len(f"{tick:.6g}") <= 5 for tick in _ticks(_round_up(value)))


def test_page_and_figures_have_a_colour_for_every_class_of_error() -> None:
    light = dict(re.findall(r"--error-(\d): (#\w+)", STYLE.split("@media")[0]))
    dark = dict(re.findall(r"--error-(\d): (#\w+)", STYLE.split("@media")[1].split("canvas")[0]))
    assert list(light) == list(dark) == [str(i) for i in range(len(THRESHOLDS_KM) + 1)]
    assert tuple(light.values()) == ERROR_COLORS


def test_figures_are_written_for_what_is_given(tmp_path: Path) -> None:
    distance_km = np.array([0.5, 100.0, np.nan])
    assert [path.name for path in write_figures(tmp_path / "a", distance_km=distance_km)] == ["error.png"]
    groups = [Groups("a/b $x$", [MetricRow("$\\frac$", {"geoscore": Estimate(1.0, 0.5, 1.5)})])]
    paths = write_figures(tmp_path / "b", distance_km=distance_km, calibration=CALIBRATION, groups=groups)
    assert [path.name for path in paths] == ["error.png", "reliability.png", "risk_coverage.png", "group_1.png"]
    for path in paths:
        # Not blank
        assert len(Image.open(path).convert("L").getcolors(256)) > 10
