"""JSON and Python literals in an answer, as labelled lines. Nothing is evaluated; size and depth are limited."""

import re
from typing import Any

from geogrpo.parsing.labels import LEVELS, kind_of

_START = re.compile(r"\{(?=\s*+[\"'])")
_TOKEN = re.compile(
    r"""\s*+(?:([{\[(])|([}\])])|([:,])"""
    r"""|"([^"\\]*+(?:\\.[^"\\]*+)*+)"|'([^'\\]*+(?:\\.[^'\\]*+)*+)'|([^\s{}\[\](),:"']{1,40}+))""",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {"n": " ", "t": " ", "r": " ", "b": "", "f": ""}
_CLOSING = {"{": "}", "[": "]", "(": ")"}
_MAX_TOKENS = 1000
_MAX_DEPTH = 8
_MAX_KEY_LENGTH = 60


class _Bare(str):
    """A number or a word without quotes, as written."""


class _Object(list):
    """Keys and values in turn: a repeated key is hedging, so none may be lost."""


def replace_objects(text: str) -> str | None:
    """The text with every `{"key": value}` as lines `key: value` of what it says about a place; None if malformed."""
    start = _START.search(text) if "{" in text else None
    if not start:
        return text
    parts, end, tokens_left = [], 0, _MAX_TOKENS
    while start:
        parts.append(text[end : start.start()])
        literal, end, tokens_left = _read(text, start.start(), tokens_left)
        if literal is None:
            return None
        parts += ["", *_lines_of(literal), ""]
        start = _START.search(text, end)
    return "\n".join([*parts, text[end:]])


def _read(text: str, position: int, tokens_left: int) -> tuple[_Object | None, int, int]:
    """(object, where it ends, tokens left); the object is None where it is malformed or too large."""
    containers: list[tuple[str, list[Any]]] = []
    items: list[Any] = []
    closing, is_after_item = "", False
    while tokens_left and (token := _TOKEN.match(text, position)):
        position, kind, tokens_left = token.end(), token.lastindex or 0, tokens_left - 1
        if kind == 3:
            if not is_after_item or token[3] != (":" if closing == "}" and len(items) % 2 else ","):
                break
            is_after_item = False
            continue
        if kind == 1 and not is_after_item and len(containers) < _MAX_DEPTH:
            containers.append((closing, items))
            closing, items = _CLOSING[token[1]], _Object() if token[1] == "{" else []
        elif kind == 2 and token[2] == closing and not (closing == "}" and len(items) % 2):
            closed = items
            closing, items = containers.pop()
            if not containers:
                return _Object(closed), position, tokens_left
            items.append(closed)
            is_after_item = True
        elif kind > 3 and not is_after_item:
            items.append(_Bare(token[6]) if kind == 6 else _unescaped(token[kind]))
            is_after_item = True
        else:
            break
    return None, position, 0


def _unescaped(written: str) -> str:
    """A string without its escapes, on one line."""
    if "\\" in written:
        written = _ESCAPE.sub(
            lambda m: chr(int(m[1] or m[2], 16)) if m[1] or m[2] else _ESCAPED.get(m[3], m[3]), written
        )
        # Two escapes make one character beyond U+FFFF; half of one must not get into a name.
        written = written.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return " ".join(written.split())


def _lines_of(values: _Object) -> list[str]:
    lines: list[str] = []
    pairs = list(zip(values[::2], values[1::2], strict=True))
    # GeoJSON puts the longitude first: RFC 7946, section 3.1.1.
    is_geojson = ("type", "Point") in pairs
    for key, value in pairs:
        kind = kind_of(key) if isinstance(key, str) and len(key) <= _MAX_KEY_LENGTH else None
        if kind is None:
            continue
        label = "final answer" if kind == "holder" else key.replace("_", " ").strip()
        if kind == "pair" and is_geojson:
            label = "lon, lat"
        items = value if type(value) is list else [value]
        if kind not in LEVELS and len(items) == 2 and all(isinstance(item, str) for item in items):
            lines.append(f"{label}: [{_decimal(items[0])}, {_decimal(items[1])}]")
            continue
        for item in items:
            if isinstance(item, _Object):
                lines += _lines_of(item)
            elif isinstance(item, str) and not (kind in LEVELS and isinstance(item, _Bare)):
                lines.append(f"{label}: {_decimal(item)}")
    return lines


def _decimal(written: str) -> str:
    """A bare number without its exponent, which text may not have; anything else as it is."""
    if isinstance(written, _Bare) and "e" in written.lower():
        try:
            return f"{float(written):.20f}"
        except ValueError:
            return written
    return written
