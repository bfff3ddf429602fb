"""Stage 2: GRPO. Read this file from top to bottom; each name is one step of the algorithm.

    sample G completions per image -> reward -> advantage -> one or more updates of the clipped policy gradient

geogrpo/grpo holds the halves of a step: sampling.py up to the rewards, learning.py from there on; losses.py the
objectives.

Deviations from GRPO (arXiv 2402.03300), and why:
* The first update of a step needs no old log-probs: its ratio is exactly 1, and what it finds are those of the others.
* Groups whose completions all earned the same (exact max == min) have advantage 0; where nothing else pulls on them,
  they are counted and skip the forward and backward pass, which changes no gradient.
* With beta 0 no reference model exists.
* Averages are over the whole step, all ranks and micro-batches: see losses.py.

Shapes: P prompts, G group.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from geogrpo.accounting import Accounting
from geogrpo.checkpoint import Progress
from geogrpo.config import GRPOConfig
from geogrpo.data.draws import Draw, make_draw
from geogrpo.data.loader import Batch, load_batches
from geogrpo.distributed import all_gather_list
from geogrpo.grpo.learning import Learned, StepLearner
from geogrpo.grpo.metrics import completion_records, sampling_metrics, step_metrics
from geogrpo.grpo.reference import Reference
from geogrpo.grpo.sampling import Sampled, StepSampler
from geogrpo.optimization import (
    Passes,
    StepCounter,
    make_optimizer,
    num_tokens_of_all_ranks,
    set_learning_rate,
)
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import check_row
from geogrpo.policy.processing import Processor
from geogrpo.rewards import Reward, check_columns, find_rewards
from geogrpo.rollout import make_engine
from geogrpo.types import Example


@dataclass(frozen=True)
class StepRecord:
    """What one step did, on every rank."""

    step: int
    """Steps done, this one included."""
    metrics: dict[str, float]
    """Over all ranks."""
    completions: list[dict[str, Any]]
    """Every sampled completion of all ranks with its rewards, ready for JSON."""


def train_grpo(
    policy: Policy,
    processor: Processor,
    examples: Sequence[Example],
    config: GRPOConfig,
    *,
    rewards: Mapping[str, Reward] | None = None,
    reference: Reference | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    progress: Progress | None = None,
    draw: Draw | None = None,
    tokens_per_microbatch: int = 16384,
    communicate_once: bool = False,
    num_loaders: int | None = None,
    seed: int = 0,
    on_step: Callable[[StepRecord], bool | None] = lambda record: None,
) -> None:
    """Train from progress.step to config.steps, or until on_step says so.

    Args:
        policy: from distributed.load_sharded.
        rewards: your own, by the names that config.rewards uses.
        reference: what the KL is measured from; needed when config.loss.beta > 0.
        optimizer: AdamW as config.optimizer says, when None.
        progress: where to start, updated after every step; the beginning, when None.
        draw: which examples a step takes; each once per epoch, when None.
        tokens_per_microbatch: budget of a packed row in unique tokens.
        communicate_once: see optimization.Passes.
        num_loaders: threads that read and encode images ahead of the step; None as data.loader.load_batches.
        seed: of the order of the examples and of the samples.
        on_step: called after every step, on every rank; True ends the training, on all ranks together.
    Raises:
        ValueError: on unknown names, when beta > 0 and there is no reference, naming the first image when none can be
            read for a whole epoch, or naming an example that is too long for tokens_per_microbatch.
    """
    if config.loss.beta > 0 and reference is None:
        raise ValueError("grpo.loss.beta is above 0, so train_grpo needs a reference policy.")
    policy.train()
    optimizer = optimizer or make_optimizer(policy, config.optimizer)
    progress = progress or Progress(stage="grpo")
    draw = draw or make_draw("shuffled", examples)
    chosen_rewards = find_rewards(config.rewards, rewards)
    check_columns(chosen_rewards, examples)
    accounting = Accounting(policy)
    clock = accounting.clock
    sampler = StepSampler(
        make_engine(config.sampling.engine, processor, max_rows=config.sampling.max_rows),
        policy,
        processor,
        examples=examples,
        draw=draw,
        config=config,
        rewards=chosen_rewards,
        seed=seed,
        clock=clock,
    )
    passes = Passes(
        dummy=processor.dummy_group(),
        tokens_per_microbatch=tokens_per_microbatch,
        clock=clock,
        temperature=config.sampling.temperature,
        communicate_once=communicate_once,
    )
    learner = StepLearner(policy, optimizer, reference if config.loss.beta > 0 else None, config, passes)
    steps, per_step = range(progress.step, config.steps), config.prompts_per_step
    counter = StepCounter(progress, num_examples=len(examples), per_step=per_step, num_steps=config.steps)
    reporter = _Reporter(config, counter, accounting, optimizer)
    loading = load_batches(
        examples, processor.encode_prompt, per_step=per_step, seed=seed, steps=steps, num_threads=num_loaders, draw=draw
    )
    with contextlib.closing(loading) as batches:
        for step in steps:
            started = time.perf_counter()
            with clock.phase("data"):
                batch = next(batches)
            for prompt in batch.prompts:
                # Before sampling, not when a completion happens to be long
                check_row(prompt, config.sampling.max_new_tokens - 1, tokens_per_microbatch)
            sampled = sampler.sample(step, batch)
            set_learning_rate(optimizer, step, config.steps, config.optimizer)
            learned = learner.learn(sampled.rollouts, sampled.scores)
            if reference is not None:
                reference.follow(policy, step + 1)
            record = reporter.finish(step, started, batch, sampled, learned)
            if on_step(record):
                return


class _Reporter:
    """Counts steps and puts their metrics together. Every rank has one.

    Args:
        counter, accounting: of the stage.
        optimizer: whose learning rate is reported.
    """

    def __init__(
        self, config: GRPOConfig, counter: StepCounter, accounting: Accounting, optimizer: torch.optim.Optimizer
    ) -> None:
        self._config, self._counter, self._accounting, self._optimizer = config, counter, accounting, optimizer

    def finish(self, step: int, started: float, batch: Batch, sampled: Sampled, learned: Learned) -> StepRecord:
        """Of a 0-based step that began at `started`, as time.perf_counter has it. Every rank must call this."""
        config, rollouts = self._config, sampled.rollouts
        with self._accounting.clock.phase("communication"):
            records = completion_records(step + 1, rollouts, sampled.scores, learned.advantages)
            completions = all_gather_list(records)
        counted = self._counter.finish_step(
            num_tokens=num_tokens_of_all_ranks(rollouts.token_ids),
            skipped=[*batch.skipped, *sampled.skipped],
            seconds=time.perf_counter() - started,
        )
        metrics = step_metrics(completions, config.group_size, learned)
        metrics |= sampling_metrics(sampled, config.max_resampling_rounds) | counted
        metrics |= self._accounting.finish_step(learned.groups * config.updates_per_sample, rollouts)
        metrics["learning_rate"] = self._optimizer.param_groups[0]["lr"]
        return StepRecord(step + 1, metrics, completions)
