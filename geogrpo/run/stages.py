"""A whole run: make or load the model, stage 1, evaluate, stage 2, evaluate, report. Resumable at any checkpoint."""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from rich.console import Console

from geogrpo import checkpoint as ckpt
from geogrpo.checkpoint import Progress
from geogrpo.config import RunConfig
from geogrpo.config_files import (
    config_to_dict,
    save_config,
)
from geogrpo.data.blue_marble import world_picture
from geogrpo.data.draws import make_draw
from geogrpo.distributed import is_main, shard_policy, world_size
from geogrpo.evaluation import HeldOutPrediction, best_constant_guess, predict_held_out
from geogrpo.evaluation.during import EvaluationHistory, measure
from geogrpo.evaluation.scores import score_tracks
from geogrpo.grpo.reference import Reference, load_reference
from geogrpo.optimization import make_optimizer
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.regions.index import default_index
from geogrpo.report.alerts import AlertWatch
from geogrpo.report.completions import sampled_groups
from geogrpo.report.evaluated import write_evaluation
from geogrpo.report.profile import traced_steps
from geogrpo.report.progress import StageDisplay, make_console
from geogrpo.report.run_log import RunLog, read_predictions
from geogrpo.report.summary import skipped_lines, write_report
from geogrpo.report.trackers import start_trackers
from geogrpo.rollout import make_engine
from geogrpo.run.setup import checkpoint_to_resume, configure_model, example_counts, run_folder, validate
from geogrpo.supervised import train_supervised
from geogrpo.trainer import StepRecord, train_grpo
from geogrpo.types import Example


