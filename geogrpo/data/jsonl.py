"""Examples from a JSONL file: one object per line with an image path and coordinates.

{"image": "photos/paris.jpg", "lat": 48.8584, "lon": 2.2945, "country": "France"}

Paths are relative to the file. `id` (default: the path), `country`, `state` and `city` are optional, null is as good as
missing, and an id occurs once; every other key is passed to rewards. Of the images only headers are read here, as there
may be millions: one that is cut short further on is skipped and counted in training, or found by `--dry-run`.
"""

import json
from pathlib import Path
from typing import Any

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits, split_files
from geogrpo.images import check_image_file
from geogrpo.regions.chain import fill_regions
from geogrpo.regions.index import default_index
from geogrpo.types import Example

LAT_KEYS = ("lat", "latitude", "LAT", "Latitude")
LON_KEYS = ("lon", "longitude", "lng", "LON", "Longitude")


def read_jsonl(path: str | Path, *, needs_images: bool = True) -> list[Example]:
    """Every line's example, in order. An image that is missing or none is found here; one that is cut short is not.

    Raises:
        ValueError: naming file and line, on anything that is not a valid example with an image file.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Set data.path (data.test_path, data.grpo_path) to a JSONL file.")
    examples: list[Example] = []
    line_of_id: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            example = _parse_line(line, f"{path}:{number}", path.parent, needs_images)
            earlier = line_of_id.setdefault(example.id, number)
            if earlier != number:
                raise ValueError(
                    f"{path}:{number}: id {example.id!r} is that of line {earlier} (an id not given is the image's"
                    " path). Give each line an 'id' of its own, or remove one of the two."
                )
            examples.append(example)
    if not examples:
        raise ValueError(f"{path} holds no examples: expected one JSON object per line.")
    return examples


def _parse_line(line: bytes, where: str, folder: Path, needs_image: bool) -> Example:
    try:
        record = json.loads(line.decode("utf-8").strip())
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 text ({error.reason} at byte {error.start}).") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).") from error
    except (ValueError, RecursionError) as error:
        # An integer of more than 4300 digits, or brackets nested too deep
        raise ValueError(f"{where}: not valid JSON ({error}).") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected an object with image, lat, lon, got {type(record).__name__}.")
    image = record.pop("image", None)
    if not isinstance(image, str):
        raise ValueError(f"{where}: key 'image' must be a path, got {image!r}.")
    latlon_deg = (_pop_degrees(record, LAT_KEYS, where), _pop_degrees(record, LON_KEYS, where))
    names = {level: _pop_name(record, level, where) for level in ("country", "state", "city")}
    example_id = record.pop("id", None)
    try:
        example = Example(
            image if example_id is None else str(example_id), folder / image, latlon_deg, **names, columns=record
        )
        if needs_image:
            check_image_file(example)
        return example
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _pop_name(record: dict[str, Any], level: str, where: str) -> str | None:
    name = record.pop(level, None)
    if not isinstance(name, str | None):
        raise ValueError(f"{where}: key {level!r} must be a name, got {name!r}.")
    return name


def _pop_degrees(record: dict[str, Any], keys: tuple[str, ...], where: str) -> float:
    for key in keys:
        if key in record:
            value = record.pop(key)
            # bool is an int in Python; a coordinate of true is a mistake
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{where}: key {key!r} must be a number in degrees, got {value!r}.")
            try:
                return float(value)
            except OverflowError as error:
                raise ValueError(f"{where}: key {key!r} must be a number in degrees, got one too large.") from error
    raise ValueError(f"{where}: key {keys[0]!r} is missing (also accepted: {', '.join(keys[1:])}).")


def load_jsonl(config: DataConfig, seed: int) -> Splits:
    """Examples of `path`, `grpo_path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    if config.path is None and config.test_path is None:
        raise ValueError("data.path must name a JSONL file when data.name is jsonl.")
    needs = config.needs_images
    return split_files(config, lambda path: fill_regions(read_jsonl(path, needs_images=needs), default_index()))
