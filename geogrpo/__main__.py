"""`geogrpo <command>` and `python -m geogrpo <command>`."""

import sys

from geogrpo import audit, evaluate, label, train

COMMANDS = {"train": train.main, "evaluate": evaluate.main, "label": label.main, "audit": audit.main}


def main() -> None:
    """Run one command with the rest of the command line."""
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: geogrpo {{{','.join(COMMANDS)}}} [options]; geogrpo <command> --help says more", file=sys.stderr)
        sys.exit(2)
    COMMANDS[sys.argv[1]](sys.argv[2:])


if __name__ == "__main__":
    main()
