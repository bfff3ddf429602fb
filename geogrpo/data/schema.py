"""From the rows of a published file to examples: which column is what, and what is wrong with a row.

A format is a Schema; `read_examples` streams what it describes, `load_table` keeps it in little memory as splits.

Shapes: N rows of a chunk.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from geogrpo.config import DataConfig
from geogrpo.data.compact import CompactExamples, Part, compact, with_images
from geogrpo.data.coordinates import OrderCheck, read_latlon
from geogrpo.data.duplicates import DuplicateCheck
from geogrpo.data.holdout import Splits, split_files
from geogrpo.data.images_in import Images, ImagesIfThere, ListedImages
from geogrpo.data.parquet_images import ParquetImages, bytes_column, read_rows_with_pictures
from geogrpo.data.rows import Chunk, Names, table_files
from geogrpo.regions.index import default_index
from geogrpo.regions.names.locating import locate
from geogrpo.regions.sources.geonames import load_geonames
from geogrpo.regions.tabular_lines import can_be_text
from geogrpo.types import Example

logger = logging.getLogger(__name__)

FIELDS = ("id", "image", "lat", "lon", "country", "state", "city")
"""What an example is made of; any other field is a column for rewards."""
NUM_LISTED = 10
"""Rows named in a message about many."""
NO_NAMES = frozenset({"", "nan", "NaN", "none", "None", "null"})
"""Texts that published files hold for states and cities without a name. Not for countries: "NA" is Namibia."""


def _same(chunk: Chunk) -> Chunk:
    return chunk


@dataclass(frozen=True)
class Schema:
    """How one published file is read."""

    names: Names
    """Field -> the columns it may be in. FIELDS, and columns for rewards."""
    needed: Sequence[str] = ("image", "lat", "lon")
    """Fields that every file has."""
    prepare: Callable[[Chunk], Chunk] = _same
    """Makes fields out of others, such as a country out of a tagged text."""
    image_name: Callable[[str], str] = str
    """From the image field to the name of a file; not used for pictures in the table itself."""
    has_country_codes: bool = False
    """Whether countries are ISO 3166-1 alpha-2 codes."""
    is_located_by_name: bool = False
    """Whether a row without coordinates lies where `regions.names.locate` puts its country, state and city."""
    known_latlon_deg: tuple[float, float] | None = None
    """A point of the published file, to tell a swapped header by."""
    read: Callable[[Path, Names, Sequence[str]], Iterator[Chunk]] = read_rows_with_pictures
    """Reads a file's rows."""

    def given(self, config: DataConfig) -> "Schema":
        """With the configuration's columns, and latitude and longitude exchanged where it says so."""
        names = {field: tuple(columns) for field, columns in self.names.items()}
        names |= {field: (column,) for field, column in config.columns.items()}
        if config.swap_coordinates:
            names["lat"], names["lon"] = names["lon"], names["lat"]
        return replace(self, names=names)


class Missing:
    """Rows that cannot become examples: counted, the first of them listed."""

    def __init__(self, what: str, remedy: str) -> None:
        self._what, self._remedy = what, remedy
        self._num, self._first = 0, list[str]()

    def add(self, where: str) -> None:
        """Count one."""
        self._num += 1
        if len(self._first) < NUM_LISTED:
            self._first.append(where)

    def finish(self, file: Path, *, is_allowed: bool) -> None:
        """Log what was left out, or raise ValueError listing it."""
        if not self._num:
            return
        listed = "; ".join(self._first) + ("; ..." if self._num > len(self._first) else "")
        if not is_allowed:
            raise ValueError(
                f"{file}: {self._num:,} {self._what}: {listed}. {self._remedy}, or leave such rows out with"
                " data.allow_missing: true."
            )
        logger.warning("%s: %d %s, left out: %s", file, self._num, self._what, listed)


def read_parts(path: Path, schema: Schema, images: Images, config: DataConfig) -> Iterator[Part]:
    """The examples of a file, chunk by chunk; of `schema` as `given` by the configuration.

    Raises:
        ValueError: naming file and row, of a bad row as it is met; of missing images and coordinates, ids that occur
            twice and exchanged coordinates at the end of the file.
    """
    no_image = Missing(f"rows without an image in {images}", "Add the images, set data.images to where they are")
    no_coordinates = Missing("rows without coordinates", "Complete them")
    unknown_codes = Missing("rows with a country code that ISO 3166-1 does not have, named by their coordinates", "")
    order = OrderCheck(is_swapped=config.swap_coordinates, known_latlon_deg=schema.known_latlon_deg)
    duplicates = DuplicateCheck()
    num_examples = 0
    file_name = str if isinstance(images, ParquetImages) else schema.image_name
    for raw in schema.read(path, schema.names, schema.needed):
        chunk = schema.prepare(raw)
        names = _image_names(chunk, schema)
        numbers = images.find([file_name(name) if name else "" for name in names])
        points = _points(chunk, schema, config)
        order.add(points)
        countries = _countries(chunk, schema, unknown_codes)
        rows = _usable_rows(chunk, names, numbers, points, no_image, no_coordinates)
        ids = _ids(chunk, names)
        examples = _examples(chunk, rows, ids, points, countries)
        duplicates.add(chunk, rows, [example.id for example in examples])
        num_examples += len(examples)
        yield Part(examples, [int(numbers[row]) for row in rows])
    order.finish(path)
    duplicates.finish()
    unknown_codes.finish(path, is_allowed=True)
    no_coordinates.finish(path, is_allowed=config.allow_missing)
    no_image.finish(path, is_allowed=config.allow_missing)
    if not num_examples:
        raise ValueError(f"{path} holds no examples.")


