"""Examples from a folder of photographs, placed by the GPS position in their EXIF data.

Only headers are read here: a photograph cut short further on is skipped and counted in training, or found by
`--dry-run`.
"""

import logging
from pathlib import Path

from PIL import ExifTags, Image

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits, split_files
from geogrpo.images import UNREADABLE
from geogrpo.regions.chain import fill_regions
from geogrpo.regions.index import default_index
from geogrpo.types import Example, check_latlon

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


def gps_latlon_deg(path: str | Path) -> tuple[float, float] | None:
    """The (lat, lon) that a photograph's EXIF data gives, or None where it gives none.

    Raises:
        ValueError: naming the file, when it is no readable image or its GPS data is malformed.
    """
    try:
        with Image.open(path) as picture:
            gps = picture.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error
    if ExifTags.GPS.GPSLatitude not in gps or ExifTags.GPS.GPSLongitude not in gps:
        return None
    lat_deg = _degrees(gps[ExifTags.GPS.GPSLatitude], path)
    lon_deg = _degrees(gps[ExifTags.GPS.GPSLongitude], path)
    lat_sign = _sign(gps.get(ExifTags.GPS.GPSLatitudeRef), "N", "S", path)
    lon_sign = _sign(gps.get(ExifTags.GPS.GPSLongitudeRef), "E", "W", path)
    latlon_deg = (lat_sign * lat_deg, lon_sign * lon_deg)
    check_latlon(latlon_deg, f"{path}: EXIF GPS")
    return latlon_deg


def _degrees(parts: object, path: str | Path) -> float:
    """Degrees, minutes and seconds as one number."""
    try:
        degrees, minutes, seconds = (float(part) for part in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: EXIF GPS must be degrees, minutes, seconds, got {parts!r}.") from error
    return degrees + minutes / 60 + seconds / 3600


def _sign(reference: object, positive: str, negative: str, path: str | Path) -> int:
    """1 or -1; a guess would put the label into the wrong hemisphere."""
    letter = str(reference).strip("\0 ").upper()
    if letter not in (positive, negative):
        raise ValueError(f"{path}: EXIF GPS reference must be {positive} or {negative}, got {reference!r}.")
    return 1 if letter == positive else -1


def read_photos(folder: str | Path) -> list[Example]:
    """The photographs below a folder that carry a GPS position, by path; the others are counted in the log.

    Raises:
        ValueError: when the folder is missing, a photograph is broken, or none carries a GPS position.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(
            f"{folder}: no such folder. Set data.path (data.test_path, data.grpo_path) to a folder of photographs."
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    examples, without_gps = [], []
    for file in files:
        latlon_deg = gps_latlon_deg(file)
        if latlon_deg is None:
            without_gps.append(file.name)
        else:
            examples.append(Example(str(file.relative_to(folder)), file, latlon_deg))
    if without_gps:
        logger.warning("%d photographs in %s carry no GPS position: %s", len(without_gps), folder, without_gps[:5])
    if not examples:
        raise ValueError(
            f"{folder}: no photograph with a GPS position among {len(files)} images."
            " Where coordinates are known otherwise, list them in a JSONL file (data.name jsonl)."
        )
    return examples


def load_photos(config: DataConfig, seed: int) -> Splits:
    """Photographs of `path`, `grpo_path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    if config.path is None and config.test_path is None:
        raise ValueError("data.path must name a folder when data.name is photos.")
    return split_files(config, lambda folder: fill_regions(read_photos(folder), default_index()))
