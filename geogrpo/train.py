"""Train a geolocation policy: supervised Chain of Region, then GRPO, with held-out evaluation after each.

torchrun --standalone --nproc-per-node 1 -m geogrpo.train               the recipe `demo`
torchrun --standalone --nproc-per-node 8 -m geogrpo.train --recipe my.yaml --grpo.steps 500
python -m geogrpo.train --recipe my.yaml --dry-run                      validate, print the configuration, stop
torchrun --standalone --nproc-per-node 1 -m geogrpo.train --resume      go on after the last checkpoint, with the
                                                                        options the run was started with
"""

import argparse
import sys
from collections.abc import Sequence

import torch.distributed as dist
import yaml

from geogrpo.config import config_to_dict, load_config
from geogrpo.distributed import init_distributed, is_main
from geogrpo.run import Run, dry_run, saved_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the configuration or the data ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="geogrpo.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Every option of geogrpo/config.py can be given as --section.key value.",
        allow_abbrev=False,
    )
    parser.add_argument("--recipe", default="demo", help="a recipe in geogrpo/recipes, or a YAML file (default: demo)")
    parser.add_argument("--dry-run", action="store_true", help="validate everything, print the configuration and stop")
    parser.add_argument("--resume", action="store_true", help="go on after the last checkpoint of the recipe's run")
    options, overrides = parser.parse_known_args(arguments)
    try:
        # Only here is a ValueError the user's: one raised while training is a bug, and keeps its traceback.
        try:
            config = load_config(options.recipe, overrides)
            device = init_distributed()
            if options.resume:
                config = saved_config(config, overrides)
            report = dry_run(config) if options.dry_run else None
            run = None if options.dry_run else Run(config, device, resume=options.resume)
        except ValueError as error:
            print(f"geogrpo.train: error: {error}", file=sys.stderr)
            sys.exit(2)
        if run is not None:
            run.train()
        elif is_main():
            print(yaml.safe_dump(config_to_dict(config), sort_keys=False), end="")
            print(f"# valid: {report}")
    finally:
        shut_down()


def shut_down() -> None:
    """Leave the process group, all ranks together: one that leaves early makes gloo abort another."""
    if dist.is_initialized():
        if sys.exc_info()[0] is None:
            dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
