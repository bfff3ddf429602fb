"""Metrics with their 95 % intervals as Markdown and LaTeX tables, for READMEs and papers."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from geogrpo.metrics import THRESHOLDS_KM, Estimate

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


COLUMNS: dict[str, TableColumn] = {
    **{f"within_{km}_km": TableColumn(f"≤{km} km", "{:.1%}") for km in THRESHOLDS_KM},
    "median_km": TableColumn("median km", "{:,.0f}"),
    "geoscore": TableColumn("GeoScore", "{:,.0f}"),
    "country_accuracy": TableColumn("country", "{:.1%}"),
    "unparseable": TableColumn("unparsed", "{:.1%}"),
}
"""The columns of the closing table, in order."""

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
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for i, row in enumerate(rows, start=1):
        cells = [_cell(row, key, column, ("{}", "{} ({} – {})"), MISSING) for key, column in shown.items()]
        lines.append([_markdown(row.name), *counts[i : i + 1], *cells])
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def latex_table(rows: Sequence[MetricRow], columns: Mapping[str, TableColumn] | None = None) -> str:
    r"""A booktabs `tabular`, the interval small below its value: \usepackage{booktabs}, and makecell for the lines.

    Args:
        columns: metric -> column, in order; None for COLUMNS. Those that no row has are left out.
    """
    shown = shown_columns(rows, columns)
    counts = _image_counts(rows, "--")
    header = ["", *counts[:1], *[_latex(column.title) for column in shown.values()]]
    lines = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\toprule", _latex_line(header), r"\midrule"]
    forms = ("{}", r"\makecell[r]{{{} \\[-2pt] {{\scriptsize {}--{}}}}}")
    for i, row in enumerate(rows, start=1):
        cells = [_cell(row, key, column, forms, "--", _latex) for key, column in shown.items()]
        lines.append(_latex_line([_latex(row.name), *counts[i : i + 1], *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


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


def _markdown(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(clean_text(text).split()))


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(clean_text(text).split()))
