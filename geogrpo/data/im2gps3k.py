"""Im2GPS3k: `im2gps3k_places365.csv` of TIBHannover/GeoEstimation, and its images as a folder or zip.

2,997 of the 3,000 images are listed. Of the two stored copies of the file one has LON and LAT exchanged in its header
(commit 3487c535) over the same values: its latitudes beyond 90 are refused, `data.swap_coordinates: true` reads it.
Many photographs share an author and a place. There are no names; they are filled from coordinates.
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
        "author": ("AUTHOR",),
        "probability_indoor": ("Prob_indoor",),
        "probability_natural": ("Prob_natural",),
        "probability_urban": ("Prob_urban",),
    },
    # A photograph of London that both copies hold
    known_latlon_deg=(51.501821, -0.140655),
)


def read_im2gps3k(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The benchmark's examples, in the file's order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="im2gps3k"))


def load_im2gps3k(config: DataConfig, seed: int) -> Splits:
    """The benchmark as `test_path`, to evaluate on; as `path` it would be trained on."""
    del seed
    return load_table(config, SCHEMA)
