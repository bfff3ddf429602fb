"""MP16-Pro: `MP16_Pro_filtered.csv` or `MP16_Pro_places365.csv` of Jia-py/MP16-Pro, some 4 million Flickr photographs.

IMG_ID is "xx/yy/<id>.jpg"; the images are published with "_" in place of "/". The file may name the same place's
country, state, county and city; `state` is empty for many countries, where `region` may stand for it. Files of 5,120
bytes or fewer, which G3 passes over as placeholders of photographs that are gone, are not told apart here.
"""

from collections.abc import Iterator
from pathlib import Path

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.types import Example

SCHEMA = Schema(
    names={
        "id": ("IMG_ID",),
        "image": ("IMG_ID",),
        "lat": ("LAT",),
        "lon": ("LON",),
        "country": ("country",),
        "state": ("state",),
        "city": ("city",),
    },
)


def read_mp16_pro(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The examples of one of the two files, in its order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="mp16_pro"))


def load_mp16_pro(config: DataConfig, seed: int) -> Splits:
    """Examples of `path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    return load_table(config, SCHEMA)
