"""Positions of photographs, real and made here."""

import logging
import re
import struct
import zlib
from pathlib import Path

import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from geogrpo.config import DataConfig
from geogrpo.data import load_dataset
from geogrpo.data.photos import gps_latlon_deg, read_photos

PHOTOS = Path(__file__).parents[2].parent / "shared/data/photos"
# From a photograph at 33 degrees 51' 30", 151 degrees 12' 36"
LAT, LON = (33.0, 51.0, 30.0), (151.0, 12.0, 36.0)

real_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"the test photographs are not in {PHOTOS}")


def photograph(path: Path, gps: dict[int, object] | None = None) -> Path:
    """A small picture with this GPS data."""
    picture = Image.new("RGB", (8, 8), "green")
    exif = picture.getexif()
    exif[ExifTags.Base.Make] = "camera"
    if gps is not None:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, exif=exif)
    return path


def gps(lat: object = LAT, lon: object = LON, south: object = "S", east: object = "E") -> dict[int, object]:
    tags = ExifTags.GPS
    values = {tags.GPSLatitudeRef: south, tags.GPSLatitude: lat, tags.GPSLongitudeRef: east, tags.GPSLongitude: lon}
    return {int(tag): value for tag, value in values.items() if value is not None}


@real_photos
def test_the_position_of_a_real_photograph_is_read() -> None:
    assert gps_latlon_deg(PHOTOS / "DSCN0010.jpg") == pytest.approx((43.4674, 11.8851), abs=1e-4)


@real_photos
def test_a_real_photograph_without_gps_has_no_position() -> None:
    assert gps_latlon_deg(PHOTOS / "no_gps.jpg") is None


@real_photos
def test_real_photographs_are_read_and_those_without_gps_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        examples = read_photos(PHOTOS)
    assert [example.id for example in examples] == ["DSCN0010.jpg", "DSCN0012.jpg", "DSCN0021.jpg", "DSCN0025.jpg"]
    # All were taken in Arezzo, within a kilometre.
    for example in examples:
        assert example.latlon_deg == pytest.approx((43.467, 11.885), abs=0.01)
        assert example.image == PHOTOS / example.id
    assert "1 photographs" in caplog.text
    assert "no_gps.jpg" in caplog.text