@dataclass(frozen=True)
class _Training:
    """What a checkpoint is made of, besides the policy."""

    progress: Progress
    optimizer: torch.optim.Optimizer
    reference: Reference | None


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
        self.resume_from = checkpoint_to_resume(config, self.folder) if resume else None
        self.progress = Progress() if self.resume_from is None else ckpt.check_checkpoint(self.resume_from)
        self.model_config = configure_model(config, self.folder / "initial_model", self.splits.train, resume=resume)
        self.processor: Processor = load_processor(self.model_config, config.answer.prompt)
        self.engine = make_engine(config.grpo.sampling.engine, self.processor, max_rows=config.grpo.sampling.max_rows)
        self.policy = self._load_policy()
        self._history: EvaluationHistory | None = None
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
        self._export()
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
        dtype_of_compute = getattr(torch, self.config.model.dtype)
        policy = shard_policy(policy, self.device, dtype_of_compute, self.config.parallel)
        # An attention that cannot run here is refused before anything is written.
        assert policy.attention
        return policy

    def _print_header(self) -> None:
        num_parameters = sum(parameter.numel() for parameter in self.policy.parameters())
        self.console.print(
            f"{num_parameters / 1e6:.1f} M parameters in {self.config.model.dtype}, {self.policy.attention} attention,"
            f" {world_size()} process(es) on"
            f" {self.device.type} with {torch.get_num_threads()} threads each;"
            f" {example_counts(self.splits)}; {self.folder}",
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
        state = _Training(progress, optimizer, reference)
        title = "Stage 1, supervised" if stage == "supervised" else "Stage 2, GRPO"
        display = StageDisplay(stage, title, stage_config.steps, progress.step, self.console)

        def after_step(metrics: dict[str, float]) -> None:
            if self.log:
                self.log.log_step(stage, progress.step, metrics)
            display.step(metrics)
            trace_step()
            if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                self._save(state)

        trace = self.folder / "profile" / f"{stage}.json.gz" if self._profile and is_main() else None
        with traced_steps(trace) as trace_step, display if is_main() else nullcontext():
            train = self._train_supervised if stage == "supervised" else self._train_grpo
            train(state, after_step)
        self._save(state)

    def _train_supervised(self, state: _Training, after_step: Callable[[dict[str, float]], None]) -> None:
        config = self.config
        train_supervised(
            self.policy,
            self.processor,
            self.splits.train,
            config.supervised,
            draw=make_draw(config.data.draw, self.splits.train),
            optimizer=state.optimizer,
            progress=state.progress,
            decimals=config.answer.decimals,
            tokens_per_microbatch=config.tokens_per_microbatch,
            communicate_once=config.communicate_once,
            num_loaders=config.data.num_loaders,
            seed=config.seed,
            on_step=after_step,
        )

    def _train_grpo(self, state: _Training, after_step: Callable[[dict[str, float]], None]) -> None:
        config, progress = self.config, state.progress
        history = EvaluationHistory(config.evaluation, self.folder / "evaluations.json", step=progress.step)
        self._history = history

        def after_grpo_step(record: StepRecord) -> bool:
            if self.log:
                self.log.log_completions(record.completions)
            self._say_alerts(record)
            measured = self._measure_if_due(history, progress.step)
            after_step(record.metrics | measured)
            self._save_best(history, state)
            return history.has_stalled

        if progress.step == 0 and config.grpo.steps:
            measured = self._measure_if_due(history, 0)
            if measured and self.log:
                self.log.log_step(progress.stage, 0, measured)
            self._save_best(history, state)
        if not history.has_stalled:
            train_grpo(
                self.policy,
                self.processor,
                self.splits.grpo_train,
                config.grpo,
                optimizer=state.optimizer,
                progress=progress,
                reference=state.reference,
                draw=make_draw(config.data.draw, self.splits.grpo_train),
                tokens_per_microbatch=config.tokens_per_microbatch,
                communicate_once=config.communicate_once,
                num_loaders=config.data.num_loaders,
                # Other examples first than those stage 1 began with
                seed=config.seed + 1,
                on_step=after_grpo_step,
            )
        if history.has_stalled:
            patience, metric = config.evaluation.patience, config.evaluation.best_metric
            self._say(f"Stopped after step {progress.step}: no better {metric} in {patience} evaluations.")

    def _measure_if_due(self, history: EvaluationHistory, step: int) -> dict[str, float]:
        """eval/<metric> of the policy after so many steps of stage 2; nothing where no evaluation is due."""
        if not history.is_due(step):
            return {}
        count = min(self.config.evaluation.num_images or len(self.splits.test), len(self.splits.test))
        predictions = self._answer([self.splits.test[i] for i in range(count)])
        is_best = history.add(step, measure(predictions, default_index()))
        metrics, name = history.newest.metrics, self.config.evaluation.best_metric
        best = ", the best so far" if is_best else ""
        self._say(f"After step {step}, on {len(predictions):,} held-out images: {name} {metrics[name]:.4g}{best}.")
        return {f"eval/{metric}": value for metric, value in metrics.items()}

    def _save_best(self, history: EvaluationHistory, state: _Training) -> None:
        """Keep the policy where the evaluation of the step just done was the best."""
        if history.best is not None and history.best.step == state.progress.step:
            self._save(state)

    def _say(self, line: str, style: str | None = None) -> None:
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def _say_alerts(self, record: StepRecord) -> None:
        if self.log is None or self._watch is None:
            return
        for alert in self._watch.step(record.step, record.metrics, record.completions):
            self.log.log_alert(alert)
            self._say(alert.line(), "yellow")

    def _save(self, state: _Training) -> None:
        moving = None if state.reference is None else state.reference.moving
        ckpt.save_checkpoint(self.checkpoints, self.policy, state.optimizer, state.progress, reference=moving)
        best = self._best_checkpoint()
        ckpt.prune_checkpoints(self.checkpoints, self.config.keep_checkpoints, kept=best)

    def _best_checkpoint(self) -> Path | None:
        best = None if self._history is None else self._history.best
        return None if best is None else self.checkpoints / ckpt.checkpoint_name(Progress("grpo", best.step))

    def _export(self) -> None:
        """model/, of the policy as it is, and model_best/, of the best evaluation while it trained. Then the policy is
        that one.
        """
        ckpt.export_model(self.folder / "model", self.policy, self.processor)
        best = self._best_checkpoint()
        if best is not None:
            ckpt.load_checkpoint(best, self.policy)
            ckpt.export_model(self.folder / "model_best", self.policy, self.processor)
            self._say(f"Best evaluation: after step {ckpt.read_progress(best).step}; {self.folder / 'model_best'}")

    def _evaluate(self, stage: str) -> None:
        """Write predictions_<stage>.jsonl."""
        with self.console.status(f"Answering {len(self.splits.test):,} held-out images"):
            predictions = self._answer(self.splits.test)
        if self.log:
            self.log.write_predictions(stage, predictions)

    def _answer(self, examples: Sequence[Example]) -> list[HeldOutPrediction]:
        """Greedy and sampled answers to held-out images; the same on every rank."""
        predictions, skipped = predict_held_out(
            self.policy,
            self.processor,
            self.engine,
            examples,
            self.config.evaluation,
            max_new_tokens=self.config.grpo.sampling.max_new_tokens,
            seed=self.config.seed,
        )
        if not predictions:
            raise ValueError(f"no held-out image could be read: {skipped[0]}")
        for message in skipped:
            self._say(f"skipped: {message}", "yellow")
        return predictions

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
            self._say(line, "yellow")

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
            completions=sampled_groups(self.folder / "completions.jsonl", self.splits.grpo_train),
        )


__all__ = ["Run"]
