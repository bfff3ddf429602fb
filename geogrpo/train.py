"""Train a geolocation policy: supervised Chain of Region, then GRPO, with held-out evaluation after each.

torchrun --standalone --nproc-per-node 1 -m geogrpo.train               the recipe `demo`
torchrun --standalone --nproc-per-node 8 -m geogrpo.train --recipe my.yaml --grpo.steps 500
python -m geogrpo.train --recipe geo_r --dry-run --gpus 8               plan: steps, tokens, memory, hours; then
                                                                        validate, print the configuration, stop
torchrun --standalone --nproc-per-node 1 -m geogrpo.train --resume      go on after the last checkpoint, with the
                                                                        options the run was started with
"""

import argparse
import shutil
import sys
from collections.abc import Sequence

import yaml

from geogrpo.clock import OutOfMemory
from geogrpo.config import RunConfig
from geogrpo.config_files import config_to_dict, load_config
from geogrpo.distributed import init_distributed, is_main, leave_together, world_size
from geogrpo.plan import format_data, format_plan, plan_run
from geogrpo.policy.packing import RowTooLong
from geogrpo.rewards.judge import JudgeError
from geogrpo.run import Run, dry_run, saved_config

COMMENT, MAX_WIDTH = "# ", 120
"""What makes a line of a recipe a comment, and the longest line of a plan."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the configuration or the data ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="geogrpo.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every option of geogrpo/config/ can be given as --section.key value.",
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", default="demo", help="a recipe in geogrpo/recipes, or a YAML file (default: demo)")
    parser.add_argument(
        "--dry-run", action="store_true", help="print a plan, validate everything, print the configuration and stop"
    )
    parser.add_argument("--gpus", type=int, help="GPUs that --dry-run plans for (default: as many as processes)")
    parser.add_argument("--resume", action="store_true", help="go on after the last checkpoint of the recipe's run")
    parser.add_argument(
        "--profile", action="store_true", help="write a trace of two steps of each stage to the run's profile/"
    )
    options, overrides = parser.parse_known_args(arguments)
    try:
        # Only here is a ValueError the user's: one raised while training is a bug, and keeps its traceback.
        try:
            config = load_config(options.recipe, overrides)
            if options.gpus is not None and (options.gpus < 1 or not options.dry_run):
                raise ValueError(f"--gpus {options.gpus}: give at least 1, and only with --dry-run.")
            device = init_distributed()
            if options.resume:
                config = saved_config(config, overrides)
            if options.dry_run:
                print_dry_run(config, options.gpus or world_size())
            run = None if options.dry_run else Run(config, device, resume=options.resume, profile=options.profile)
        except ValueError as error:
            print(f"geogrpo.train: error: {error}", file=sys.stderr)
            sys.exit(2)
        if run is not None:
            try:
                run.train()
            except (JudgeError, OutOfMemory, RowTooLong) as error:
                print(f"geogrpo.train: stopped: {error}", file=sys.stderr)
                sys.exit(1)
    finally:
        leave_together()


def print_dry_run(config: RunConfig, num_gpus: int) -> None:
    """Print the plan at once, as nothing must be there for it; then what loading the data and the model's files shows.

    All but the configuration is printed as comments, so that the output is a recipe. Every rank must call this.

    Raises:
        ValueError: as geogrpo.run.dry_run.
    """
    if is_main():
        width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
        print(_commented(format_plan(plan_run(config, num_gpus), width - len(COMMENT))), flush=True)
    found = dry_run(config)
    if is_main():
        print(yaml.safe_dump(config_to_dict(config), sort_keys=False), end="")
        print(_commented(format_data(plan_run(config, num_gpus, data=found.data))), end="")
        print(f"{COMMENT}valid: {found.report}")


def _commented(lines: str) -> str:
    return "".join(f"{COMMENT}{line}".rstrip() + "\n" for line in lines.splitlines())


if __name__ == "__main__":
    main()
