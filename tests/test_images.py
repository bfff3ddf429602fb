"""Pictures that are missing, broken, hostile or stored in another mode."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from geogrpo.images import check_image_file, limit_image_pixels, open_image
from geogrpo.types import Example

# The corners of a picture, left to right, then down
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def example(image: object) -> Example:
    return Example("x7", image, (0.0, 0.0))  # type: ignore[arg-type]


def four_corners() -> Image.Image:
    """3 wide, 2 high, so that a turn shows."""
    return Image.fromarray(np.array([[RED, RED, GREEN], [BLUE, WHITE, WHITE]], dtype=np.uint8))


def encoded(suffix: str) -> bytes:
    """A picture of noise, which no format makes short."""
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, suffix)
    return buffer.getvalue()


class Source:
    """A picture made when asked for."""

    def __init__(self, result: Image.Image | Exception) -> None:
        self.result = result

    def open(self) -> Image.Image:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def __str__(self) -> str:
        return "row 12 of the archive"


def assert_is_rejected(image: object, named: str, why: str = "") -> None:
    message = rf"^example 'x7': cannot read image {re.escape(named)}: .*{why}.*\. Replace the image, or leave the"
    with pytest.raises(ValueError, match=message):
        open_image(example(image))


def test_a_file_a_picture_and_a_source_are_opened_alike(tmp_path: Path) -> None:
    four_corners().save(tmp_path / "x.png")
    for image in (tmp_path / "x.png", str(tmp_path / "x.png"), four_corners(), Source(four_corners())):
        opened = open_image(example(image))
        assert opened.mode == "RGB"
        assert np.array_equal(np.asarray(opened), np.asarray(four_corners()))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert_is_rejected(tmp_path / "none.jpg", str(tmp_path / "none.jpg"), "No such file")
    assert_is_rejected(tmp_path, str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"this is text, whatever its name says"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    assert_is_rejected(path, str(path), "cannot identify image file")


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_named_and_never_half_a_picture(tmp_path: Path, suffix: str, share: float) -> None:
    path, content = tmp_path / "x.bin", encoded(suffix)
    path.write_bytes(content)
    open_image(example(path))
    path.write_bytes(content[: int(share * len(content))])
    assert_is_rejected(path, str(path))


# PIL's own warnings about what it skips
@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "PPM", "BMP"])
def test_damaged_bytes_give_a_picture_or_an_error_that_names_the_file(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path, content = tmp_path / "x.bin", encoded(suffix)
    messages = []
    for _ in range(200):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[rng.integers(0, 60, size=2)] = rng.integers(0, 256, size=2)
        path.write_bytes(damaged.tobytes())
        for read in (open_image, check_image_file):
            try:
                read(example(path))
            except ValueError as error:
                messages.append(str(error))
    assert messages
    assert [text for text in messages if not text.startswith(f"example 'x7': cannot read image {path}: ")] == []


# Pillow's own, of what is refused here
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("limit", [4999, 5000, 9999])
def test_a_decompression_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Also between Pillow's limit and twice as much, where it only warns."""
    path = tmp_path / "x.png"
    picture = Image.new("L", (100, 100))
    picture.save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert_is_rejected(path, str(path), "decompression bomb")
    assert_is_rejected(Source(picture), "row 12 of the archive", "10,000 pixels, more than .*max_image_pixels")
    with pytest.raises(ValueError, match=r"^example 'x7': cannot read image .*x\.png: .*decompression bomb"):
        check_image_file(example(path))
    limit_image_pixels(10000)
    assert open_image(example(path)).size == (100, 100)
    check_image_file(example(path))


