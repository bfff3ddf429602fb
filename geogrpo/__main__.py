"""`geogrpo <command>` and `python -m geogrpo <command>`."""

import sys
from importlib import import_module

COMMANDS = ("train", "evaluate", "predict", "serve", "label", "audit")
"""Modules of geogrpo, each with a `main`. Only the one that is asked for is imported."""


def main() -> None:
    """Run one command with the rest of the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: geogrpo {{{','.join(COMMANDS)}}} [options]; geogrpo <command> --help says more", file=sys.stderr)
        sys.exit(2)
    import_module(f"geogrpo.{sys.argv[1]}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
