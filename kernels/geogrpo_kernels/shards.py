"""Row statistics of a softmax, and how those of vocabulary shards become one.

A row's softmax is kept as four numbers: its largest logit, the sum of exp(y), the sum of exp(y) * y, and the target's
logit, where y = (logit - largest) / temperature. Nothing is lost to a common offset of the logits, and two parts of
a row merge exactly: that is how blocks of a vocabulary, and ranks that hold shards of it, are put together.

Shapes: T tokens, V vocabulary.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

LOWEST_LOGIT = -1e20
"""Stands for a logit of -inf: differences of it stay finite, and exp of them is 0."""


@dataclass(frozen=True)
class VocabShard:
    """Which rows of the whole head this rank's weight holds."""

    start: int
    """Token id of the first row."""
    vocab_size: int
    """Rows on all ranks."""
    max_rows: int
    """Most rows on one rank: what chunk sizes follow from, so that every rank takes part in as many collectives."""
    group: dist.ProcessGroup | None

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing to reduce over."""
        return self.group is None

    def local_ids(self, token_ids: Tensor) -> Tensor:
        """Token ids -> rows of this rank's weight; outside of [0, rows) where another rank holds them."""
        return token_ids - self.start

    def check_ids(self, token_ids: Tensor | None, name: str) -> None:
        """ValueError on an id outside the vocabulary. On a CPU only: on a GPU it would wait for the device."""
        if token_ids is None or token_ids.is_cuda or token_ids.numel() == 0:
            return
        low, high = int(token_ids.min()), int(token_ids.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(f"{name} must be in [0, {self.vocab_size}), got {low if low < 0 else high}.")

    def mark_unknown(self, logprobs: Tensor, token_ids: Tensor) -> Tensor:
        """NaN for ids outside the vocabulary, which check_ids does not look for on a GPU."""
        return logprobs.masked_fill((token_ids < 0) | (token_ids >= self.vocab_size), torch.nan)

    def sum_(self, values: Tensor) -> Tensor:
        """Add up `values` over the ranks, in place."""
        if self.group is not None:
            dist.all_reduce(values, dist.ReduceOp.SUM, group=self.group)
        return values


def vocab_shard(weight: Tensor, process_group: dist.ProcessGroup | None) -> VocabShard:
    """The shard that `weight` is, the ranks of the group holding consecutive rows in their order."""
    if process_group is None:
        if len(weight) == 0:
            raise ValueError("weight has no rows: a vocabulary needs at least one token.")
        return VocabShard(0, len(weight), len(weight), None)
    mine = torch.tensor([len(weight)], device=weight.device)
    sizes = torch.empty(dist.get_world_size(process_group), dtype=mine.dtype, device=weight.device)
    dist.all_gather_into_tensor(sizes, mine, group=process_group)
    rows = sizes.tolist()
    if min(rows) == 0:
        # On every rank alike: one that raised alone would leave the others waiting.
        raise ValueError(f"every rank must hold rows of the head, got {rows}.")
    return VocabShard(sum(rows[: dist.get_rank(process_group)]), sum(rows), max(rows), process_group)


def empty_statistics(num_rows: int, like: Tensor) -> Tensor:
    """(4, T) statistics of no logits at all, in the dtype and on the device of `like`."""
    statistics = like.new_zeros(4, num_rows)
    statistics[0] = LOWEST_LOGIT
    return statistics


def reduce_statistics(statistics: Tensor, inv_temperature: float, shard: VocabShard) -> Tensor:
    """(4, T) statistics of this rank's logits -> those of the whole rows: one maximum and one sum over the ranks."""
    if shard.group is None:
        return statistics
    largest, total, weighted, target = statistics.unbind()
    largest_of_all = largest.clone()
    dist.all_reduce(largest_of_all, dist.ReduceOp.MAX, group=shard.group)
    shift = (largest - largest_of_all) * inv_temperature
    factor = shift.exp()
    sums = torch.stack([factor * total, factor * (weighted + total * shift), target])
    return torch.cat([largest_of_all[None], shard.sum_(sums)])


def logprobs_and_entropy(statistics: Tensor, inv_temperature: float) -> tuple[Tensor, Tensor]:
    """(4, T) statistics of whole rows -> log-prob of the target and entropy, each (T,), nats."""
    largest, total, weighted, target = statistics.unbind()
    log_total = total.log()
    logprobs = (target - largest) * inv_temperature - log_total
    # A forbidden target
    logprobs = logprobs.masked_fill(target <= LOWEST_LOGIT, -torch.inf)
    # Nothing is possible: there is no distribution.
    is_empty = largest <= LOWEST_LOGIT
    return logprobs.masked_fill(is_empty, torch.nan), (log_total - weighted / total).masked_fill(is_empty, torch.nan)