@pytest.mark.parametrize("suffix", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.{suffix.lower()}"
    first, second = Image.new("RGB", (8, 8), (0, 0, 0)), Image.new("RGB", (8, 8), WHITE)
    first.save(path, suffix, save_all=True, append_images=[second], lossless=True)
    assert open_image(example(path)).getpixel((0, 0)) == (0, 0, 0)


def test_16_bits_in_other_modes_keep_their_shades_and_floats_are_refused(tmp_path: Path) -> None:
    shades = np.array([[0, 0x4000, 0x8000, 0xFFFF]])
    path = tmp_path / "x.pgm"
    path.write_bytes(b"P5\n4 1\n65535\n" + shades.astype(">u2").tobytes())
    Image.fromarray(shades.astype(np.int32)).save(tmp_path / "x.tif")
    for file in (path, tmp_path / "x.tif"):
        assert np.asarray(open_image(example(file)))[0, :, 0].tolist() == [0, 0x40, 0x80, 0xFF]
    Image.fromarray(shades.astype(np.float32)).save(tmp_path / "y.tif")
    assert_is_rejected(tmp_path / "y.tif", str(tmp_path / "y.tif"), "floating-point numbers without a white")


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("L", (2, 1), 100), (100, 100, 100)),
        (Image.new("1", (2, 1), 1), WHITE),
        (Image.new("RGB", (2, 1), (10, 20, 30)).quantize(2), (10, 20, 30)),
        (Image.new("RGBA", (2, 1), (10, 20, 30, 0)), (10, 20, 30)),
        (Image.new("LA", (2, 1), (100, 255)), (100, 100, 100)),
        (Image.new("CMYK", (2, 1), (0, 0, 0, 255)), (0, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_mode_becomes_rgb(picture: Image.Image, expected: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / ("x.tif" if picture.mode == "CMYK" else "x.png")
    picture.save(path)
    for image in (path, picture):
        opened = open_image(example(image))
        assert opened.mode == "RGB"
        assert opened.getpixel((1, 0)) == expected


def test_a_16_bit_picture_keeps_its_shades(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(np.array([[0, 0x4000, 0x8000, 0xFFFF]], dtype=np.uint16)).save(path)
    reds = np.asarray(open_image(example(path)))[0, :, 0]
    assert reds.tolist() == [0, 0x40, 0x80, 0xFF]


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (4, Image.Transpose.FLIP_TOP_BOTTOM),
        (5, Image.Transpose.TRANSPOSE),
        # A camera held upright stores the picture on its side: 6 is turned back clockwise, 8 the other way.
        (6, Image.Transpose.ROTATE_90),
        (7, Image.Transpose.TRANSVERSE),
        (8, Image.Transpose.ROTATE_270),
    ],
)
def test_a_photograph_is_turned_upright(tmp_path: Path, orientation: int, undo: Image.Transpose | None) -> None:
    path = tmp_path / "x.png"
    stored = four_corners() if undo is None else four_corners().transpose(undo)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(path, exif=exif)
    assert np.array_equal(np.asarray(open_image(example(path))), np.asarray(four_corners()))


def test_a_photograph_in_memory_or_from_a_source_is_turned_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    four_corners().transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        for image in (opened, Source(opened)):
            assert np.array_equal(np.asarray(open_image(example(image))), np.asarray(four_corners()))


@pytest.mark.parametrize("error", [OSError("disk gone"), ValueError("bad row")])
def test_a_source_that_fails_is_named_by_its_text(error: Exception) -> None:
    assert_is_rejected(Source(error), "row 12 of the archive", str(error))


def test_a_bug_in_a_source_is_not_swallowed() -> None:
    with pytest.raises(KeyError, match="a bug"):
        open_image(example(Source(KeyError("a bug"))))


def test_a_check_reads_files_only(tmp_path: Path) -> None:
    four_corners().save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_text("not a picture")
    for good in (tmp_path / "good.png", four_corners(), Source(OSError("not asked for"))):
        check_image_file(example(good))
    with pytest.raises(ValueError, match=r"^example 'x7': cannot read image .*bad\.png: "):
        check_image_file(example(tmp_path / "bad.png"))
    with pytest.raises(ValueError, match=r"^example 'x7': cannot read image .*none\.png: .*No such file"):
        check_image_file(example(str(tmp_path / "none.png")))
