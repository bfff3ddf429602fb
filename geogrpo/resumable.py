"""Output that a killed run leaves in a state to go on from.

Beside the output lies a record, <output>.progress.json: the options it was made with, how many rows are done, and how
long the files are with those. A batch of lines is appended and synced first, then the record takes the place of the
older one at once. What a kill leaves behind the recorded length, half a line maybe, is cut off by the next run.
"""

import errno
import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

FORMAT = "geogrpo progress 1"
NUM_EXAMPLES = 3
"""Skipped rows shown of each reason."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What file systems without locks answer."""
_BLOCK_BYTES = 2**20


@dataclass
class Written:
    """How far one file is known to be good."""

    num_bytes: int = 0
    crc32: int = 0


@dataclass
class Record:
    """What the record file holds."""

    options: dict[str, object]
    """All that the output depends on."""
    num_rows: int = 0
    """Of the input, done."""
    num_written: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of rows by reason."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """The first skipped rows by reason, in words."""
    output_file: Written = field(default_factory=Written)
    skipped_file: Written = field(default_factory=Written)
    is_complete: bool = False

    @property
    def num_skipped(self) -> int:
        return sum(self.skipped.values())


class ResumableFiles:
    """A file of lines, one of skipped rows where wanted, and the record of both.

    Args:
        path: of the lines.
        skipped_path: of the skipped rows, None for none.
        options: what the output depends on; JSON-ready.
        overwrite: whether to start over.
    Raises:
        ValueError: when the files are not what a run with these options left, or another run has them.
    """

    def __init__(
        self, path: Path, skipped_path: Path | None, options: dict[str, object], *, overwrite: bool = False
    ) -> None:
        self._record_path = record_path(path)
        self._paths = [path] if skipped_path is None else [path, skipped_path]
        self._check_places()
        found = None if overwrite else self._read_record(options)
        self.record = found or Record(options)
        self._files: list[BinaryIO] = []
        try:
            # Appending: opening must not empty a file before the lock is held.
            self._files = [_opened(each) for each in self._paths]
            _lock(self._files[0], path)
            if overwrite:
                self._record_path.unlink(missing_ok=True)
            if found is None:
                self._write_record()
            for file, each, written in zip(self._files, self._paths, self._written(), strict=False):
                _cut(file, each, written)
        except BaseException:
            self.close()
            raise

    def _written(self) -> tuple[Written, Written]:
        return self.record.output_file, self.record.skipped_file

    def _check_places(self) -> None:
        for path in self._paths:
            if path.is_dir() or not path.parent.is_dir():
                problem = "is a folder" if path.is_dir() else f"there is no folder {path.parent}"
                raise ValueError(f"{path}: {problem}.")

    def _read_record(self, options: dict[str, object]) -> Record | None:
        """What an earlier run with the same options left, None where none did."""
        if not self._record_path.exists():
            existing = next((path for path in self._paths if path.exists()), None)
            if existing is not None:
                raise ValueError(
                    f"{existing} exists, but no {self._record_path.name} to go on from. --overwrite starts over."
                )
            return None
        record = _parsed_record(self._record_path)
        now = json.loads(json.dumps(options))
        changed = [key for key in {**record.options, **now} if record.options.get(key) != now.get(key)]
        if changed:
            was = "; ".join(f"{key} was {record.options.get(key)}, is {now.get(key)}" for key in changed)
            raise ValueError(
                f"{self._paths[0]} was begun with other options or data ({was:.400})."
                " --overwrite starts over; the command it was begun with goes on."
            )
        return record

    def written_lines(self) -> Iterator[bytes]:
        """The lines that were there already."""
        with self._paths[0].open("rb") as file:
            yield from file

    def append(self, lines: Sequence[str], skipped_lines: Sequence[str]) -> None:
        """Add lines, which `commit` makes count. Each ends with a line feed."""
        for file, written, texts in zip(self._files, self._written(), (lines, skipped_lines), strict=False):
            content = "".join(texts).encode()
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            written.num_bytes += len(content)
            written.crc32 = zlib.crc32(content, written.crc32)

    def commit(self) -> None:
        """Let the record, counts included, be that of the lines appended."""
        self._write_record()

    def _write_record(self) -> None:
        temporary = self._record_path.with_name(self._record_path.name + ".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, **asdict(self.record)}, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._record_path)

    def close(self) -> None:
        """Let go of the files and the lock."""
        for file in self._files:
            file.close()


def record_path(path: Path) -> Path:
    """Where the record of a file lies."""
    return path.with_name(path.name + ".progress.json")


def _parsed_record(path: Path) -> Record:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        for name in ("output_file", "skipped_file"):
            content[name] = Written(**content[name])
        return Record(**content)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no record of a run ({error}). --overwrite starts over.") from error


def _opened(path: Path) -> BinaryIO:
    return path.open("ab")


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other runs off a file until it is closed, or this process ends however it does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"{path}: another run is writing it.") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _cut(file: BinaryIO, path: Path, written: Written) -> None:
    """Cut off what no record counts. Raises ValueError where what one counts is not there as it was."""
    crc32, left = 0, written.num_bytes
    with path.open("rb") as content:
        while left and (block := content.read(min(left, _BLOCK_BYTES))):
            crc32, left = zlib.crc32(block, crc32), left - len(block)
    if left or crc32 != written.crc32:
        raise ValueError(f"{path} was changed since the last run. --overwrite starts over.")
    file.truncate(written.num_bytes)
