"""A photograph as a model may see it, nothing but its pixels, and apart from them the position its EXIF data gives."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from geogrpo.data.photos import gps_latlon_deg
from geogrpo.images import UNREADABLE, upright_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")
"""Pillow's own; HEIC comes through the library pillow-heif."""
HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
"""What stands in a HEIC file's eighth to eleventh byte (ISO/IEC 23008-12)."""


@dataclass(frozen=True)
class Photograph:
    """One file."""

    picture: Image.Image
    """Upright, RGB, without metadata and without a name."""
    own_latlon_deg: tuple[float, float] | None
    """(lat, lon) of the file's EXIF data, for comparison; None where there is none that can be read."""
    gps_problem: str | None
    """Why the EXIF position cannot be read; None where it can or there is none."""


def read_photograph(path: Path) -> Photograph:
    """The photograph in a JPEG, PNG, WebP, TIFF or HEIC file, told by its content whatever its name.

    Raises:
        ValueError: naming the file, when it is missing, of another kind, broken, cut short or too large, or when it is
            HEIC and the library for it is missing.
    """
    try:
        with path.open("rb") as file:
            beginning = file.read(12)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    formats = _heic_formats(path) if _is_heic(beginning) else FORMATS
    try:
        with Image.open(path, formats=formats) as opened:
            picture = upright_rgb(opened)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not a JPEG, PNG, WebP, TIFF or HEIC image") from error
    except UNREADABLE as error:
        raise ValueError(f"{path}: cannot be read as an image: {error}") from error
    # EXIF, XMP and comments hold where a photograph was taken.
    picture.info = {}
    try:
        return Photograph(picture, gps_latlon_deg(path), None)
    except ValueError as error:
        return Photograph(picture, None, str(error).removeprefix(f"{path}: "))


def _is_heic(beginning: bytes) -> bool:
    return beginning[4:8] == b"ftyp" and beginning[8:12] in HEIC_BRANDS


def _heic_formats(path: Path) -> tuple[str, ...]:
    try:
        # Here, because most photographs need it not.
        import pillow_heif
    except ModuleNotFoundError as error:
        raise ValueError(f"{path}: HEIC needs the library pillow-heif: pip install 'geogrpo[heic]'") from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)
