"""Photographs for the tests: small pictures with a position and other secrets in their metadata."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

NAIROBI = (-1.2833333, 36.82)
SECRET = "Zorblax Hill"
"""In every text field that a file has: it must reach no model."""


def pixels(seed: int = 0, size: tuple[int, int] = (56, 56)) -> Image.Image:
    """Smooth noise, which lossy formats hardly change."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def exif_of(*, has_gps: bool = True, orientation: int | None = None) -> Image.Exif:
    """Nairobi, and the secret."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = SECRET
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    if has_gps:
        tags = ExifTags.GPS
        exif[ExifTags.IFD.GPSInfo] = {
            tags.GPSLatitudeRef: "S",
            tags.GPSLatitude: (1, 17, 0),
            tags.GPSLongitudeRef: "E",
            tags.GPSLongitude: (36, 49, 12),
            tags.GPSAreaInformation: SECRET.encode(),
        }
    return exif


def save_photograph(path: Path, format: str = "JPEG", picture: Image.Image | None = None, **exif: object) -> Path:
    """A file in Nairobi by its metadata. A HEIC file needs pillow_heif's opener registered."""
    # As bytes: pillow_heif finds the orientation in no others.
    options: dict[str, object] = {"exif": exif_of(**exif).tobytes()}  # type: ignore[arg-type]
    if format == "JPEG":
        options |= {"comment": SECRET, "xmp": f"<x>{SECRET}</x>".encode()}
    (picture or pixels()).save(path, format, **options)
    return path
