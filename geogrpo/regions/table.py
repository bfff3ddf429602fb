"""Names, codes and ancestors of every region of an index, packed into tensors.

Shapes: R regions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = ("country", "state", "county", "city")
"""From the coarsest to the finest; a region's level is its number here."""


@dataclass(frozen=True)
class RegionTable:
    """What an id stands for. A parent's level is coarser than its child's; ids of polygons come first, places last."""

    level: np.ndarray
    """(R,) uint8, into LEVELS."""
    parent: np.ndarray
    """(R,) int32 id, -1 for none."""
    name: list[str]
    code: list[str]
    """ISO 3166, FIPS or whatever the source calls a region by; "" where it has none."""

    def __post_init__(self) -> None:
        lengths = {len(self.level), len(self.parent), len(self.name), len(self.code)}
        if len(lengths) != 1:
            raise ValueError(f"a region table needs columns of one length, got {sorted(lengths)}.")

    def __len__(self) -> int:
        return len(self.level)


def ancestors_by_level(level: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Each region's own id and its ancestors', by level.

    Args:
        level: (R,) in [0, 4).
        parent: (R,) ids or -1.
    Returns:
        (R, 4) int32, -1 where there is none.
    Raises:
        ValueError: on a level or parent that is out of range, or a parent that is not coarser.
    """
    num_regions = len(level)
    if num_regions and int(level.max()) >= len(LEVELS):
        raise ValueError(f"region {int(level.argmax())} has the unknown level {int(level.max())}.")
    if num_regions and not ((parent >= -1) & (parent < num_regions)).all():
        raise ValueError("a region's parent is not there.")
    has_parent = parent >= 0
    coarser = ~has_parent | (level[np.maximum(parent, 0)] < level)
    if not coarser.all():
        raise ValueError(f"the parent of region {int(np.argmin(coarser))} is not of a coarser level.")
    result = np.full((num_regions, len(LEVELS)), -1, dtype=np.int32)
    for number in range(len(LEVELS)):
        here = level == number
        inherited = here & has_parent
        # Parents are coarser, so theirs are complete by now.
        result[inherited] = result[parent[inherited]]
        result[here, number] = np.flatnonzero(here)
    return result


def pack_texts(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """R strings -> (R + 1,) int64 offsets into (B,) uint8 of UTF-8."""
    encoded = [text.encode() for text in texts]
    offset = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offset[1:])
    return offset, np.frombuffer(b"".join(encoded), np.uint8)


def check_texts(offset: np.ndarray, utf8: np.ndarray, num_texts: int) -> None:
    """Raise ValueError unless every text of `pack_texts` can be read."""
    if len(offset) != num_texts + 1 or offset[0] != 0 or offset[-1] != len(utf8) or (np.diff(offset) < 0).any():
        raise ValueError("the offsets of names or codes do not fit their text.")
    try:
        utf8.tobytes().decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"names or codes are not UTF-8: {error}") from error
    # A text may not begin in the middle of a character.
    starts = offset[:-1][offset[:-1] < len(utf8)]
    if ((utf8[starts] & 0xC0) == 0x80).any():
        raise ValueError("the offsets of names or codes cut a character in two.")


def unpack_text(offset: np.ndarray, utf8: np.ndarray, row: int) -> str:
    """The text of one row."""
    return utf8[offset[row] : offset[row + 1]].tobytes().decode()
