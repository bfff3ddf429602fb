"""OSV-5M: `train.csv` (4.9 million rows) and `test.csv` (210,122), images named <id>.jpg in numbered folders or zips.

Columns are read by name, as their order differs between copies. Countries are ISO codes ("NA" is Namibia) and become
names; region is the state, sub-region is between it and the city. Images are found by name anywhere below
`data.images`, also in the zips as downloaded.
"""

from collections.abc import Iterator
from pathlib import Path

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.types import Example


def _image_name(example_id: str) -> str:
    return f"{example_id}.jpg"


SCHEMA = Schema(
    names={
        "id": ("id",),
        "image": ("id",),
        "lat": ("latitude",),
        "lon": ("longitude",),
        "country": ("country",),
        "state": ("region",),
        "city": ("city",),
    },
    image_name=_image_name,
    has_country_codes=True,
)


def read_osv5m(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The examples of train.csv or test.csv, in the file's order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="osv5m"))


def load_osv5m(config: DataConfig, seed: int) -> Splits:
    """Examples of `path` (train.csv) and `test_path` (test.csv), in about 100 bytes each."""
    del seed
    return load_table(config, SCHEMA)
