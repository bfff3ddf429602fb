"""A whole run: make or load the model, stage 1, evaluate, stage 2, evaluate, report. Resumable at any checkpoint."""

import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import transformers
from rich.console import Console

from geogrpo import checkpoint as ckpt
from geogrpo.checkpoint import Progress
from geogrpo.config import ModelConfig, RunConfig
from geogrpo.config_files import (
    MAY_DIFFER_ON_RESUME,
    config_differences,
    config_to_dict,
    load_config,
    save_config,
)
from geogrpo.data import Splits, load_dataset
from geogrpo.data.blue_marble import world_picture
from geogrpo.data.draws import make_draw
from geogrpo.distributed import all_gather_list, is_main, shard_policy, shard_slice, world_size
from geogrpo.evaluation import best_constant_guess, predict_held_out
from geogrpo.evaluation.scores import score_tracks
from geogrpo.grpo.reference import Reference, load_reference
from geogrpo.images import open_image
from geogrpo.losses import find_loss
from geogrpo.optimization import make_optimizer
from geogrpo.plan import DataSize
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.prompts import PROMPTS
from geogrpo.regions.chain import supervised_answer
from geogrpo.regions.index import default_index
from geogrpo.report.alerts import AlertWatch
from geogrpo.report.evaluated import write_evaluation
from geogrpo.report.profile import traced_steps
from geogrpo.report.progress import StageDisplay, make_console
from geogrpo.report.run_log import RunLog, read_predictions
from geogrpo.report.summary import skipped_lines, write_report
from geogrpo.report.trackers import check_trackers, start_trackers
from geogrpo.rewards import check_columns, find_rewards
from geogrpo.rollout import ENGINES, make_engine
from geogrpo.seeds import Stream, stream_seed
from geogrpo.supervised import train_supervised
from geogrpo.trainer import StepRecord, train_grpo
from geogrpo.types import Example

TOKENIZER_EXAMPLES, PICTURE_EXAMPLES = 40_000, 256
"""Training examples that the tiny model's tokenizer and pixel statistics are taken from."""


def validate(config: RunConfig) -> Splits:
    """Load the data and check every name of the configuration.

    Raises:
        ValueError: naming the key, file or line at fault.
    """
    check_trackers(config.logging)
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


@dataclass(frozen=True)
class DryRun:
    """What a dry run found."""

    report: str
    """A line for the reader."""
    data: DataSize
    """For a plan that knows the data."""


def dry_run(config: RunConfig) -> DryRun:
    """Check what can be checked without a policy, leave nothing behind, and return what was found.

    Loads the data; makes the tiny model in a temporary folder, or takes the configured one; loads its tokenizer and
    image processor (no weights); encodes every example that is an image file (one that stage 2 shares with stage 1
    once), shared out over the ranks, or the first training example where the dataset makes its pictures. Every rank
    must call this.

    Raises:
        ValueError: naming the key, file or line at fault, on every rank.
    """
    splits = validate(config)
    parts = (splits.train, splits.test, *([] if splits.only_grpo is None else [splits.only_grpo]))
    files = list({str(example.image): example for part in parts for example in _with_files(part)}.values())
    with tempfile.TemporaryDirectory() as own:
        # The main rank writes, the others read: in its folder
        folder = Path(all_gather_list([own])[0])
        model_config = _model_config(config, folder / "initial_model", splits.train, resume=False)
        processor = load_processor(model_config, config.answer.prompt)
        prompt = processor.encode_prompt(splits.train[0])
        # Every rank must have loaded before the folder goes.
        _barrier()
    problems = all_gather_list(_first_problem(files[shard_slice(len(files))], processor))
    if problems:
        raise ValueError(problems[0])
    num_tokens = len(prompt.token_ids)
    num_image_tokens = int((prompt.token_ids == processor.image_token_id).sum())
    return DryRun(
        f"{_example_counts(splits)}, {len(files):,} image files read; the first prompt has {num_tokens} tokens.",
        DataSize(len(splits.train), len(splits.grpo_train), num_image_tokens, num_tokens - num_image_tokens),
    )


def _example_counts(splits: Splits) -> str:
    own = "" if splits.only_grpo is None else f" ({len(splits.only_grpo):,} others in stage 2)"
    return f"{len(splits.train):,} training{own} and {len(splits.test):,} held-out examples"


def _first_problem(examples: Sequence[Example], processor: Processor) -> list[str]:
    """The message of the first example that cannot be encoded, or nothing."""
    for example in examples:
        try:
            processor.encode_prompt(example)
        except ValueError as error:
            return [str(error)]
    return []


