"""Any CSV, TSV, JSONL, JSON list or Parquet file with image names, or image bytes in Parquet, and coordinates.

The usual names of columns are known; `data.columns` names others, and the columns that rewards need:

data:
  name: table
  path: places.csv
  images: photographs.zip
  columns: {image: photo_url, lat: y, lon: x, entities: seen}
"""

from collections.abc import Iterator
from pathlib import Path

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.rows import Names
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.types import Example

NAMES: Names = {
    "id": ("id", "ID"),
    "image": ("image", "file", "path", "IMG_ID", "img_id", "IMG_FILE", "image_path", "filename"),
    "lat": ("lat", "latitude", "LAT", "Latitude"),
    "lon": ("lon", "lng", "long", "longitude", "LON", "Longitude"),
    "country": ("country",),
    "state": ("state",),
    "city": ("city",),
}


SCHEMA = Schema(names=NAMES)


def read_table(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The examples of a table, in its order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="table"))


def load_any_table(config: DataConfig, seed: int) -> Splits:
    """Examples of `path`, `grpo_path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    return load_table(config, SCHEMA)
