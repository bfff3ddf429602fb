"""One safetensors file per region index: tables, and what they were made from in the metadata."""

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from geogrpo.regions.native import METRICS

FORMAT = "geogrpo region index 2"
EMPTY: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
    "cells": (torch.uint32, (0,)),
    "leaves": (torch.uint32, (0, 64)),
    "records": (torch.uint32, (0,)),
    "vertices": (torch.uint32, (0, 2)),
    "roots": (torch.uint32, (0,)),
    "nodes": (torch.uint32, (0, 64)),
    "candidates": (torch.uint32, (0,)),
    "place_latlon_deg": (torch.float64, (0, 2)),
    "region_start": (torch.int32, (0,)),
    "region_places": (torch.int32, (0,)),
    "level": (torch.uint8, (0,)),
    "parent": (torch.int32, (0,)),
    "name_offset": (torch.int64, (1,)),
    "name_utf8": (torch.uint8, (0,)),
    "code_offset": (torch.int64, (1,)),
    "code_utf8": (torch.uint8, (0,)),
}
"""Every table of an index: dtype and shape; a first size of 0 or 1 stands for any."""


@dataclass(frozen=True)
class IndexInfo:
    """What an index was built from, and how."""

    metric: str
    """How the nearest place is found: sphere or degrees."""
    coast_tolerance_km: float
    num_polygon_regions: int
    sources: list[str] = field(default_factory=list)
    attributions: list[str] = field(default_factory=list)
    """Lines that the sources' licences ask to be shown."""
    repairs: list[str] = field(default_factory=list)
    """What was mended or is doubtful in the sources."""

    def __post_init__(self) -> None:
        # Names of files and features are anyone's, and all of this is printed.
        for name in ("sources", "attributions", "repairs"):
            object.__setattr__(self, name, [printable(line) for line in getattr(self, name)])

    def with_polygons(self, num_regions: int, crossings: list[str]) -> "IndexInfo":
        """After the polygons were built."""
        return replace(self.with_repairs(crossings), num_polygon_regions=num_regions)

    def to_json(self) -> str:
        """As it stands in a file's metadata."""
        return json.dumps(asdict(self))

    def with_repairs(self, repairs: list[str]) -> "IndexInfo":
        """With more that was mended or is doubtful."""
        return replace(self, repairs=[*self.repairs, *repairs])


def content_hash(tables: dict[str, Tensor], info: str) -> str:
    """SHA-256 over the metadata and over every table's name, dtype, shape and bytes."""
    digest = hashlib.sha256(f"{len(info.encode())} {info}\n".encode())
    for name in sorted(tables):
        table = tables[name]
        digest.update(f"{name} {table.dtype} {tuple(table.shape)}\n".encode())
        # A copy, since a table of one element may have a stride that no view as bytes can have
        digest.update(table.numpy().tobytes())
    return digest.hexdigest()


def printable(text: str) -> str:
    """The text with what no terminal should get, such as escape sequences, written as Python escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def write_tables(path: Path, tables: dict[str, Tensor], info: IndexInfo) -> None:
    """Write to a temporary file beside `path` first, so that a crash leaves no half of an index."""
    text = info.to_json()
    metadata = {"format": FORMAT, "info": text, "sha256": content_hash(tables, text)}
    # Of a name of its own: two builds of one file must not mix, and what stands there is not ours to replace.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.touch(exist_ok=False)
    mode = temporary.stat().st_mode
    try:
        save_file(tables, temporary, metadata)
        # safetensors makes it readable by the owner alone.
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_tables(
    path: Path, expected: dict[str, tuple[torch.dtype, tuple[int, ...]]]
) -> tuple[dict[str, Tensor], IndexInfo]:
    """Tables (memory-mapped), and what they were made from.

    Raises:
        ValueError: naming the file, when it is missing, no safetensors file, lacks a table of the expected kind, or has
            other content than its SHA-256 says.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"{path} is no region index of this version ({FORMAT!r}). Build it again.")
            missing = sorted(set(expected) - set(file.keys()))
            if missing:
                raise ValueError(f"{path} lacks the table {missing[0]!r}.")
            tables = {name: file.get_tensor(name) for name in expected}
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file.") from error
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    for name, (dtype, shape) in expected.items():
        if tables[name].dtype != dtype or tables[name].shape[1:] != shape[1:] or tables[name].ndim != len(shape):
            got = f"{tables[name].dtype} {tuple(tables[name].shape)}"
            raise ValueError(f"{path}: the table {name!r} must be {dtype} (N, {shape[1:]}), got {got}.")
    text = metadata.get("info", "")
    if content_hash(tables, text) != metadata.get("sha256"):
        raise ValueError(f"{path}: the content does not match its SHA-256; the file was altered. Build it again.")
    return tables, _read_info(path, text)


def _read_info(path: Path, text: str) -> IndexInfo:
    problem = f"{path}: the metadata of the region index"
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{problem} cannot be read: {error!r}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{problem} must be an object, got {type(values).__name__}.")
    for name, (expected, is_sound) in _FIELDS.items():
        if name not in values or not is_sound(values[name]):
            got = f"{values[name]!r:.60}" if isinstance(values.get(name), str | int | float) else "something else"
            raise ValueError(f"{problem}: {name} must be {expected}, got {got if name in values else 'nothing'}.")
    return IndexInfo(**{name: values[name] for name in _FIELDS})


def _is_number(value: object, low: float, high: float) -> bool:
    # bool is an int; NaN compares false
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _are_lines(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(line, str) and line.isprintable() for line in value)


_LINES = ("a list of printable texts", _are_lines)
_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "metric": (f"one of {', '.join(METRICS)}", lambda value: isinstance(value, str) and value in METRICS),
    "coast_tolerance_km": ("a number from 0 to 500", lambda value: _is_number(value, 0, 500)),
    "num_polygon_regions": ("a count", lambda value: isinstance(value, int) and _is_number(value, 0, 2**31)),
    "sources": _LINES,
    "attributions": _LINES,
    "repairs": _LINES,
}
"""The fields of IndexInfo as a file must have them: in words, and the check."""
