"""Metrics with their 95 % intervals, and other tables of text, as Markdown and LaTeX for READMEs and papers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from geogrpo.metrics import OSV_LEVELS, THRESHOLDS_KM, Estimate
from geogrpo.regions.index import LEVELS

MISSING = "–"


@dataclass(frozen=True)
class TableColumn:
    """How a metric is shown."""

    title: str
    form: str
    """Format of a value, such as "{:.1%}"."""


@dataclass(frozen=True)
class MetricRow:
    """One line of a table: answers of one kind, or the images of one continent."""

    name: str
    values: Mapping[str, Estimate]
    """Metric -> estimate; a metric that is not there is shown as missing. Where the interval is NaN, as of groups that
    have none, only the value is shown.
    """
    num_images: int | None = None
    """How many images the row is about; None where that is said elsewhere."""

    def estimate(self, key: str) -> Estimate | None:
        """The metric's estimate; None where there is none, or it is not a number."""
        estimate = self.values.get(key)
        return None if estimate is None or math.isnan(estimate.value) else estimate


def main_columns(comparator: str = "<=") -> dict[str, TableColumn]:
    """The columns of an evaluation's first table, in order.

    Args:
        comparator: a key of metrics.COMPARATORS, for the titles of the thresholds.
    """
    sign = {"<=": "≤", "<": "<"}[comparator]
    return {
        **{f"within_{km}_km": TableColumn(f"{sign}{km} km", "{:.1%}") for km in THRESHOLDS_KM},
        "median_km": TableColumn("median km", "{:,.0f}"),
        "mean_km": TableColumn("mean km", "{:,.0f}"),
        "geoscore": TableColumn("GeoScore", "{:,.0f}"),
        "country_accuracy": TableColumn("country", "{:.1%}"),
        "unparseable": TableColumn("unparsed", "{:.1%}"),
    }


COLUMNS = {key: column for key, column in main_columns().items() if key != "mean_km"}
"""The columns of the closing table, in order."""
REGION_COLUMNS = {
    **{f"{level}_accuracy": TableColumn(level, "{:.1%}") for level in LEVELS},
    **{f"osv_{level.replace('-', '_')}": TableColumn(f"OSV {level}", "{:.1%}") for level in OSV_LEVELS},
}
"""Whether an answer is in the truth's region: by the region index, and as OSV-5M asks."""


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text already."""

    title: str
    header: Sequence[str]
    """Of each column, the first of the rows' names."""
    rows: Sequence[Sequence[str]]
    """As long as the header each."""
    note: str = ""
    """How to read it."""


_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: "\\" + character for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    # At the start of a line they would be arguments of the \\ before.
    "[": "{[}",
    "*": "{*}",
    "≤": r"$\leq$",
    "–": "--",
    "\N{REPLACEMENT CHARACTER}": "?",
}
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
# NUL and the other control characters, and halves of surrogate pairs, which no UTF-8 file can hold
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def clean_text(text: str) -> str:
    """The text with control characters and lone surrogates as U+FFFD; line breaks and tabs stay."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def formatted(estimate: Estimate, form: str) -> list[str]:
    """[value, low, high] as text, or [value] where there is no interval."""
    parts = [estimate.value, estimate.low, estimate.high]
    return [form.format(part) for part in (parts[:1] if math.isnan(estimate.low) else parts)]


def formatted_share(estimate: Estimate | None) -> str:
    """In one cell, such as 12.3% (10.1–14.9)."""
    if estimate is None:
        return MISSING
    value, *ends = formatted(estimate, "{:.1%}")
    return f"{value} ({compact_interval(ends)})" if ends else value


def compact_interval(ends: Sequence[str]) -> str:
    """The two ends from `formatted`, such as 10.1–14.9."""
    return "–".join(end.rstrip("%") for end in ends)


def shown_columns(
    rows: Sequence[MetricRow], columns: Mapping[str, TableColumn] | None = None
) -> dict[str, TableColumn]:
    """Those of `columns` (None: COLUMNS) that at least one row has.

    Raises:
        ValueError: when there are no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one row, got none.")
    return {key: column for key, column in (columns or COLUMNS).items() if any(row.estimate(key) for row in rows)}


def markdown_table(rows: Sequence[MetricRow], columns: Mapping[str, TableColumn] | None = None) -> str:
    """A GitHub-flavoured table: value (low – high).

    Args:
        columns: metric -> column, in order; None for COLUMNS. Those that no row has are left out.
    """
    shown = shown_columns(rows, columns)
    counts = _image_counts(rows, MISSING)
    header = ["", *counts[:1], *[_markdown(column.title) for column in shown.values()]]
    lines = []
    for i, row in enumerate(rows, start=1):
        cells = [_cell(row, key, column, ("{}", "{} ({} – {})"), MISSING) for key, column in shown.items()]
        lines.append([_markdown(row.name), *counts[i : i + 1], *cells])
    return _markdown_lines(header, lines)


def latex_table(rows: Sequence[MetricRow], columns: Mapping[str, TableColumn] | None = None) -> str:
    r"""A booktabs `tabular`, the interval small below its value: \usepackage{booktabs}, and makecell for the lines.

    Args:
        columns: metric -> column, in order; None for COLUMNS. Those that no row has are left out.
    """
    shown = shown_columns(rows, columns)
    counts = _image_counts(rows, "--")
    header = ["", *counts[:1], *[_latex(column.title) for column in shown.values()]]
    forms = ("{}", r"\makecell[r]{{{} \\[-2pt] {{\scriptsize {}--{}}}}}")
    lines = []
    for i, row in enumerate(rows, start=1):
        cells = [_cell(row, key, column, forms, "--", _latex) for key, column in shown.items()]
        lines.append([_latex(row.name), *counts[i : i + 1], *cells])
    return _latex_tabular(header, lines)


def markdown_section(table: TextTable) -> str:
    """A heading, the table and its note."""
    lines = _markdown_lines([*map(_markdown, table.header)], [[*map(_markdown, row)] for row in table.rows])
    return f"## {_markdown(table.title)}\n\n{lines}" + (f"\n{_markdown(table.note)}\n" if table.note else "")


def latex_section(table: TextTable) -> str:
    r"""A booktabs `tabular` below its title as a comment, the note below it as another."""
    tabular = _latex_tabular([*map(_latex, table.header)], [[*map(_latex, row)] for row in table.rows])
    return f"% {_one_line(table.title)}\n{tabular}" + (f"% {_one_line(table.note)}\n" if table.note else "")


def _markdown_lines(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _latex_tabular(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\toprule", _latex_line(header), r"\midrule"]
    return "\n".join([*lines, *map(_latex_line, rows), r"\bottomrule", r"\end{tabular}"]) + "\n"


def _image_counts(rows: Sequence[MetricRow], missing: str) -> list[str]:
    """A column's title and cells; [] where no row says how many images it is about."""
    if all(row.num_images is None for row in rows):
        return []
    return ["images", *[missing if row.num_images is None else f"{row.num_images:,}" for row in rows]]


def _cell(
    row: MetricRow,
    key: str,
    column: TableColumn,
    forms: tuple[str, str],
    missing: str,
    escape: Callable[[str], str] = str,
) -> str:
    estimate = row.estimate(key)
    if estimate is None:
        return missing
    parts = [escape(part) for part in formatted(estimate, column.form)]
    return forms[len(parts) > 1].format(*parts)


def _one_line(text: str) -> str:
    return " ".join(clean_text(text).split())


def _markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", _one_line(text))


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in _one_line(text))
