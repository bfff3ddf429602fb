"""What options of other trainers are called here: for errors on unknown keys, and for docs/names.md.

`python -m geogrpo.config_names > docs/names.md` writes the table.
"""

import math
from collections.abc import Collection

from geogrpo.config_names.table import OTHER_NAMES, Ours


def name_here(unknown: str, own_keys: Collection[str]) -> str | None:
    """What another trainer's option is called here, as a sentence; None where no trainer has an option of that name.

    Args:
        unknown: as written, perhaps with dashes, or below a section that is not its own.
        own_keys: full keys. A word that ends one of them means that one, unless `unknown` is another's whole name.
    """
    wanted = unknown.replace("-", "_").split(".")
    own_words = {key.rsplit(".", 1)[-1] for key in own_keys}

    def likeness(entry: tuple[str, str, Ours]) -> float:
        words = entry[1].split(".")
        if words == wanted:
            return math.inf
        common = _common_tail(wanted, words)
        is_name = common == len(wanted) or common == len(words) or common > 1
        return common if is_name and not (common == 1 and wanted[-1] in own_words) else 0

    everything = [(trainer, name, ours) for trainer, names in OTHER_NAMES.items() for name, ours in names.items()]
    # The first of equals: TRL's name before one that lies deep in a section of another trainer
    nearest = max(everything, key=likeness)
    return _sentence(*nearest) if likeness(nearest) else None


def _common_tail(a: list[str], b: list[str]) -> int:
    count = 0
    for left, right in zip(reversed(a), reversed(b), strict=False):
        if left != right:
            break
        count += 1
    return count


def _sentence(trainer: str, name: str, ours: Ours) -> str:
    if not ours.keys:
        return f"{trainer}'s {name} has no counterpart here: {ours.note}."
    return f"{trainer}'s {name} is {' and '.join(ours.keys)} here{f': {ours.note}' if ours.note else ''}."


def names_as_markdown() -> str:
    """docs/names.md."""
    parts = [
        "# Options of other trainers, and what they are called here",
        "Where a recipe or a command line has one of these, the error says ours. `python -m geogrpo.config_names` makes"
        " this table.",
    ]
    for trainer, names in OTHER_NAMES.items():
        rows = [f"| `{name}` | {_cell(ours)} |" for name, ours in names.items()]
        parts.append("\n".join([f"| {trainer} | here |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _cell(ours: Ours) -> str:
    keys = ", ".join(f"`{key}`" for key in ours.keys)
    return "; ".join(part for part in (keys or "none", ours.note) if part)


__all__ = ["OTHER_NAMES", "Ours", "name_here", "names_as_markdown"]
