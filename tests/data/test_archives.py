"""Pictures in zips and tars: found by name, read where they lie, and never trusted."""

import gzip
import io
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from data.published_files import pictures, png, zipped
from PIL import Image

from geogrpo.data import archives
from geogrpo.data.archives import ArchivedImage, list_archive
from geogrpo.data.images_in import ListedImages
from geogrpo.images import open_image
from geogrpo.types import Example, ImageSource


def tarred(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shade(source: Path | ImageSource) -> int:
    return open_image(Example("x", source, (0, 0))).getpixel((0, 0))[0]  # type: ignore[index]


def found(images: ListedImages, *names: str) -> list[int]:
    """The shade of each picture, -1 where there is none."""
    return [shade(images.source(int(n))) if n >= 0 else -1 for n in images.find(names)]


FILES = {"a/1.png": png(10), "a/b/2.png": png(20), "a/000003.json": b"{}", "a/000003.png": png(30)}


@pytest.mark.parametrize("kind", ["folder", "stored.zip", "deflated.zip", "x.tar", "x.tar.gz"])
def test_pictures_are_found_by_path_and_by_name(tmp_path: Path, kind: str) -> None:
    root = tmp_path / kind
    if kind == "folder":
        for name, content in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    elif kind.endswith(".zip"):
        zipped(root, FILES, zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED)
    else:
        tarred(root, FILES, "w:gz" if kind.endswith("gz") else "w")
    images = ListedImages(root)
    assert found(images, "a/1.png", "2.png", "a/000003.png", "./a/b/2.png", "none.png", "c/1.png") == [
        10,
        20,
        30,
        20,
        -1,
        -1,
    ]
    # Without the folder that all of an archive's files share; of a folder the path is meant in full
    assert found(images, "b/2.png") == [20 if kind != "folder" else -1]
    source = images.source(int(images.find(["2.png"])[0]))
    assert str(source) == (f"{root}/a/b/2.png" if kind == "folder" else f"{root}: a/b/2.png")
    again = pickle.loads(pickle.dumps(source))
    assert again == source
    assert shade(again) == 20


def test_a_name_in_two_folders_is_not_guessed(tmp_path: Path) -> None:
    images = ListedImages(pictures(tmp_path, "a/1.png", "b/1.png", "b/2.png"))
    assert found(images, "1.png", "a/1.png", "b/1.png", "2.png") == [-1, 10, 20, 30]


def test_a_folder_of_archives_holds_the_pictures_of_all(tmp_path: Path) -> None:
    pictures(tmp_path / "images", "1.png")
    zipped(tmp_path / "images/00.zip", {"00/2.png": png(20)})
    (tmp_path / "images/more").mkdir()
    tarred(tmp_path / "images/more/00001.tar", {"3.png": png(30)})
    assert found(ListedImages(tmp_path / "images"), "1.png", "2.png", "3.png") == [10, 20, 30]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", "1.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "images")
    assert found(ListedImages(tmp_path / "images"), "linked/1.png") == [10]


def test_links_in_a_tar_lead_nowhere(tmp_path: Path) -> None:
    path = tarred(tmp_path / "x.tar", {"1.png": png(10)})
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"link{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert [member.name for member in list_archive(path)] == ["1.png"]


@pytest.mark.parametrize("name", ["../../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "..\\x.png"])
@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_path_that_climbs_out_of_an_archive_is_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    (zipped if suffix == ".zip" else tarred)(path, {"1.png": png(), name: png()})
    with pytest.raises(ValueError, match="climbs out of the archive") as error:
        ListedImages(path)
    assert str(error.value).startswith(f"{path}: the path {name!r} in it ")


def test_a_path_with_dots_in_a_name_is_none_that_climbs(tmp_path: Path) -> None:
    assert found(ListedImages(zipped(tmp_path / "x.zip", {"a..b/..1.png": png(10)})), "a..b/..1.png") == [10]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_an_archive_that_is_cut_short_or_none_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".zip":
        zipped(path, FILES)
    else:
        tarred(path, FILES, "w:gz" if suffix == ".tar.gz" else "w")
    content = path.read_bytes()
    # In a picture's bytes, in a header and between two members of a tar; it ends in zeros up to 10,240 bytes
    cuts = (700, 1100, 2048, 3413) if suffix == ".tar" else (len(content) // 3,)
    for part in (*(content[:cut] for cut in cuts), b"no archive at all" * 100, b""):
        path.write_bytes(part)
        with pytest.raises(ValueError, match="cannot be read as an archive: ") as error:
            ListedImages(path)
        assert str(error.value).startswith(f"{path}: ")


def test_other_files_and_missing_ones_are_no_places_for_images(tmp_path: Path) -> None:
    (tmp_path / "x.rar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"x\.rar: neither a folder nor a \.zip.*data\.images"):
        ListedImages(tmp_path / "x.rar")
    with pytest.raises(ValueError, match=r"none: no such folder or archive\. Set data\.images"):
        ListedImages(tmp_path / "none")


def refused(source: Path | ImageSource, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        shade(source)
    assert str(source) in str(error.value)


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    """The directory claims 100 bytes; unpacking stops there, however much the bytes behind would make."""
    path = zipped(tmp_path / "x.zip", {"bomb.png": bytes(10_000_000)})
    (member,) = list_archive(path)
    refused(ArchivedImage(path, member._replace(num_bytes=100)), r"damaged \(101 bytes, expected 100\)")


def test_a_huge_member_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 70)
    images = ListedImages(zipped(tmp_path / "x.zip", {"1.png": bytes(71)}))
    refused(images.source(0), "71 bytes, more than 70")


def test_damaged_bytes_in_a_zip_are_found_by_its_checksum(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"1.png": png(10), "2.png": png(20)}, zipfile.ZIP_STORED)
    images = ListedImages(path)
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    refused(images.source(0), r"damaged \(wrong checksum\)")
    assert shade(images.source(1)) == 20
    path.write_bytes(bytes(path.stat().st_size))
    refused(images.source(1), "the archive has changed since it was listed")
    path.unlink()
    refused(images.source(1), "No such file")


def test_damaged_deflated_bytes_are_no_crash(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"1.png": bytes(1000)})
    (member,) = list_archive(path)
    content = bytearray(path.read_bytes())
    content[30 + len("1.png")] = 0xFF
    path.write_bytes(content)
    refused(ArchivedImage(path, member), "damaged")


def test_encrypted_and_unusual_members_are_named(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"1.png": png()}, zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match=r"x\.zip: 1\.png is neither stored nor deflated"):
        ListedImages(path)
    zipped(path, {"1.png": png()})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.zip: 1\.png is encrypted"):
        ListedImages(path)


def test_a_tar_that_is_gzipped_says_that_it_is_slow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tarred(tmp_path / "x.tar", FILES)
    with (tmp_path / "x.tar").open("rb") as plain, gzip.open(tmp_path / "y.tgz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    assert found(ListedImages(tmp_path / "y.tgz"), "2.png") == [20]
    assert "gunzip" in caplog.text


def test_many_members_are_listed_though_tarfile_forgets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_MEMBERS_KEPT", 3)
    path = tarred(tmp_path / "x.tar", {f"{i}.png": png(i) for i in range(20)})
    assert found(ListedImages(path), *(f"{i}.png" for i in range(20))) == list(range(20))


def test_an_image_in_an_archive_is_turned_upright_like_a_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2)).save(buffer, "PNG", exif=exif)
    images = ListedImages(zipped(tmp_path / "x.zip", {"1.png": buffer.getvalue()}))
    assert open_image(Example("x", images.source(0), (0, 0))).size == (2, 4)
