"""Photographs of every kind, and of none: what is read of them and what is left behind."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from prediction.photographs import NAIROBI, SECRET, exif_of, pixels, save_photograph

from geogrpo.prediction import read_photograph


@pytest.fixture
def _heic() -> None:
    """So that Pillow writes HEIC."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs pillow-heif: pip install 'geogrpo[heic]'")
    pillow_heif.register_heif_opener()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.usefixtures("_heic")
def test_every_format_gives_pixels_and_position_whatever_its_name(tmp_path: Path, format: str) -> None:
    path = save_photograph(tmp_path / "name.txt", format)
    photograph = read_photograph(path)
    assert photograph.own_latlon_deg == pytest.approx(NAIROBI, abs=1e-6)
    assert photograph.gps_problem is None
    shift = np.asarray(photograph.picture).astype(int) - np.asarray(pixels()).astype(int)
    assert np.abs(shift).mean() < 8


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "HEIF"])
@pytest.mark.usefixtures("_heic")
def test_nothing_but_pixels_is_left_of_a_photograph(tmp_path: Path, format: str) -> None:
    path = save_photograph(tmp_path / "zorblax.jpg", format)
    assert SECRET.encode() in path.read_bytes()
    picture = read_photograph(path).picture
    assert type(picture) is Image.Image
    assert (picture.mode, picture.info, dict(picture.getexif())) == ("RGB", {}, {})
    content = pickle.dumps(picture) + repr(vars(picture)).encode()
    assert SECRET.encode() not in content
    assert b"zorblax" not in content


@pytest.mark.parametrize("format", ["JPEG", "HEIF"])
@pytest.mark.usefixtures("_heic")
def test_a_photograph_is_turned_upright(tmp_path: Path, format: str) -> None:
    lying = pixels(size=(96, 64))
    path = save_photograph(tmp_path / "a", format, lying, orientation=6)
    upright = np.asarray(lying.transpose(Image.Transpose.ROTATE_270)).astype(int)
    picture = np.asarray(read_photograph(path).picture).astype(int)
    assert picture.shape == upright.shape
    assert np.abs(picture - upright).mean() < 8


def test_a_photograph_without_a_position_has_none(tmp_path: Path) -> None:
    photograph = read_photograph(save_photograph(tmp_path / "a.jpg", has_gps=False))
    assert (photograph.own_latlon_deg, photograph.gps_problem) == (None, None)


def test_a_position_that_cannot_be_read_is_told_and_the_picture_kept(tmp_path: Path) -> None:
    exif = exif_of()
    exif[ExifTags.IFD.GPSInfo] |= {ExifTags.GPS.GPSLatitudeRef: "X"}
    pixels().save(tmp_path / "a.jpg", exif=exif)
    photograph = read_photograph(tmp_path / "a.jpg")
    assert photograph.own_latlon_deg is None
    assert photograph.gps_problem == "EXIF GPS reference must be N or S, got 'X'."
    assert photograph.picture.size == (56, 56)


def test_what_is_no_image_of_these_kinds_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    pixels().save(path, "BMP")
    for content in (path.read_bytes(), b"", b"<svg/>", b"GIF89a" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path}: not a JPEG, PNG, WebP, TIFF or HEIC image$"):
            read_photograph(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "HEIF"])
@pytest.mark.usefixtures("_heic")
def test_a_photograph_cut_short_is_named(tmp_path: Path, format: str) -> None:
    path = save_photograph(tmp_path / "a", format, pixels(size=(400, 400)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(ValueError, match=f"^{path}: (cannot be read as an|not a JPEG, PNG, WebP, TIFF or HEIC) image"):
        read_photograph(path)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{tmp_path}/a.jpg: No such file or directory$"):
        read_photograph(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=f"^{tmp_path}: Is a directory$"):
        read_photograph(tmp_path)


def test_too_many_pixels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_photograph(tmp_path / "a.png", "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 56 * 56 - 1)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match=r"a.png: .* 3,136 pixels"):
        read_photograph(path)


def test_heic_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=rf"^{path}: HEIC needs the library pillow-heif: .* 'geogrpo\[heic\]'$"):
        read_photograph(path)
