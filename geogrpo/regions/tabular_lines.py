"""Lines of UTF-8 text files, plain or gzipped, whatever their bytes are."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 2**24
"""A longer line is a file without line ends; reading it whole would end the promise of constant memory."""
_BOM = b"\xef\xbb\xbf"


class TextLines:
    """Lines of a file with their ends, and how far the file has been read."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise ValueError(f"{path}: cannot be opened: {error.strerror}.") from error
        self._stream: Any = gzip.GzipFile(fileobj=self._file) if path.suffix.lower() == ".gz" else self._file
        self.number = 0
        """Of the last line, counted from 1."""

    def __iter__(self) -> Iterator[str]:
        while True:
            self.number += 1
            try:
                line = self._stream.readline(MAX_LINE_BYTES + 1)
            except (OSError, EOFError, zlib.error) as error:
                raise ValueError(f"the file cannot be read further: {error}.") from error
            if not line:
                return
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"a line of more than {MAX_LINE_BYTES:,} bytes. Are the line ends missing?")
            if b"\0" in line:
                raise ValueError("a NUL byte. Is this UTF-16 or no text at all? Convert it: iconv -f UTF-16 -t UTF-8.")
            try:
                yield (line.removeprefix(_BOM) if self.number == 1 else line).decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"not UTF-8 text ({error.reason}: byte 0x{line[error.start]:02x}). Convert it: iconv -t UTF-8."
                ) from error

    @property
    def num_bytes_read(self) -> int:
        """Of the file as it is on disk."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def can_be_text(text: str) -> bool:
    """Whether UTF-8 and CSV can hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
