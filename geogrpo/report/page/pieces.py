"""What parts of the page are made of: somebody else's text, made harmless and short, and small pictures."""

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

from geogrpo.images import open_image
from geogrpo.report.tables import clean_text
from geogrpo.types import Example

THUMBNAIL_BYTES = 7_000
"""At most, so that 1,000 examples with the longest texts stay under 15 MB."""
THUMBNAIL_STEPS = ((160, 78), (160, 60), (160, 40), (120, 40), (80, 40), (48, 30))
"""(longest side in pixels, JPEG quality), tried until the thumbnail is small enough."""
MAX_TEXT_BYTES = 2_500
"""Of an answer, of its reasoning and of any other text, in UTF-8; the page says how much it left out."""


def escaped(text: str) -> str:
    """The text as HTML that shows it."""
    return html.escape(clean_text(text))


def cut(text: str) -> str:
    """The text without what cannot be written, and without its end where it is long."""
    text = clean_text(text)
    kept = text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
    left_out = len(text) - len(kept)
    return f"{kept}… ({left_out:,} more characters)" if left_out else text


def thumbnail(example: Example) -> tuple[str, None] | tuple[None, str]:
    """(base64 JPEG of at most THUMBNAIL_BYTES, None), or (None, why there is none). Pixels alone: no EXIF."""
    try:
        picture = open_image(example)
    except ValueError as error:
        return None, cut(str(error))
    for side, quality in THUMBNAIL_STEPS:
        picture.thumbnail((side, side))
        encoded = jpeg(picture, quality)
        if len(encoded) * 3 // 4 <= THUMBNAIL_BYTES:
            break
    return encoded, None


def jpeg(picture: Image.Image, quality: int) -> str:
    """A picture as base64."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def framed(header: str, lines: Sequence[str]) -> str:
    """A table that scrolls by itself, of header cells and rows as HTML."""
    return f'<div class="scroll"><table><thead><tr>{header}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
