"""Millions of texts in two arrays: 8 bytes a text besides its UTF-8, where a Python string costs 50.

Shapes: N texts.
"""

from array import array
from collections.abc import Iterable
from itertools import accumulate

import numpy as np


class Texts:
    """N texts, each decoded when asked for. File names that are not UTF-8 survive."""

    def __init__(self, utf8: bytes, ends: np.ndarray) -> None:
        self._utf8, self._ends = utf8, ends

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        start = int(self._ends[row - 1]) if row else 0
        return self._utf8[start : int(self._ends[row])].decode("utf-8", "surrogateescape")


class TextsBuilder:
    """Texts in the making."""

    def __init__(self) -> None:
        self._utf8, self._ends = bytearray(), array("q")

    def extend(self, texts: Iterable[str]) -> None:
        """Append texts."""
        encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
        self._ends.extend(
            accumulate(map(len, encoded[1:]), initial=len(self._utf8) + len(encoded[0])) if encoded else ()
        )
        self._utf8 += b"".join(encoded)

    def finish(self) -> Texts:
        """All of them; the builder is empty then."""
        texts = Texts(bytes(self._utf8), np.frombuffer(self._ends, np.int64).copy())
        self.__init__()  # type: ignore[misc]  # frees both halves before another column is finished
        return texts


class CodesBuilder:
    """Names that repeat, such as countries, as numbers into a list; None is -1."""

    def __init__(self) -> None:
        self._code_of: dict[str, int] = {}
        self._codes = array("i")

    def extend(self, names: Iterable[str | None]) -> None:
        """Append names."""
        known = self._code_of
        self._codes.extend(-1 if name is None else known.setdefault(name, len(known)) for name in names)

    def finish(self) -> "Codes":
        """All of them."""
        return Codes(list(self._code_of), np.frombuffer(self._codes, np.int32).copy())


class Codes:
    """N names or None, of which few differ."""

    def __init__(self, names: list[str], codes: np.ndarray) -> None:
        self._names, self._codes = names, codes

    def __getitem__(self, row: int) -> str | None:
        code = int(self._codes[row])
        return None if code < 0 else self._names[code]
