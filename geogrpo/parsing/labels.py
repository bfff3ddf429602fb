"""Labelled lines: which words name a field, and the names that the lines give."""

import re
from functools import lru_cache

LEVELS = {"country": "countries", "state": "states", "city": "cities"}
"""The levels of a chain, in order, with their plurals."""

_REGION = r"(?:state|province|prefecture|(?:administrative |admin ?)?region)"
_SETTLEMENT = r"(?:nearest )?(?:city|town|village|place)"
_OR = r" ?(?:/|or)? ?"
LAT = r"lat(?:itude)?\.?"
LON = r"(?:longitude|long|lon|lng)\.?"
# Of one line: a name that ends in "Long" may stand above a latitude.
_THEN = r"[^\S\n]?(?:[,;/|&_-]|and|then)?[^\S\n]?"
LAT_THEN_LON, LON_THEN_LAT = f"{LAT}{_THEN}{LON}", f"{LON}{_THEN}{LAT}"
_LABELS = {
    "country": r"country(?: ?name| ?(?:/|or) ?(?:region|territory))?",
    "state": rf"{_REGION}(?:{_OR}{_REGION}){{0,3}}(?: ?name)?",
    "city": rf"{_SETTLEMENT}(?:{_OR}{_SETTLEMENT}){{0,3}}(?: ?name)?",
    "final": r"(?:final ?)?answer",
    "pair": r"(?:(?:gps|final|estimated|approximate|geographic) )?coordinates?|coords|gps|location|loc"
    rf"|\(?(?:{LAT_THEN_LON}|{LON_THEN_LAT})\)?",
    "lat": LAT,
    "lon": LON,
}
# Keys of objects that are read into; what lies under any other key (reasoning, clues, candidates) is not read.
_HOLDER = r"predictions?|results?|output|response|guess|geometry"


def any_case(pattern: str) -> str:
    """The pattern in any letter case: several times faster than re.IGNORECASE, which cannot skip to a first letter."""
    return re.sub(r"(?<!\\)[a-z]", lambda letter: f"[{letter[0]}{letter[0].upper()}]", pattern)


_LABEL = f"(?:{any_case('|'.join(_LABELS.values()))})"
_KIND = re.compile("|".join(f"(?P<{kind}>{label})" for kind, label in {**_LABELS, "holder": _HOLDER}.items()), re.I)
_COLON = r"(?: ?\([^()\n]{0,60}\))?(?:\*\*|__)?[ \t]?[:：](?:\*\*|__)?"
_BULLET = r"[ \t>]{0,12}+(?:[-*•+#]{1,6}+[ \t]{1,4}+|\d{1,2}[.)][ \t]{1,4}+)?"
# The leading line break lets the search skip from line to line.
_LINE = re.compile(rf"\n(?!\n){_BULLET}(\*\*|__)?({_LABEL}){_COLON}([^\n]*)")
_INLINE = re.compile(rf"(?<=[\s,;|*])({_LABEL}){_COLON}")
_ELEMENT = re.compile(rf"<(?=[a-zA-Z(])({_LABEL})>([^<]*+)((?i:</\1>))?")
_MARKS = ("**", '"', "`")


@lru_cache(maxsize=1024)
def kind_of(label: str) -> str | None:
    """What a label or a key names: a level, "pair", "lat", "lon", "final" (answer), "holder", or nothing."""
    match = _KIND.fullmatch(label.strip().replace("_", " "))
    return match.lastgroup if match else None


def replace_elements(text: str) -> tuple[str, dict[str, str]]:
    """The text with XML elements such as <city>Biei</city> as lines, and the tags not closed, by kind."""
    unclosed: dict[str, str] = {}

    def line(element: re.Match[str]) -> str:
        if element[3]:
            return f"\n{element[1]}: {' '.join(element[2].split())}\n"
        unclosed[kind_of(element[1]) or ""] = element[1].lower()
        return "\n"

    return _ELEMENT.sub(line, text) if "<" in text else text, unclosed


def fields_of(text: str) -> list[tuple[str | None, str]]:
    """(kind, value) of every label: at the start of a line, and further on in a line that starts with one."""
    fields: list[tuple[str | None, str]] = []
    for bold, label, rest in _LINE.findall("\n" + text):
        parts = _INLINE.split(rest) if ":" in rest or "：" in rest else [rest]
        if not any(value.strip() for value in parts[::2]):
            parts = [rest]
        labels = [label, *parts[1::2]]
        for label, value in zip(labels[:-1], parts[:-1:2], strict=True):
            fields.append((kind_of(label), _stripped(value.rstrip(" \t,;|*-"), bold)))
        fields.append((kind_of(labels[-1]), _stripped(parts[-1], bold)))
    return fields


def _stripped(written: str, bold: str) -> str:
    """A value without Markdown and quotes around it."""
    value = written.strip()
    if bold and value.count(bold) % 2:
        value = value.removesuffix(bold).rstrip()
    if value.startswith(_MARKS):
        for mark in _MARKS:
            inner = value[len(mark) : -len(mark)].strip()
            if inner and mark not in inner and value.startswith(mark) and value.endswith(mark):
                value = inner
    return value


def find_names(fields: list[tuple[str | None, str]], final_answer: str) -> tuple[dict[str, str], list[str]]:
    """The name of each level, and one problem for each that has several.

    Args:
        final_answer: read as `country; region; place` (GeoAgent, arXiv 2602.12617) where no field names a level.
    """
    given: dict[str, list[str]] = {level: [] for level in LEVELS}
    for kind, value in fields:
        if kind in LEVELS and value:
            given[kind].append(value)
        elif kind == "final":
            _add_final_answer(given, value)
    if final_answer and not any(given.values()):
        _add_final_answer(given, final_answer.strip())
    names, problems = {}, []
    for level, values in given.items():
        num_names = len({" ".join(value.split()).casefold() for value in values}) if len(values) > 1 else len(values)
        if num_names == 1:
            names[level] = values[0]
        elif num_names:
            problems.append(f"{num_names} {LEVELS[level]}")
    return names, problems


def _add_final_answer(given: dict[str, list[str]], answer: str) -> None:
    if answer.count(";") == 2 and "\n" not in answer and ":" not in answer:
        for level, part in zip(LEVELS, answer.split(";"), strict=True):
            if part.strip():
                given[level].append(_stripped(part, ""))
