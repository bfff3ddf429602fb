"""Opening pictures that may be missing, broken or hostile.

There is one limit on pixels, Pillow's `Image.MAX_IMAGE_PIXELS`: above it Pillow only warns, and refuses above twice as
many; here everything above it is refused, before its pixels are decoded.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from geogrpo.types import Example

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What PIL raises on files that are missing, no image, broken, truncated or far too large."""


def limit_image_pixels(max_pixels: int) -> None:
    """Set the limit for this process, in which Pillow keeps it."""
    Image.MAX_IMAGE_PIXELS = max_pixels


def open_image(example: Example) -> Image.Image:
    """The example's picture, upright and in RGB: of an animation the first frame, of 16-bit shades the upper 8 bits.

    Raises:
        ValueError: naming the example and its file, when the picture is missing, broken, truncated, too large or of
            floating-point pixels, which have no white.
    """
    source = example.image
    try:
        if isinstance(source, str | Path):
            with Image.open(source) as opened:
                return upright_rgb(opened)
        return upright_rgb(source if isinstance(source, Image.Image) else source.open())
    except UNREADABLE as error:
        raise image_error(example, "read", error) from error


def check_image_file(example: Example) -> None:
    """Raise ValueError when the example's image file is missing or is no image.

    Only the header is read, since a data set may have a million files: one that is cut short passes, and is skipped and
    counted when training meets it. `--dry-run` reads every file to its end.
    """
    if isinstance(example.image, str | Path):
        try:
            with Image.open(example.image) as opened:
                _check_size(opened)
        except UNREADABLE as error:
            raise image_error(example, "read", error) from error


def _check_size(picture: Image.Image) -> None:
    num_pixels, limit = picture.width * picture.height, Image.MAX_IMAGE_PIXELS
    if limit is not None and num_pixels > limit:
        raise ValueError(
            f"{num_pixels:,} pixels, more than {limit:,}: a decompression bomb? data.max_image_pixels is the limit"
        )


def upright_rgb(picture: Image.Image) -> Image.Image:
    """A copy, upright and in RGB: of an animation the first frame, of 16-bit shades the upper 8 bits.

    Raises one of UNREADABLE when there are too many pixels, they are cut short, or floating-point without a white.
    """
    _check_size(picture)
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a white; save it with 8 bits")
    if picture.mode.startswith("I"):
        # PIL would cut 16 bits off at 255 instead of scaling them; as I come those of PGM and of some TIFF
        picture = Image.fromarray((np.asarray(picture).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def image_error(example: Example, action: str, error: Exception) -> ValueError:
    """The error to raise when the example's image cannot be read (or whatever `action` says), naming both."""
    name = "in memory" if isinstance(example.image, Image.Image) else str(example.image)
    reason = str(error).rstrip(".")
    return ValueError(
        f"example {example.id!r}: cannot {action} image {name}: {reason}. Replace the image, or leave the example out."
    )
