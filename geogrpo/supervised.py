"""Stage 1: Chain of Region supervision. The model learns to answer with country, state, city and coordinates.

Source: Geo-R (arXiv 2601.00388). The loss is on the answer only, averaged over the answer tokens of the step.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective
from torch import Tensor, optim

from geogrpo.accounting import Accounting
from geogrpo.checkpoint import Progress
from geogrpo.config import SupervisedConfig
from geogrpo.data.draws import Draw
from geogrpo.data.loader import load_batches
from geogrpo.optimization import (
    Passes,
    StepCounter,
    UpdateResult,
    num_tokens_of_all_ranks,
    set_learning_rate,
    update,
)
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group
from geogrpo.policy.processing import Processor
from geogrpo.regions.chain import supervised_answer
from geogrpo.types import Example, PackedBatch


def train_supervised(
    policy: Policy,
    processor: Processor,
    examples: Sequence[Example],
    config: SupervisedConfig,
    *,
    optimizer: optim.Optimizer,
    progress: Progress,
    draw: Draw | None = None,
    decimals: int,
    tokens_per_microbatch: int,
    communicate_once: bool = False,
    num_loaders: int | None = None,
    seed: int,
    on_step: Callable[[dict[str, float]], None],
) -> None:
    """Train from progress.step to config.steps.

    Args:
        examples: with regions filled in.
        progress: updated after every step.
        draw: which examples a step takes; each once per epoch, when None.
        decimals: of the coordinates in the answers.
        communicate_once: see optimization.update.
        num_loaders: threads that read and encode images ahead of the step.
        on_step: called after every step, on every rank, with the step's metrics.
    Raises:
        ValueError: naming the first image, when none can be read for a whole epoch.
    """
    policy.train()
    steps, per_step = range(progress.step, config.steps), config.examples_per_step
    counter = StepCounter(progress, num_examples=len(examples), per_step=per_step, num_steps=config.steps)
    accounting = Accounting(policy)
    clock = accounting.clock
    passes = Passes(
        dummy=processor.dummy_group(),
        tokens_per_microbatch=tokens_per_microbatch,
        communicate_once=communicate_once,
        clock=clock,
    )
    loading = load_batches(
        examples, processor.encode_prompt, per_step=per_step, seed=seed, steps=steps, num_threads=num_loaders, draw=draw
    )
    with contextlib.closing(loading) as batches:
        for step in steps:
            started = time.perf_counter()
            with clock.phase("data"):
                batch = next(batches)
            groups = [
                Group(prompt, [processor.encode_answer(supervised_answer(prompt.example, decimals))])
                for prompt in batch.prompts
            ]
            with clock.phase("communication"):
                num_tokens = num_tokens_of_all_ranks(group.completions for group in groups)
            set_learning_rate(optimizer, step, config.steps, config.optimizer)
            result = update(
                policy,
                optimizer,
                groups,
                partial(_maximum_likelihood, num_tokens, policy.device),
                _entropy,
                passes=passes,
                max_grad_norm=config.optimizer.max_grad_norm,
            )
            counted = counter.finish_step(
                num_tokens=num_tokens, skipped=batch.skipped, seconds=time.perf_counter() - started
            )
            taken = accounting.finish_step(groups)
            on_step(_learned(result) | {"learning_rate": optimizer.param_groups[0]["lr"]} | counted | taken)


def _learned(result: UpdateResult) -> dict[str, float]:
    if result.num_trained_tokens == 0:
        # Every image of the step was unreadable.
        return {"loss": float("nan")}
    return {"loss": result.loss, **result.token_means, "grad_norm": result.grad_norm}


def _maximum_likelihood(
    num_tokens: int, device: torch.device, completions: list[int], batch: PackedBatch
) -> PolicyObjective:
    ones = torch.ones(len(batch.target_ids), device=device)
    return PolicyObjective(ones, ones / num_tokens, surrogate="reinforce")


def _entropy(completions: list[int], batch: PackedBatch, loss: PolicyLoss) -> dict[str, Tensor]:
    return {"entropy": loss.entropy}