def _barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def _with_files(examples: Sequence[Example]) -> list[Example]:
    # A dataset that makes its pictures may hold a hundred thousand and no file.
    if len(examples) and not isinstance(examples[0].image, str | Path):
        return []
    return [example for example in examples if isinstance(example.image, str | Path)]


def _model_config(config: RunConfig, folder: Path, train: Sequence[Example], *, resume: bool) -> ModelConfig:
    """The model to load: the configured one, or a tiny one that the main rank makes in `folder`.

    A resumed run takes the one it made when it started.
    """
    if config.model.path is not None:
        return config.model
    if resume and not (folder / "config.json").exists():
        raise ValueError(f"--resume: the run's own {folder} is missing.")
    if is_main() and not resume:
        _make_tiny_model(config, folder, train)
    _barrier()
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


class Run:
    """One run on this rank.

    Args:
        config: what to do.
        device: of this rank.
        resume: go on after the last checkpoint of the newest folder of this name, instead of starting a new one.
        profile: whether to write a trace of each stage's third and fourth step to profile/.
    Raises:
        ValueError: naming the key, file or line at fault; on a resume also the options that are not those the run was
            started with, or the damaged file of its checkpoint. Nothing is changed then.
    """

    def __init__(self, config: RunConfig, device: torch.device, *, resume: bool, profile: bool = False) -> None:
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self.config, self.device, self._profile = config, device, profile
        self.console = make_console() if is_main() else Console(quiet=True)
        self.splits = validate(config)
        self.folder = run_folder(config, resume=resume)
        self.checkpoints = self.folder / "checkpoints"
        self.resume_from = _checkpoint_to_resume(config, self.folder) if resume else None
        self.progress = Progress() if self.resume_from is None else ckpt.check_checkpoint(self.resume_from)
        self.model_config = _model_config(config, self.folder / "initial_model", self.splits.train, resume=resume)
        self.processor: Processor = load_processor(self.model_config, config.answer.prompt)
        self.engine = make_engine(config.grpo.sampling.engine, self.processor, max_rows=config.grpo.sampling.max_rows)
        self.policy = self._load_policy()
        self.log, self._watch = None, None
        if is_main():
            options = config_to_dict(config)
            self.log = RunLog(self.folder, start_trackers(config.logging, self.folder, options, is_resumed=resume))
            self._watch = AlertWatch(config.logging, default_index())

    def train(self) -> None:
        """Both stages, each followed by its held-out evaluation, then the report."""
        started = time.monotonic()
        if is_main() and self.resume_from is None:
            save_config(self.config, self.folder / "config.yaml")
        self._print_header()
        progress = self.progress
        for stage in ckpt.STAGES[ckpt.STAGES.index(progress.stage) :]:
            if stage != progress.stage:
                progress = Progress(stage=stage, skipped_images=progress.skipped_images)
            self._train_stage(progress)
            self._evaluate(stage)
            self.resume_from = None
        ckpt.export_model(self.folder / "model", self.policy, self.processor)
        if is_main():
            self._report(progress)
            self.console.print(f"The run took {(time.monotonic() - started) / 60:.1f} minutes. Results: {self.folder}")
        if self.log:
            self.log.close()

    def _load_reference(self) -> Reference | None:
        (start, *_) = [path for path in reversed(ckpt.list_checkpoints(self.checkpoints)) if "supervised" in path.name]
        return load_reference(
            self.policy, self._load_policy, self.config.grpo, start=start, resume_from=self.resume_from
        )

    def _load_policy(self, dtype: torch.dtype | None = None) -> Policy:
        """A model as the configuration has it, its parameters kept in `dtype`, or float32."""
        policy = load_policy(self.model_config, self.processor.tokenizer)
        for parameter in policy.parameters() if dtype else ():
            parameter.data = parameter.data.to(dtype)
        policy = shard_policy(policy, self.device, getattr(torch, self.config.model.dtype))
        # An attention that cannot run here is refused before anything is written.
        assert policy.attention
        return policy

    def _print_header(self) -> None:
        num_parameters = sum(parameter.numel() for parameter in self.policy.parameters())
        self.console.print(
            f"{num_parameters / 1e6:.1f} M parameters in {self.config.model.dtype}, {self.policy.attention} attention,"
            f" {world_size()} process(es) on"
            f" {self.device.type} with {torch.get_num_threads()} threads each;"
            f" {_example_counts(self.splits)}; {self.folder}",
            highlight=False,
        )
        if self.resume_from is not None:
            self.console.print(f"Resumed after {self.resume_from}, with {self.folder / 'config.yaml'}", highlight=False)

    def _train_stage(self, progress: Progress) -> None:
        """Train one stage from where `progress` stands, with a checkpoint at its end."""
        stage, config = progress.stage, self.config
        stage_config = config.supervised if stage == "supervised" else config.grpo
        optimizer = make_optimizer(self.policy, stage_config.optimizer)
        if self.resume_from is not None:
            ckpt.load_checkpoint(self.resume_from, self.policy, optimizer)
        reference = None if stage == "supervised" else self._load_reference()
        title = "Stage 1, supervised" if stage == "supervised" else "Stage 2, GRPO"
        display = StageDisplay(stage, title, stage_config.steps, progress.step, self.console)

        def after_step(metrics: dict[str, float]) -> None:
            if self.log:
                self.log.log_step(stage, progress.step, metrics)
            display.step(metrics)
            trace_step()
            if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                self._save(optimizer, progress, reference)

        def after_grpo_step(record: StepRecord) -> None:
            if self.log:
                self.log.log_completions(record.completions)
            self._say_alerts(record)
            after_step(record.metrics)

        trace = self.folder / "profile" / f"{stage}.json.gz" if self._profile and is_main() else None
        with traced_steps(trace) as trace_step, display if is_main() else nullcontext():
            if stage == "supervised":
                train_supervised(
                    self.policy,
                    self.processor,
                    self.splits.train,
                    config.supervised,
                    draw=make_draw(config.data.draw, self.splits.train),
                    optimizer=optimizer,
                    progress=progress,
                    decimals=config.answer.decimals,
                    tokens_per_microbatch=config.tokens_per_microbatch,
                    communicate_once=config.communicate_once,
                    num_loaders=config.data.num_loaders,
                    seed=config.seed,
                    on_step=after_step,
                )
            else:
                train_grpo(
                    self.policy,
                    self.processor,
                    self.splits.grpo_train,
                    config.grpo,
                    optimizer=optimizer,
                    progress=progress,
                    reference=reference,
                    draw=make_draw(config.data.draw, self.splits.grpo_train),
                    tokens_per_microbatch=config.tokens_per_microbatch,
                    communicate_once=config.communicate_once,
                    num_loaders=config.data.num_loaders,
                    # Other examples first than those stage 1 began with
                    seed=config.seed + 1,
                    on_step=after_grpo_step,
                )
        self._save(optimizer, progress, reference)

    def _say_alerts(self, record: StepRecord) -> None:
        if self.log is None or self._watch is None:
            return
        for alert in self._watch.step(record.step, record.metrics, record.completions):
            self.log.log_alert(alert)
            self.console.print(alert.line(), style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _save(self, optimizer: torch.optim.Optimizer, progress: Progress, reference: Reference | None) -> None:
        moving = None if reference is None else reference.moving
        ckpt.save_checkpoint(self.checkpoints, self.policy, optimizer, progress, reference=moving)
        ckpt.prune_checkpoints(self.checkpoints, self.config.keep_checkpoints)

    def _evaluate(self, stage: str) -> None:
        """Write predictions_<stage>.jsonl."""
        with self.console.status(f"Answering {len(self.splits.test):,} held-out images"):
            predictions, skipped = predict_held_out(
                self.policy,
                self.processor,
                self.engine,
                self.splits.test,
                self.config.evaluation,
                max_new_tokens=self.config.grpo.sampling.max_new_tokens,
                seed=self.config.seed,
            )
        if not predictions:
            raise ValueError(f"no held-out image could be read: {skipped[0]}")
        for message in skipped:
            self.console.print(f"skipped: {message}", style="yellow", markup=False)
        if self.log:
            self.log.write_predictions(stage, predictions)

    def _report(self, progress: Progress) -> None:
        write_report(
            self.folder,
            constant_latlon_deg=best_constant_guess(self.splits.train, seed=self.config.seed),
            index=default_index(),
            num_samples=self.config.evaluation.bootstrap_samples,
            world=world_picture(),
            console=self.console,
        )
        self._write_page()
        for line in skipped_lines(progress.skipped_images):
            self.console.print(line, style="yellow", markup=False, highlight=False)

    def _write_page(self) -> None:
        """report/report.html and its tables, of the answers after the last stage."""
        predictions = read_predictions(self.folder, ckpt.STAGES[-1])
        # Without the track of names, which needs an extra that training does not.
        scored = score_tracks(
            predictions,
            index=default_index(),
            num_samples=self.config.evaluation.bootstrap_samples,
            use_names=False,
        )
        write_evaluation(
            self.folder / "report",
            predictions=predictions,
            examples={example.id: example for example in self.splits.test},
            scored=scored,
            config=config_to_dict(self.config),
            index=default_index(),
            world=world_picture(),
        )


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


def _checkpoint_to_resume(config: RunConfig, folder: Path) -> Path:
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


__all__ = ["DryRun", "Run", "dry_run", "saved_config", "validate"]