def _usable_rows(
    chunk: Chunk,
    names: Sequence[str],
    numbers: np.ndarray,
    points: np.ndarray,
    no_image: Missing,
    no_coordinates: Missing,
) -> list[int]:
    has_image, has_point = numbers >= 0, ~np.isnan(points).any(axis=1)
    for row in np.flatnonzero(~has_image).tolist():
        no_image.add(f"{chunk.where(row)} ({names[row] or 'no name'})")
    for row in np.flatnonzero(has_image & ~has_point).tolist():
        no_coordinates.add(chunk.where(row))
    return np.flatnonzero(has_image & has_point).tolist()


def _image_names(chunk: Chunk, schema: Schema) -> list[str]:
    if "image" not in chunk.columns:
        raise ValueError(f"{chunk.file}: no column for the field 'image'. Say which it is: data.columns.image.")
    return _texts(chunk, "image")


def _texts(chunk: Chunk, field: str) -> list[str]:
    """(N,) texts, "" where there is none."""
    values = chunk.columns.get(field)
    if values is None:
        return [""] * len(chunk.numbers)
    if all(type(value) is str and value.isascii() for value in values):
        return values
    return [_text(chunk, row, field, value) for row, value in enumerate(values)]


def _text(chunk: Chunk, row: int, field: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int) or not can_be_text(str(value)):
        raise ValueError(f"{chunk.where(row)}: {field} must be a text, got {value!r:.80}.")
    return str(value)


def _ids(chunk: Chunk, names: Sequence[str]) -> list[str]:
    """Ids as the file has them; where it has none, the image's name."""
    return [given or name for given, name in zip(_texts(chunk, "id"), names, strict=True)]


def _points(chunk: Chunk, schema: Schema, config: DataConfig) -> np.ndarray:
    """(N, 2) degrees, NaN where a row has none."""
    absent = [None] * len(chunk.numbers)
    lat_values, lon_values = (chunk.columns.get(field, absent) for field in ("lat", "lon"))
    points = read_latlon(lat_values, lon_values, chunk.where, is_swapped=config.swap_coordinates)
    if schema.is_located_by_name:
        levels = [_texts(chunk, level) for level in ("country", "state", "city")]
        for row in np.flatnonzero(np.isnan(points).any(axis=1)).tolist():
            country, state, city = (level[row] or None for level in levels)
            points[row] = locate(country, state, city) or (np.nan, np.nan)
    return points


@cache
def _country_of_code() -> dict[str, str]:
    """ISO 3166-1 alpha-2 -> the name that the region index has."""
    places = load_geonames()
    return dict(zip(places.country_code, places.country, strict=True))


def _countries(chunk: Chunk, schema: Schema, unknown_codes: Missing) -> list[str | None]:
    texts = _texts(chunk, "country")
    if not schema.has_country_codes:
        return [text or None for text in texts]
    names = _country_of_code()
    for row, text in enumerate(texts):
        if text and text not in names:
            unknown_codes.add(f"{chunk.where(row)} ({text})")
    return [names.get(text) for text in texts]


def _examples(
    chunk: Chunk, rows: Sequence[int], ids: Sequence[str], points: np.ndarray, countries: Sequence[str | None]
) -> list[Example]:
    states, cities = _texts(chunk, "state"), _texts(chunk, "city")
    others = {field: values for field, values in chunk.columns.items() if field not in FIELDS}
    degrees = points.tolist()
    return [
        Example(
            ids[row],
            "",
            (degrees[row][0], degrees[row][1]),
            countries[row],
            None if states[row] in NO_NAMES else states[row],
            None if cities[row] in NO_NAMES else cities[row],
            {field: values[row] for field, values in others.items()} if others else {},
        )
        for row in rows
    ]


def find_images(path: Path, schema: Schema, images: str | None, *, are_needed: bool = True) -> Images:
    """Pictures in the table itself, or the configured folder or archive, or where none is, the table's folder.

    Args:
        are_needed: whether a row without its picture is at fault.
    """
    if not are_needed:
        has_folder = images is None or Path(images).exists()
        return ImagesIfThere(find_images(path, schema, images) if has_folder else None)
    files = table_files(path)
    column = bytes_column(files[0], schema.names["image"])
    if column is not None:
        return ParquetImages(files, column)
    return ListedImages(Path(images) if images is not None else files[0].parent)


def read_examples(path: str | Path, schema: Schema, config: DataConfig) -> Iterator[Example]:
    """The examples of one file in order, images unopened; errors as in `read_parts`."""
    path, given = Path(path), schema.given(config)
    images = find_images(path, given, config.images, are_needed=config.needs_images)
    for part in read_parts(path, given, images, config):
        yield from with_images(part, images)


def load_table(config: DataConfig, schema: Schema) -> Splits:
    """Examples of `path`, `grpo_path` and `test_path` in little memory; without a test_path, cells are held out.

    Raises:
        ValueError: as `read_parts`, or when there is neither a path nor a test_path.
    """
    given = schema.given(config)

    def read(path: str, images: str | None) -> CompactExamples:
        found = find_images(Path(path), given, images, are_needed=config.needs_images)
        return compact(read_parts(Path(path), given, found, config), found, default_index())

    test_images = config.images if config.test_images is None else config.test_images
    return split_files(config, lambda path: read(path, config.images), lambda path: read(path, test_images))
