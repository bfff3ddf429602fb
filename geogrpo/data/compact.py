"""Examples by the million: numbers and packed text, of which an Example is made when asked for.

Shapes: N examples.
"""

import json
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geogrpo.data.images_in import Images
from geogrpo.data.texts import Codes, CodesBuilder, Texts, TextsBuilder
from geogrpo.regions.chain import fill_regions
from geogrpo.regions.index import RegionIndex
from geogrpo.types import Example

LEVELS = ("country", "state", "city")


@dataclass(frozen=True)
class Part:
    """Some examples of a table; their images are numbers yet."""

    examples: list[Example]
    image_numbers: list[int]


@dataclass(frozen=True)
class _Columns:
    ids: Texts
    latlon_deg: np.ndarray
    image_numbers: np.ndarray
    names: tuple[Codes, ...]
    """One for each of LEVELS."""
    others: Texts | None
    """JSON objects; None where no example has columns."""
    images: Images


class CompactExamples(Sequence[Example]):
    """Some or all examples of a table. Slices and selections share what they were made from."""

    def __init__(self, columns: _Columns, rows: np.ndarray) -> None:
        self._columns, self._rows = columns, rows

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def latlon_deg(self) -> np.ndarray:
        """(N, 2) float64."""
        return self._columns.latlon_deg[self._rows]

    def select(self, rows: np.ndarray) -> "CompactExamples":
        """The examples at these places, (M,) int64 or (N,) bool."""
        return CompactExamples(self._columns, self._rows[rows])

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # Sequence's own overloads
        if isinstance(index, slice):
            return CompactExamples(self._columns, self._rows[index])
        row, columns = int(self._rows[index]), self._columns
        lat_deg, lon_deg = columns.latlon_deg[row].tolist()
        country, state, city = (codes[row] for codes in columns.names)
        others: dict[str, Any] = {} if columns.others is None else json.loads(columns.others[row])
        image = columns.images.source(int(columns.image_numbers[row]))
        return Example(columns.ids[row], image, (lat_deg, lon_deg), country, state, city, others)


def compact(parts: Iterable[Part], images: Images, index: RegionIndex) -> CompactExamples:
    """The examples of a table in little memory, levels without a name filled from the index.

    Raises:
        ValueError: as the parts do, or naming the example with a column that is no JSON value.
    """
    ids, others, names = TextsBuilder(), TextsBuilder(), tuple(CodesBuilder() for _ in LEVELS)
    points, image_numbers, has_others = array("d"), array("q"), False
    for part in parts:
        examples = fill_regions(part.examples, index)
        ids.extend([example.id for example in examples])
        for level, builder in zip(LEVELS, names, strict=True):
            builder.extend([getattr(example, level) for example in examples])
        for example in examples:
            points.extend(example.latlon_deg)
        image_numbers.extend(part.image_numbers)
        has_others = has_others or any(example.columns for example in examples)
        others.extend([_as_json(example) for example in examples])
    columns = _Columns(
        ids.finish(),
        np.frombuffer(points, np.float64).reshape(-1, 2),
        np.frombuffer(image_numbers, np.int64),
        tuple(builder.finish() for builder in names),
        others.finish() if has_others else None,
        images,
    )
    return CompactExamples(columns, np.arange(len(columns.ids), dtype=np.int32))


def _as_json(example: Example) -> str:
    if not example.columns:
        return "{}"
    try:
        return json.dumps(example.columns, default=_plain)
    except TypeError as error:
        raise ValueError(f"example {example.id!r}: a column for rewards is no JSON value: {error}.") from error


def _plain(value: Any) -> str:
    """Dates and decimals as text; bytes are not."""
    if isinstance(value, bytes):
        raise TypeError("bytes")
    return str(value)


def with_images(part: Part, images: Images) -> list[Example]:
    """The part's examples with what opens their images."""
    pairs = zip(part.examples, part.image_numbers, strict=True)
    return [replace(example, image=images.source(number)) for example, number in pairs]
