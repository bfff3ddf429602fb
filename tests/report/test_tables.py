"""Tables for READMEs and papers: what a reader sees, and that no name breaks them."""

import math
import re

import pytest

from geogrpo.metrics import Estimate
from geogrpo.report.summary import COLUMNS as CLOSING_COLUMNS
from geogrpo.report.tables import (
    COLUMNS,
    MetricRow,
    TextTable,
    clean_text,
    latex_section,
    latex_table,
    main_columns,
    markdown_section,
    markdown_table,
)

GREEDY = MetricRow("greedy", {"within_25_km": Estimate(0.25, 0.2, 0.3), "median_km": Estimate(1234.4, 1000.0, 1500.0)})
HOSTILE = 'a|b_c*d`e<f>[g](h)\\i&j%k$l#m{n}o~p^q"r\ns\x00t\ud800u'


def test_a_markdown_cell_is_the_value_with_its_interval() -> None:
    assert markdown_table([GREEDY]) == (
        "|  | ≤25 km | median km |\n| --- | ---: | ---: |\n| greedy | 25.0% (20.0% – 30.0%) | 1,234 (1,000 – 1,500) |\n"
    )


def test_a_latex_cell_is_the_value_above_its_interval() -> None:
    assert latex_table([GREEDY]).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r" & $\leq$25 km & median km \\",
        r"\midrule",
        r"greedy & \makecell[r]{25.0\% \\[-2pt] {\scriptsize 20.0\%--30.0\%}}"
        r" & \makecell[r]{1,234 \\[-2pt] {\scriptsize 1,000--1,500}} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_metric_that_a_row_lacks_or_that_is_nan_is_a_dash() -> None:
    rows = [GREEDY, MetricRow("none", {}), MetricRow("nan", {"median_km": Estimate(math.nan, math.nan, math.nan)})]
    assert markdown_table(rows).splitlines()[3:] == ["| none | – | – |", "| nan | – | – |"]
    assert latex_table(rows).splitlines()[5:7] == [r"none & -- & -- \\", r"nan & -- & -- \\"]


def test_numbers_of_images_have_a_column_where_a_row_has_one() -> None:
    rows = [MetricRow("Asia", GREEDY.values, 1234), GREEDY]
    assert [line.split(" | ")[1] for line in markdown_table(rows).splitlines()] == ["images", "---:", "1,234", "–"]
    assert r"Asia & 1,234 & \makecell" in latex_table(rows)


def test_special_characters_of_a_name_stay_in_its_markdown_cell() -> None:
    line = markdown_table([MetricRow(HOSTILE, GREEDY.values)]).splitlines()[2]
    assert line.startswith(r"| a\|b\_c\*d\`e\<f\>\[g\](h)\\i\&j%k\$l#m{n}o\~p^q" + '"r s�t�u | 25.0%')


def test_special_characters_of_a_name_are_letters_in_latex() -> None:
    line = latex_table([MetricRow(HOSTILE, GREEDY.values)]).splitlines()[4]
    assert line.startswith(
        r"a\textbar{}b\_c{*}d`e\textless{}f\textgreater{}{[}g](h)\textbackslash{}i\&j\%k\$l\#m\{n\}"
        r"o\textasciitilde{}p\textasciicircum{}q''r s?t?u & \makecell"
    )


@pytest.mark.parametrize("name", ["[x]", "*x"])
def test_no_name_becomes_an_argument_of_the_line_break_before_it(name: str) -> None:
    table = latex_table([GREEDY, MetricRow(name, GREEDY.values)])
    assert not re.search(r"\\\\\n[\[*]", table)


def test_a_metric_without_an_interval_is_its_value_alone() -> None:
    rows = [MetricRow("Asia", {"median_km": Estimate(12.0, math.nan, math.nan)})]
    assert markdown_table(rows).splitlines()[2] == "| Asia | 12 |"
    assert latex_table(rows).splitlines()[4] == r"Asia & 12 \\"


@pytest.mark.parametrize("table", [markdown_table, latex_table])
def test_a_table_of_no_rows_is_refused(table) -> None:
    with pytest.raises(ValueError, match="rows must hold at least one row, got none"):
        table([])


def test_clean_text_keeps_what_can_be_written_and_marks_what_cannot() -> None:
    cleaned = clean_text("é 🌍\t\n\x00\x1b\ud83d")
    assert cleaned == "é 🌍\t\n���"
    assert cleaned.encode("utf-8")


def test_a_table_of_text_has_its_title_and_its_note_around_it() -> None:
    table = TextTable("a_b", ("", "p"), [["x", "< 0.001"]], "50 %\nof all")
    assert markdown_section(table) == "## a\\_b\n\n|  | p |\n| --- | ---: |\n| x | \\< 0.001 |\n\n50 % of all\n"
    assert latex_section(table).splitlines() == [
        "% a_b",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r" & p \\",
        r"\midrule",
        r"x & \textless{} 0.001 \\",
        r"\bottomrule",
        r"\end{tabular}",
        "% 50 % of all",
    ]


def test_no_title_ends_the_comment_that_it_stands_in() -> None:
    table = TextTable("a\n\\input{b}", ("",), [["x"]], "c\r\\input{d}\u2028e")
    lines = latex_section(table).splitlines()
    assert [line for line in lines if "input" in line] == [r"% a \input{b}", r"% c \input{d} e"]


def test_thresholds_are_titled_by_their_comparator() -> None:
    assert main_columns("<")["within_25_km"].title == "<25 km"
    assert main_columns()["within_25_km"].title == "≤25 km"


def test_the_columns_are_those_of_the_closing_table() -> None:
    assert {key: (column.title, column.form) for key, column in COLUMNS.items()} == CLOSING_COLUMNS
