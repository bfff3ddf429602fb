"""YFCC4k: `yfcc4k_places365.csv` as G3 reads it, or the benchmark's own `info.txt` as OSV-5M's loader does.

info.txt is separated by tabs and has no header: the photo's id in the second field, longitude and latitude (in this
order) in the 13th and 14th, and images named <id>.jpg. Of the CSV only IMG_ID, LAT and LON are known for sure.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.rows import Chunk, Names, read_headless, read_rows, table_files
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.types import Example

INFO_POSITIONS = {"id": 1, "image": 1, "lon": 12, "lat": 13}
INFO_COLUMNS = 14
COLUMNS = frozenset({"IMG_ID", "LAT", "LON"})


def _read(path: Path, names: Names, needed: Sequence[str]) -> Iterator[Chunk]:
    if path.suffix.lower() != ".txt":
        return read_rows(path, names, needed)
    if any(set(columns) - COLUMNS for columns in names.values()):
        raise ValueError(f"{path}: info.txt has no named columns: leave data.columns out.")
    (file,) = table_files(path)
    # Exchanged coordinates come under each other's name
    positions = INFO_POSITIONS | {field: INFO_POSITIONS[names[field][0].lower()] for field in ("lat", "lon")}
    return read_headless(file, positions, INFO_COLUMNS)


def _image_name(name: str) -> str:
    return name if name.lower().endswith((".jpg", ".jpeg", ".png")) else f"{name}.jpg"


SCHEMA = Schema(
    names={"id": ("IMG_ID",), "image": ("IMG_ID",), "lat": ("LAT",), "lon": ("LON",)},
    image_name=_image_name,
    read=_read,
)


def read_yfcc4k(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The benchmark's examples, in the file's order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="yfcc4k"))


def load_yfcc4k(config: DataConfig, seed: int) -> Splits:
    """The benchmark as `test_path`, to evaluate on; as `path` it would be trained on."""
    del seed
    return load_table(config, SCHEMA)
