"""Where the pictures of a table are: a folder, a zip or tar archive, or a folder that holds archives.

Everything is listed once; then a name is found without touching a disk, and a picture is opened when training asks
for it.

Shapes: N pictures, M names.
"""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from geogrpo.data.archives import ArchivedImage, Member, is_archive, list_archive
from geogrpo.data.texts import TextsBuilder
from geogrpo.types import ImageSource


class Images(Protocol):
    """Pictures by number, found by name."""

    def find(self, names: Sequence[str]) -> np.ndarray:
        """(M,) int64: the number of the picture of each name, -1 where there is none."""

    def source(self, number: int) -> Path | ImageSource | str:
        """What opens a picture; "" for none."""


class ImagesIfThere:
    """Pictures where they are found; a named one that is not is "", as none of them needs to be opened."""

    _ABSENT = np.iinfo(np.int64).max

    def __init__(self, images: "Images | None") -> None:
        self._images = images

    def find(self, names: Sequence[str]) -> np.ndarray:
        """See Images; -1 only where there is no name."""
        is_named = np.array([bool(name) for name in names], dtype=bool)
        found = np.full(len(names), -1) if self._images is None else self._images.find(names)
        return np.where(is_named & (found < 0), self._ABSENT, found)

    def source(self, number: int) -> Path | ImageSource | str:
        """See Images; "" for a picture that is not there."""
        return "" if self._images is None or number == self._ABSENT else self._images.source(number)


class ListedImages:
    """The files below a folder and in the archives below it, or those of one archive.

    A name is found as a path relative to the folder or inside its archive (a folder that all of an archive's files
    share may be left out), with "_" in place of "/" as in MP16-Pro, and without its folders where it has none and one
    file only bears it.

    Raises:
        ValueError: naming the folder or archive that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        if not root.exists():
            raise ValueError(f"{root}: no such folder or archive. Set data.images (data.test_images) to the pictures.")
        if root.is_file() and not is_archive(root):
            raise ValueError(f"{root}: neither a folder nor a .zip, .tar or .tar.gz. Set data.images to such.")
        self.root = root
        self._archives: list[Path] = []
        self._archive_of, self._numbers = array("i"), [array("q") for _ in range(5)]
        builder = TextsBuilder()
        keys = _Keys()
        for archive, members in _containers(root):
            if archive is not None:
                self._archives.append(archive)
            self._add(members, len(self._archives) - 1 if archive else -1, builder, keys)
        self._names = builder.finish()
        self._paths, self._basenames = keys.finish()

    def __len__(self) -> int:
        return len(self._names)

    def _add(self, members: Iterator[Member], archive: int, builder: TextsBuilder, keys: "_Keys") -> None:
        first, top = len(self._archive_of), None
        names: list[str] = []
        for member in members:
            self._archive_of.append(archive)
            if archive >= 0:
                for column, value in zip(self._numbers, member[1:], strict=True):
                    column.append(value)
            names.append(member.name)
        if archive < 0:
            for column in self._numbers:
                column.extend([0] * len(names))
        else:
            tops = {name.removeprefix("./").split("/", 1)[0] if "/" in name else "" for name in names}
            top = next(iter(tops)) if len(tops) == 1 else None
        builder.extend(names)
        keys.extend(names, first, top)

    def find(self, names: Sequence[str]) -> np.ndarray:
        wanted = [self._relative(name) for name in names]
        found = self._paths.find(wanted)
        missing = np.flatnonzero(found < 0)
        found[missing] = self._basenames.find([wanted[i].replace("/", "_") for i in missing.tolist()])
        return found

    def _relative(self, name: str) -> str:
        name = name.replace("\\", "/").removeprefix("./")
        root = f"{self.root}/"
        return name.removeprefix(root) if name.startswith("/") else name

    def source(self, number: int) -> Path | ImageSource:
        archive, name = self._archive_of[number], self._names[number]
        if archive < 0:
            return self.root / name
        offset, stored, size, is_deflated, checksum = (column[number] for column in self._numbers)
        return ArchivedImage(self._archives[archive], Member(name, offset, stored, size, bool(is_deflated), checksum))

    def __str__(self) -> str:
        return str(self.root)


def _containers(root: Path) -> Iterator[tuple[Path | None, Iterator[Member]]]:
    """(archive, its files), and (None, the plain files) of a folder."""
    if root.is_file():
        yield root, list_archive(root)
        return
    archives: list[Path] = []
    yield None, _files(root, archives)
    for archive in sorted(archives):
        yield archive, list_archive(archive)


def _files(root: Path, archives: list[Path]) -> Iterator[Member]:
    """Every file below a folder, links followed, by its relative path; archives are put aside."""
    seen = set()
    for parent, folders, files in os.walk(root, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            # A link that leads back up
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        relative = os.path.relpath(parent, root)
        prefix = "" if relative == "." else f"{relative}/".replace(os.sep, "/")
        for name in files:
            if is_archive(Path(name)):
                archives.append(Path(parent, name))
            else:
                yield Member(prefix + name, 0, 0, 0, False, 0)


class _Keys:
    """Hashes of paths and of file names, and the picture that each stands for.

    64-bit hashes instead of a dict of names: 16 bytes a picture, not 200. That one of 5 million wanted names has the
    hash of another one's is a chance of 1e-6.
    """

    def __init__(self) -> None:
        self._paths: list[np.ndarray] = []
        self._path_numbers: list[np.ndarray] = []
        self._basenames: list[np.ndarray] = []

    def extend(self, names: list[str], first: int, top: str | None) -> None:
        """Names numbered from `first`; `top` is the folder that may be left out."""
        numbers = np.arange(first, first + len(names))
        plain = [name.removeprefix("./") for name in names]
        self._paths.append(_hashes(plain))
        self._path_numbers.append(numbers)
        if top:
            self._paths.append(_hashes([name.removeprefix(f"{top}/") for name in plain]))
            self._path_numbers.append(numbers)
        self._basenames.append(_hashes([name.rsplit("/", 1)[-1] for name in plain]))

    def finish(self) -> tuple["_Lookup", "_Lookup"]:
        """Lookups by path, where a later one of two wins as in tar, and by file name, where neither does."""
        paths, numbers = (
            np.concatenate([np.empty(0, np.int64), *parts]) for parts in (self._paths, self._path_numbers)
        )
        basenames = np.concatenate([np.empty(0, np.int64), *self._basenames])
        return _Lookup(paths, numbers, is_last_taken=True), _Lookup(
            basenames, np.arange(len(basenames)), is_last_taken=False
        )


class _Lookup:
    def __init__(self, hashes: np.ndarray, numbers: np.ndarray, *, is_last_taken: bool) -> None:
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._numbers = hashes[order], numbers[order]
        is_last = np.append(self._hashes[1:] != self._hashes[:-1], True)[: len(order)]
        if not is_last_taken:
            is_first = np.append(True, self._hashes[1:] != self._hashes[:-1])[: len(order)]
            self._numbers = np.where(is_first & is_last, self._numbers, -1)
        self._hashes, self._numbers = self._hashes[is_last], self._numbers[is_last]

    def find(self, names: Sequence[str]) -> np.ndarray:
        """(M,) int64, -1 where a name is not there."""
        if not len(self._hashes):
            return np.full(len(names), -1)
        hashes = _hashes(names)
        place = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        return np.where(self._hashes[place] == hashes, self._numbers[place], -1)


def _hashes(texts: Sequence[str]) -> np.ndarray:
    return np.fromiter(map(hash, texts), np.int64, len(texts))
