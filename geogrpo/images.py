"""Opening pictures that may be missing, broken or hostile."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from geogrpo.types import Example

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What PIL raises on files that are missing, no image, broken, truncated or far too large."""


def open_image(example: Example) -> Image.Image:
    """The example's picture, upright and in RGB.

    Raises:
        ValueError: naming the example and its file, when the picture is missing, broken, truncated or too large.
    """
    source = example.image
    try:
        if isinstance(source, str | Path):
            with Image.open(source) as opened:
                return _upright_rgb(opened)
        return _upright_rgb(source if isinstance(source, Image.Image) else source.open())
    except UNREADABLE as error:
        raise image_error(example, "read", error) from error


def check_image_file(example: Example) -> None:
    """Raise ValueError when the example's image file is missing or is no image.

    Only the header is read, since a data set may have a million files: one that is cut short passes, and is skipped and
    counted when training meets it. `--dry-run` reads every file to its end.
    """
    if isinstance(example.image, str | Path):
        try:
            with Image.open(example.image):
                pass
        except UNREADABLE as error:
            raise image_error(example, "read", error) from error


def _upright_rgb(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        # PIL would cut 16 bits off at 255 instead of scaling them
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")


def image_error(example: Example, action: str, error: Exception) -> ValueError:
    """The error to raise when the example's image cannot be read (or whatever `action` says), naming both."""
    name = "in memory" if isinstance(example.image, Image.Image) else str(example.image)
    reason = str(error).rstrip(".")
    return ValueError(
        f"example {example.id!r}: cannot {action} image {name}: {reason}. Replace the image, or leave the example out."
    )
