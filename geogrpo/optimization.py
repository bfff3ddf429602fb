"""One optimizer step over any number of packed rows and ranks, shared by both stages.

The gradient is that of (sum of token losses) / (one token count over all ranks and rows): it does not depend on how
the step was split.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective
from torch import Tensor
from torch.distributed.tensor import DTensor

from geogrpo.checkpoint import Progress
from geogrpo.clock import Clock
from geogrpo.config import OptimizerConfig
from geogrpo.distributed import all_gather_list, all_max, all_sum, communicate_after
from geogrpo.losses import Objective
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, Row, pack, split_into_rows
from geogrpo.types import PackedBatch

RowObjective = Callable[[list[int], PackedBatch], Objective]
"""(which of all groups' completions are in the row, row) -> what to minimise."""

RowMetrics = Callable[[list[int], PackedBatch, PolicyLoss], dict[str, Tensor]]
"""(which of all groups' completions are in the row, row, its loss) -> (S,) tensors to average over the tokens."""


@dataclass(frozen=True)
class Passes:
    """How a step's groups go through a policy, in every pass of the step."""

    dummy: Group
    """A group without weight, for ranks that have fewer rows than another."""
    tokens_per_microbatch: int
    """Budget of a packed row."""
    clock: Clock
    """Counts the phases."""
    temperature: float = 1.0
    """Of the log-probs."""
    communicate_once: bool = False
    """Updates: gather parameters and add up gradients once, not for every row; every rank then holds all of both."""

    def rows(self, groups: Sequence[Group]) -> Iterator[tuple[Row | None, PackedBatch, bool]]:
        """This rank's rows, each with its tokens and whether it is the last: as many on every rank, the missing ones
        None with the dummy's tokens. Each forward and backward pass gathers parameters, and every rank must take part.

        Raises:
            ValueError: naming the example, when one completion with its prompt is larger than the budget.
        """
        rows = split_into_rows(groups, self.tokens_per_microbatch)
        with self.clock.phase("communication"):
            num_rows = all_max(len(rows))
        for i in range(num_rows):
            row = rows[i] if i < len(rows) else None
            yield row, pack([self.dummy] if row is None else row.groups), i + 1 == num_rows


_LOSS, _COUNT = "__loss__", "__count__"


@dataclass(frozen=True)
class UpdateResult:
    """What one optimizer step did, over all ranks."""

    loss: float
    """Sum of the weighted token losses; 0 without tokens."""
    token_means: dict[str, float]
    """The row metrics, averaged over the tokens trained; empty when there were none."""
    rank_means: list[dict[str, float]]
    """The same for each rank that had tokens."""
    grad_norm: float
    """Global norm before clipping."""
    num_trained_tokens: int
    """Target tokens that went through a backward pass."""


def make_optimizer(policy: Policy, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the parameters that train."""
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    betas = (config.beta1, config.beta2)
    # foreach: one call for all parameters instead of one per parameter, also for sharded ones on a CPU
    return torch.optim.AdamW(parameters, lr=config.lr, betas=betas, weight_decay=config.weight_decay, foreach=True)


def learning_rate(step: int, num_steps: int, config: OptimizerConfig) -> float:
    """Learning rate of 0-based `step`: linear warm-up, then linear decay that reaches its end after the last step."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    progress = max(0, step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    return config.lr * warmup * (1 - (1 - config.final_lr_fraction) * progress)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, num_steps: int, config: OptimizerConfig) -> None:
    """Give the optimizer the learning rate of 0-based `step`."""
    for param_group in optimizer.param_groups:
        param_group["lr"] = learning_rate(step, num_steps, config)


def num_tokens_of_all_ranks(completions: Iterable[Sequence[Tensor]]) -> int:
    """Tokens in every rank's completions, given as groups of (length,) ids."""
    return int(all_sum(torch.tensor(sum(len(ids) for group in completions for ids in group))))


class StepCounter:
    """Counts what the steps of a stage did, the same on every rank.

    Args:
        progress: updated by every step.
        num_examples: in the training set.
        per_step: examples of one step, over all ranks.
        num_steps: of the stage.
    """

    def __init__(self, progress: Progress, *, num_examples: int, per_step: int, num_steps: int) -> None:
        self._progress = progress
        # An epoch, or the whole stage where that is shorter
        self._max_unreadable = min(num_examples, num_steps * per_step)
        self._unreadable: list[str] = []

    def finish_step(self, *, num_tokens: int, skipped: Sequence[str], seconds: float) -> dict[str, float]:
        """Count one more step and return the metrics that both stages have.

        Args:
            num_tokens: completion tokens of all ranks.
            skipped: why images of this rank could not be read.
            seconds: the step took.
        Raises:
            ValueError: naming the first image, when none could be read for an epoch or the whole stage.
        """
        of_all_ranks = all_gather_list(list(skipped))
        progress = self._progress
        progress.finish_step(num_tokens, of_all_ranks)
        self._unreadable = [] if num_tokens else [*self._unreadable, *of_all_ranks]
        if self._unreadable and len(self._unreadable) >= self._max_unreadable:
            number, first = len(self._unreadable), self._unreadable[0]
            raise ValueError(f"none of the last {number} training images could be read; the first: {first}")
        return {
            "num_tokens": progress.num_tokens,
            "num_skipped_images": len(progress.skipped_images),
            "tokens_per_s": num_tokens / seconds,
            "step_s": seconds,
        }


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    groups: Sequence[Group],
    objective: RowObjective,
    metrics: RowMetrics,
    *,
    passes: Passes,
    max_grad_norm: float,
) -> UpdateResult:
    """Forward, backward and step. Every rank must call this, with any number of groups.

    Without a token on any rank nothing changes: no optimizer step is taken.

    Args:
        groups: this rank's groups.
        objective: what to minimise in a row.
        metrics: what to report of a row.
        passes: how groups become rows.
        max_grad_norm: 0 turns clipping off.
    Raises:
        ValueError: as Passes.rows.
    """
    clock = passes.clock
    optimizer.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for row, batch, is_last in passes.rows(groups):
        with (
            clock.phase("forward_backward", len(batch.input_ids)),
            communicate_after(policy, is_last=is_last, once=passes.communicate_once),
        ):
            if row is None:
                nothing = torch.zeros(len(batch.target_ids), device=policy.device)
                policy.loss(batch, PolicyObjective(nothing, nothing), passes.temperature).loss.backward()
            else:
                loss = policy.loss(batch, objective(row.completions, batch), passes.temperature)
                loss.loss.backward()
                _add(sums, _sums(loss, metrics(row.completions, batch, loss)))
    # Gathered, not reduced: a rank without rows has no names to reduce.
    with clock.phase("communication"):
        per_rank = [part for part in all_gather_list([sums]) if part]
    totals: dict[str, float] = {}
    for part in per_rank:
        _add(totals, part)
    grad_norm = 0.0
    if totals:
        with clock.phase("optimizer"):
            grad_norm = _clip(policy, max_grad_norm)
            optimizer.step()
    return UpdateResult(
        loss=totals.get(_LOSS, 0.0),
        token_means=_means(totals),
        rank_means=[_means(part) for part in per_rank],
        grad_norm=grad_norm,
        num_trained_tokens=int(totals.get(_COUNT, 0.0)),
    )


def _means(sums: dict[str, float]) -> dict[str, float]:
    return {name: value / sums[_COUNT] for name, value in sums.items() if name not in (_LOSS, _COUNT)}


def _sums(loss: PolicyLoss, metrics: dict[str, Tensor]) -> dict[str, float]:
    """A row's metrics, summed over its tokens, with their number and the loss."""
    values = {**metrics, _COUNT: torch.ones_like(loss.logprobs), _LOSS: loss.loss.detach()}
    # One copy from the device per row
    numbers = torch.stack([value.double().sum() for value in values.values()]).tolist()
    return dict(zip(values, numbers, strict=True))


def _add(totals: dict[str, float], values: dict[str, float]) -> None:
    for name, value in values.items():
        totals[name] = totals.get(name, 0.0) + value


def _clip(policy: Policy, max_grad_norm: float) -> float:
    parameters = [parameter for parameter in policy.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or torch.inf, foreach=True)
    value = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    if not torch.isfinite(torch.tensor(value)):
        raise ValueError(f"the gradient norm is {value}: lower the learning rate, or train in float32 to find out why.")
    return value
