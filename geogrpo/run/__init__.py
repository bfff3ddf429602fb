"""A whole run: make or load the model, stage 1, evaluate, stage 2, evaluate, report. Resumable at any checkpoint."""

from geogrpo.run.dry import DryRun, dry_run
from geogrpo.run.setup import saved_config, validate
from geogrpo.run.stages import Run

__all__ = ["DryRun", "Run", "dry_run", "saved_config", "validate"]