@pytest.mark.parametrize(
    ("south", "east", "expected"),
    [
        ("S", "E", (-33.858333, 151.21)),
        ("S", "W", (-33.858333, -151.21)),
        ("N", "E", (33.858333, 151.21)),
        ("N", "W", (33.858333, -151.21)),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_degrees_minutes_and_seconds_add_up_with_their_sign(
    tmp_path: Path, suffix: str, south: str, east: str, expected: tuple[float, float]
) -> None:
    path = photograph(tmp_path / f"x{suffix}", gps(south=south, east=east))
    assert gps_latlon_deg(path) == pytest.approx(expected, abs=1e-6)


def test_a_photograph_without_a_position_has_none(tmp_path: Path) -> None:
    assert gps_latlon_deg(photograph(tmp_path / "a.jpg")) is None
    assert gps_latlon_deg(photograph(tmp_path / "b.jpg", {int(ExifTags.GPS.GPSAltitude): 12.0})) is None
    assert gps_latlon_deg(photograph(tmp_path / "c.jpg", gps(lat=None))) is None
    assert gps_latlon_deg(photograph(tmp_path / "d.jpg", gps(lon=None))) is None


@pytest.mark.parametrize("lat", [(33.0, 51.0), (33.0,), (33.0, 51.0, 30.0, 1.0)])
def test_gps_data_in_another_form_is_rejected_by_the_files_name(tmp_path: Path, lat: tuple[float, ...]) -> None:
    path = photograph(tmp_path / "x.jpg", gps(lat=lat))
    with pytest.raises(ValueError, match="EXIF GPS must be degrees, minutes, seconds, got ") as error:
        gps_latlon_deg(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_position_of_zero_over_zero_is_rejected_by_the_files_name(tmp_path: Path) -> None:
    # What some cameras write before their first fix
    nothing = TiffImagePlugin.IFDRational(0, 0)
    path = photograph(tmp_path / "x.jpg", gps(lat=(nothing,) * 3, lon=(nothing,) * 3))
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*latitude must be a number"):
        gps_latlon_deg(path)


def test_a_position_off_the_earth_is_rejected_by_the_photographs_name(tmp_path: Path) -> None:
    photograph(tmp_path / "far/x.jpg", gps(lat=(95.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match=r"far/x\.jpg.*latitude must be a number in \[-90, 90\], got -95\.0"):
        read_photos(tmp_path)


@pytest.mark.parametrize(
    ("south", "east", "message"),
    [
        (None, "E", "must be N or S, got None"),
        ("S", None, "must be E or W, got None"),
        ("E", "E", "must be N or S, got 'E'"),
        ("S", "N", "must be E or W, got 'N'"),
        ("", "W", "must be N or S, got ''"),
        ("North", "W", "must be N or S, got 'North'"),
    ],
)
def test_a_hemisphere_is_never_guessed(tmp_path: Path, south: str | None, east: str | None, message: str) -> None:
    path = photograph(tmp_path / "x.jpg", gps(south=south, east=east))
    with pytest.raises(ValueError, match=message) as error:
        gps_latlon_deg(path)
    assert str(error.value).startswith(f"{path}: EXIF GPS reference ")


def test_a_hemisphere_in_small_letters_or_with_blanks_counts(tmp_path: Path) -> None:
    path = photograph(tmp_path / "x.jpg", gps(south="s", east="W "))
    assert gps_latlon_deg(path) == pytest.approx((-33.858333, -151.21), abs=1e-6)


# A PNG whose first chunk is 5 bytes long instead of 13
SHORT_PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 5) + b"IHDR12345" + struct.pack(">I", zlib.crc32(b"IHDR12345"))


@pytest.mark.parametrize(
    "content", [b"this is text", b"", b"\xff\xd8\xff\xe0", SHORT_PNG], ids=["text", "empty", "cut JPEG", "short PNG"]
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    photograph(tmp_path / "a.jpg", gps())
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'x.jpg'}: cannot be read as an image")):
        read_photos(tmp_path)


def test_folders_are_read_to_the_bottom_and_other_files_left_alone(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.jpeg", "a/b/y.PNG", "c.webp"):
        photograph(tmp_path / name, gps())
    (tmp_path / "notes.txt").write_text("not a picture")
    assert [example.id for example in read_photos(tmp_path)] == ["a/b/y.PNG", "a/z.jpeg", "b.JPG", "c.webp"]


def test_a_folder_without_positions_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path}: no photograph with a GPS position among 0 images")):
        read_photos(tmp_path)
    photograph(tmp_path / "a.jpg")
    photograph(tmp_path / "b.jpg")
    message = re.escape(f"{tmp_path}: no photograph with a GPS position among 2 images.")
    with pytest.raises(ValueError, match=f"{message} .*data.name jsonl"):
        read_photos(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'none'}: no such folder. Set data.path ")):
        read_photos(tmp_path / "none")


def test_photographs_become_examples_with_regions(tmp_path: Path) -> None:
    photograph(tmp_path / "train/sydney.jpg", gps())
    photograph(tmp_path / "test/paris.jpg", gps((48.0, 51.0, 24.0), (2.0, 21.0, 8.0), "N", "E"))
    config = DataConfig(name="photos", path=str(tmp_path / "train"), test_path=str(tmp_path / "test"))
    splits = load_dataset(config, seed=0)
    assert [(e.id, e.country) for e in splits.train] == [("sydney.jpg", "Australia")]
    assert [(e.id, e.country, e.city) for e in splits.test] == [("paris.jpg", "France", "Paris")]


def test_a_dataset_without_a_folder_says_so() -> None:
    with pytest.raises(ValueError, match=r"data\.path must name a folder when data\.name is photos"):
        load_dataset(DataConfig(name="photos"), seed=0)


def test_num_test_draws_from_the_held_out_photographs(tmp_path: Path) -> None:
    for i in range(6):
        photograph(tmp_path / f"{i}.jpg", gps(lat=(10.0 + i, 0.0, 0.0)))
    config = DataConfig(name="photos", path=str(tmp_path), test_path=str(tmp_path), num_test=2)
    drawn = [[e.id for e in load_dataset(config, seed=seed).test] for seed in range(4)]
    assert [len(ids) for ids in drawn] == [2] * 4
    assert len({tuple(ids) for ids in drawn}) > 1


def test_stage_2_may_have_a_folder_of_its_own(tmp_path: Path) -> None:
    for folder, count in (("easy", 3), ("hard", 2), ("test", 1)):
        for i in range(count):
            photograph(tmp_path / folder / f"{i}.jpg", gps(lat=(10.0 * i, 0.0, 0.0)))
    paths = {
        key: str(tmp_path / folder) for key, folder in (("path", "easy"), ("grpo_path", "hard"), ("test_path", "test"))
    }
    splits = load_dataset(DataConfig(name="photos", **paths), seed=0)
    for part, folder in ((splits.train, "easy"), (splits.grpo_train, "hard"), (splits.test, "test")):
        assert [example.image for example in part] == sorted((tmp_path / folder).iterdir())
    with pytest.raises(ValueError, match=r"none: no such folder.*data\.grpo_path"):
        load_dataset(DataConfig(name="photos", **paths | {"grpo_path": str(tmp_path / "none")}), seed=0)
