"""Opening pictures that may be missing, broken or hostile."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image, ImageOps

from geogrpo.types import Example


def open_image(example: Example) -> Image.Image:
    """The example's picture, upright and in RGB.

    Raises:
        ValueError: naming the example and its file, when the picture is missing, broken, truncated or too large.
    """
    source = example.image
    try:
        if isinstance(source, str | Path):
            with Image.open(source) as opened:
                picture = ImageOps.exif_transpose(opened)
        else:
            picture = source if isinstance(source, Image.Image) else source.open()
        return picture.convert("RGB")
    # PIL raises SyntaxError on a broken PNG chunk; EOFError, struct errors and OSError on others
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"example {example.id!r}: cannot read image {_name(source)}: {error}") from error


def check_image_files(examples: Iterable[Example]) -> None:
    """Raise ValueError for the first image file that is missing or is no image, reading headers only."""
    for example in examples:
        if isinstance(example.image, str | Path):
            try:
                with Image.open(example.image):
                    pass
            except (OSError, SyntaxError, Image.DecompressionBombError) as error:
                raise ValueError(f"example {example.id!r}: cannot read image {example.image}: {error}") from error


def _name(source: object) -> str:
    return "in memory" if isinstance(source, Image.Image) else str(source)
