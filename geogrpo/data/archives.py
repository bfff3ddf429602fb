"""Pictures inside zip and tar archives, read where they lie: nothing is unpacked to disk, and no name is ever a path.

An archive is listed once; then a picture is an offset into it, so a million of them cost a few numbers each and go to
worker processes as they are. A .tar.gz has no offsets to jump to: each picture costs reading all before it.
"""

import gzip
import logging
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from PIL import Image

logger = logging.getLogger(__name__)

ZIP_SUFFIXES, TAR_SUFFIXES, GZIPPED_TAR_SUFFIXES = (".zip",), (".tar",), (".tar.gz", ".tgz")
ARCHIVE_SUFFIXES = ZIP_SUFFIXES + TAR_SUFFIXES + GZIPPED_TAR_SUFFIXES
MAX_MEMBER_BYTES = 2**28
"""A larger file in an archive is no photograph; the bound keeps a few compressed bytes from becoming all of memory."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Signature, and the lengths of name and extra field (PKWARE APPNOTE.TXT 4.3.7)."""
_MEMBERS_KEPT = 10_000


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    offset: int
    """Of its header in a zip, of its bytes in a tar (of the unpacked one in a .tar.gz)."""
    num_stored_bytes: int
    num_bytes: int
    is_deflated: bool
    checksum: int
    """CRC-32 in a zip, 0 in a tar, which has none."""


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is an archive that can be read here."""
    return path.name.lower().endswith(ARCHIVE_SUFFIXES)


def list_archive(path: Path) -> Iterator[Member]:
    """The regular files in an archive; links and folders are passed over.

    Raises:
        ValueError: naming the archive, and the member where there is one: it cannot be read, is cut short, is
            encrypted, is compressed in another way than deflate, or has a path that climbs out of the archive.
    """
    name = path.name.lower()
    try:
        yield from _list_zip(path) if name.endswith(ZIP_SUFFIXES) else _list_tar(path)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{path}: cannot be read as an archive: {error}. Is it cut short?") from error


def _list_zip(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            _check_name(path, info.filename)
            if info.flag_bits & 1:
                raise ValueError(f"{path}: {info.filename} is encrypted. Make an archive without a password.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{path}: {info.filename} is neither stored nor deflated. Make a plain zip of it.")
            is_deflated = info.compress_type == zipfile.ZIP_DEFLATED
            yield Member(info.filename, info.header_offset, info.compress_size, info.file_size, is_deflated, info.CRC)


def _list_tar(path: Path) -> Iterator[Member]:
    is_gzipped = path.name.lower().endswith(GZIPPED_TAR_SUFFIXES)
    if is_gzipped:
        logger.warning("%s: every picture is found by unpacking all before it. `gunzip` it first: fast.", path)
    with tarfile.open(path, "r:gz" if is_gzipped else "r:") as archive:
        for info in archive:
            if info.isreg():
                _check_name(path, info.name)
                yield Member(info.name, info.offset_data, info.size, info.size, False, 0)
            # tarfile keeps every member that it has seen: gigabytes at a million
            members = archive.members  # type: ignore[attr-defined]
            if len(members) > _MEMBERS_KEPT:
                members.clear()
        # tarfile takes half a header, or none, for the end; the end is two blocks of zeros, of which it has read one
        if archive.fileobj is None or archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("no end of the archive")


def _check_name(path: Path, name: str) -> None:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in (pure.parts or ("",))[0]:
        raise ValueError(
            f"{path}: the path {name!r} in it climbs out of the archive. Do not trust it; make one without such paths."
        )


@dataclass(frozen=True)
class ArchivedImage:
    """A picture in an archive. Text: the archive and the member."""

    archive: Path
    member: Member

    def open(self) -> Image.Image:
        """The picture as PIL reads it.

        Raises:
            OSError, ValueError: when it cannot be read, is too large, or the archive is another than was listed.
        """
        return Image.open(BytesIO(self.read()))

    def read(self) -> bytes:
        """Its bytes."""
        if self.member.num_bytes > MAX_MEMBER_BYTES:
            raise ValueError(f"{self.member.num_bytes:,} bytes, more than {MAX_MEMBER_BYTES:,}")
        name = self.archive.name.lower()
        if name.endswith(ZIP_SUFFIXES):
            with self.archive.open("rb") as file:
                return self._read_zip(file)
        with gzip.open(self.archive) if name.endswith(GZIPPED_TAR_SUFFIXES) else self.archive.open("rb") as stream:
            stream.seek(self.member.offset)
            return self._whole(stream.read(self.member.num_bytes))

    def _read_zip(self, file: BinaryIO) -> bytes:
        file.seek(self.member.offset)
        header = file.read(_LOCAL_HEADER.size)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(self._whole(header, _LOCAL_HEADER.size))
        if signature != b"PK\3\4":
            raise ValueError("the archive has changed since it was listed")
        file.seek(name_length + extra_length, 1)
        content = self._whole(file.read(self.member.num_stored_bytes), self.member.num_stored_bytes)
        if self.member.is_deflated:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.member.num_bytes + 1)
            except zlib.error as error:
                raise ValueError(f"damaged ({error})") from error
        if zlib.crc32(self._whole(content)) != self.member.checksum:
            raise ValueError("damaged (wrong checksum)")
        return content

    def _whole(self, content: bytes, num_bytes: int | None = None) -> bytes:
        expected = self.member.num_bytes if num_bytes is None else num_bytes
        if len(content) != expected:
            raise ValueError(f"damaged ({len(content):,} bytes, expected {expected:,})")
        return content

    def __str__(self) -> str:
        return f"{self.archive}: {self.member.name}"
