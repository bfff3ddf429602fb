"""What a run starts from: its data, its folder, the model it makes, and the checkpoint it goes on after."""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch.distributed as dist

from geogrpo import checkpoint as ckpt
from geogrpo.config import ModelConfig, RunConfig
from geogrpo.config_files import (
    MAY_DIFFER_ON_RESUME,
    config_differences,
    load_config,
)
from geogrpo.data import Splits, load_dataset
from geogrpo.data.draws import make_draw
from geogrpo.distributed import all_gather_list, is_main
from geogrpo.evaluation.during import check_best_metric
from geogrpo.images import open_image
from geogrpo.losses import find_loss
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.prompts import PROMPTS
from geogrpo.regions.chain import supervised_answer
from geogrpo.report.trackers import check_trackers
from geogrpo.rewards import check_columns, find_rewards
from geogrpo.rollout import ENGINES
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example

TOKENIZER_EXAMPLES, PICTURE_EXAMPLES = 40_000, 256
"""Training examples that the tiny model's tokenizer and pixel statistics are taken from."""


def validate(config: RunConfig) -> Splits:
    """Load the data and check every name of the configuration.

    Raises:
        ValueError: naming the key, file or line at fault.
    """
    check_trackers(config.logging)
    check_best_metric(config.evaluation)
    rewards = find_rewards(config.grpo.rewards)
    find_loss(config.grpo.loss)
    if config.grpo.sampling.engine not in ENGINES:
        raise ValueError(f"grpo.sampling.engine must be one of {', '.join(ENGINES)}.")
    if config.answer.prompt not in PROMPTS:
        raise ValueError(f"answer.prompt {config.answer.prompt!r} is unknown. Known: {', '.join(PROMPTS)}.")
    splits = load_dataset(config.data, config.seed)
    if config.grpo.steps:
        check_columns(rewards, splits.grpo_train)
        make_draw(config.data.draw, splits.grpo_train)
        for reward in rewards.values():
            if hasattr(reward, "check"):
                reward.check()
    return splits


def example_counts(splits: Splits) -> str:
    """For a reader."""
    own = "" if splits.only_grpo is None else f" ({len(splits.only_grpo):,} others in stage 2)"
    return f"{len(splits.train):,} training{own} and {len(splits.test):,} held-out examples"


def configure_model(config: RunConfig, folder: Path, train: Sequence[Example], *, resume: bool) -> ModelConfig:
    """The model to load: the configured one, or a tiny one that the main rank makes in `folder`.

    A resumed run takes the one it made when it started.
    """
    if config.model.path is not None:
        return config.model
    if resume and not (folder / "config.json").exists():
        raise ValueError(f"--resume: the run's own {folder} is missing.")
    if is_main() and not resume:
        _make_tiny_model(config, folder, train)
    barrier()
    return replace(config.model, path=str(folder))


def _make_tiny_model(config: RunConfig, folder: Path, train: Sequence[Example]) -> None:
    """Write a tiny model to `folder`, complete or not at all, in place of what an earlier attempt left there."""
    rng = np.random.default_rng(stream_seed(config.seed, Stream.TINY_MODEL))
    order = [int(i) for i in rng.permutation(len(train))[:TOKENIZER_EXAMPLES]]
    texts = [supervised_answer(train[i], config.answer.decimals) for i in order]
    pictures = [open_image(train[i]) for i in order[:PICTURE_EXAMPLES]]
    temporary = folder.with_name(f".writing-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    save_tiny_model(temporary, config.model.tiny, texts, pictures, seed=config.seed)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def barrier() -> None:
    """Wait for the other ranks, where there are any."""
    if dist.is_initialized():
        dist.barrier()


def run_folder(config: RunConfig, *, resume: bool) -> Path:
    """Where a run lives: output_dir/name, or name-2, name-3, ... so that an earlier run is never overwritten."""
    base = Path(config.output_dir) / config.name
    numbered = itertools.chain([base], (base.with_name(f"{base.name}-{i}") for i in itertools.count(2)))
    existing = list(itertools.takewhile(lambda folder: (folder / "config.yaml").exists(), numbered))
    if resume and not existing:
        raise ValueError(f"--resume: there is no run in {base}.")
    folder = existing[-1] if resume else base if not existing else base.with_name(f"{base.name}-{len(existing) + 1}")
    # Every rank must have looked before one of them writes.
    return all_gather_list([folder])[0]


def saved_config(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """What the run that `config` names was started with, changed by command-line words."""
    folder = run_folder(config, resume=True)
    return replace(load_config(str(folder / "config.yaml"), overrides), name=config.name, output_dir=config.output_dir)


def checkpoint_to_resume(config: RunConfig, folder: Path) -> Path:
    """The newest complete checkpoint of the run in `folder`, which must have been started with the same options."""
    path = folder / "config.yaml"
    differences = config_differences(load_config(str(path)), config)
    changed = [f"{key}: {old} -> {new}" for key, (old, new) in differences.items() if key not in MAY_DIFFER_ON_RESUME]
    if changed:
        raise ValueError(
            f"--resume: {path} says otherwise: {'; '.join(changed)}."
            " Leave these options out, or start another run without --resume."
        )
    checkpoints = folder / "checkpoints"
    newest = ckpt.latest_checkpoint(checkpoints)
    if newest is None:
        raise ValueError(f"--resume: {checkpoints} holds no complete checkpoint.")
    return newest
