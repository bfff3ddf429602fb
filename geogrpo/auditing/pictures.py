"""What tells copies of a picture: hashes of its bytes, its pixels and its looks, kept in a SQLite file."""

import hashlib
import os
import sqlite3
from collections.abc import Sequence
from importlib import metadata
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

from geogrpo.images import open_image
from geogrpo.labelling.workers import Workers
from geogrpo.types import Example

DIGEST_BYTES = 16
"""Of SHA-256: a chance pair among 10 million pictures has probability 1e-25."""
FLAT_LEVELS = 2.0
"""A picture whose 32 x 32 grey copy varies less (standard deviation, of 255) has no looks to compare: all flat pictures
have the perceptual hash of noise, or one and the same."""
MIN_FILES = 500
"""Fewer are hashed before the first worker has imported PyTorch: some 4 s, against 10 ms a picture."""
_NAMES_AT_ONCE = 500
"""SQLite takes 999 values a statement, in its oldest builds."""


class PictureHash(NamedTuple):
    """Of one file."""

    file_digest: bytes
    pixel_digest: bytes
    """Of size and upright RGB pixels: sees through changed metadata."""
    phash: int
    """64 bits, imagehash.phash."""
    is_flat: bool


class _Bytes:
    """An image in memory, as open_image wants it."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def open(self) -> Image.Image:
        return Image.open(BytesIO(self._content))


def import_imagehash() -> ModuleType:
    """The imagehash library.

    Raises:
        ValueError: saying how to install it.
    """
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise ValueError("comparing pictures needs ImageHash. Install it: pip install 'geogrpo[audit]'") from error
    return imagehash


def hash_picture(path: str) -> PictureHash | str:
    """The hashes of an image file, or what is wrong with it. The file is read and decoded to its end."""
    try:
        content = Path(path).read_bytes()
        picture = open_image(Example("", _Bytes(content), (0.0, 0.0)))
    except (ValueError, OSError) as error:
        return str(error.__cause__ or error)
    pixels = hashlib.sha256(f"{picture.size}".encode())
    pixels.update(picture.tobytes())
    bits = import_imagehash().phash(picture).hash
    grey = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), np.float64)
    return PictureHash(
        hashlib.sha256(content).digest()[:DIGEST_BYTES],
        pixels.digest()[:DIGEST_BYTES],
        int.from_bytes(np.packbits(bits).tobytes(), "big"),
        bool(grey.std() < FLAT_LEVELS),
    )


class HashCache:
    """Hashes by path, size and time of change, so that a second audit reads only what is new.

    Args:
        path: a SQLite file, made where there is none; None keeps nothing.
    Raises:
        ValueError: naming the file when it is something else.
    """

    def __init__(self, path: Path | None) -> None:
        self.num_found = self.num_computed = 0
        self._path, self._database = path, None
        if path is None:
            return
        # Another decoder may give other pixels.
        versions = f"1 ImageHash {metadata.version('ImageHash')} Pillow {metadata.version('pillow')}"
        try:
            self._database = sqlite3.connect(path)
            self._database.execute("CREATE TABLE IF NOT EXISTS versions (text TEXT)")
            if self._database.execute("SELECT text FROM versions").fetchall() != [(versions,)]:
                self._database.execute("DROP TABLE IF EXISTS pictures")
                self._database.execute("DELETE FROM versions")
                self._database.execute("INSERT INTO versions VALUES (?)", (versions,))
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS pictures (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER,"
                " file_digest BLOB, pixel_digest BLOB, phash BLOB, is_flat INTEGER) WITHOUT ROWID"
            )
            self._database.commit()
        except sqlite3.Error as error:
            self.close()
            raise ValueError(f"{path}: cannot be used to keep hashes: {error}. Remove it, or name another.") from error

    def hashes(self, paths: Sequence[str], workers: Workers) -> list[PictureHash | str | None]:
        """Of each path its hashes, or what is wrong with the file; None for ""."""
        names = [os.path.abspath(path) if path else "" for path in paths]
        states = {name: _state(name) for name in dict.fromkeys(names) if name}
        found = self._read(list(states), states)
        todo = [name for name in states if name not in found]
        few = len(todo) < MIN_FILES
        computed = dict(zip(todo, map(hash_picture, todo) if few else workers.map(hash_picture, todo), strict=True))
        self._write({name: value for name, value in computed.items() if isinstance(value, PictureHash)}, states)
        self.num_found += len(found)
        self.num_computed += len(computed)
        known = {**found, **computed}
        return [known[name] if name else None for name in names]

    def _read(self, names: list[str], states: dict[str, tuple[int, int]]) -> dict[str, PictureHash]:
        found: dict[str, PictureHash] = {}
        if self._database is None:
            return found
        for start in range(0, len(names), _NAMES_AT_ONCE):
            # A name that is not UTF-8 comes as half surrogate pairs, which SQLite refuses.
            some = [name for name in names[start : start + _NAMES_AT_ONCE] if _is_text(name)]
            rows = self._database.execute(f"SELECT * FROM pictures WHERE path IN ({','.join('?' * len(some))})", some)
            for name, size, mtime_ns, file_digest, pixel_digest, phash, is_flat in rows:
                if (size, mtime_ns) == states[name]:
                    found[name] = PictureHash(file_digest, pixel_digest, int.from_bytes(phash, "big"), bool(is_flat))
        return found

    def _write(self, hashes: dict[str, PictureHash], states: dict[str, tuple[int, int]]) -> None:
        if self._database is None:
            return
        rows = (
            (name, *states[name], value.file_digest, value.pixel_digest, value.phash.to_bytes(8, "big"), value.is_flat)
            for name, value in hashes.items()
            if _is_text(name)
        )
        self._database.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._database.commit()

    def close(self) -> None:
        """Close the file."""
        if self._database is not None:
            self._database.close()


def _state(name: str) -> tuple[int, int]:
    """Size and time of change, both -1 for a file that has gone."""
    try:
        status = os.stat(name)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
