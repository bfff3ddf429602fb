"""The first half of a step: completions of the step's prompts, and what they earn.

Shapes: P prompts, G group.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from geogrpo_kernels import has_signal
from torch import Tensor

from geogrpo.clock import Clock
from geogrpo.config import GRPOConfig
from geogrpo.data.draws import Draw
from geogrpo.data.loader import Batch, encode_all
from geogrpo.distributed import all_gather_list, rank
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rewards import Reward, Scores, score
from geogrpo.rollout import Engine
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example, Rollouts


@dataclass
class Sampled:
    """What this rank sampled in a step."""

    rollouts: Rollouts
    scores: Scores
    skipped: list[str] = field(default_factory=list)
    """One message per fresh prompt whose image could not be read."""
    num_replaced: int = 0
    """Groups that had no signal and were replaced."""
    num_rounds: int = 0
    """Rounds of fresh prompts, on all ranks."""


def signal_of(scores: Scores, aggregation: str) -> Tensor:
    """(P,) bool: whether the completions of a group earned differently, in the sum or, for normalize_then_sum, in any
    reward. Exact.
    """
    if aggregation == "normalize_then_sum" and len(scores.terms):
        return torch.stack([has_signal(term) for term in scores.terms]).any(0)
    return has_signal(scores.total)


class StepSampler:
    """Samples and scores the groups of a step.

    Args:
        engine, policy, processor: sample and encode.
        examples, draw: where fresh prompts come from.
        rewards: from find_rewards.
        seed: of the run.
        clock: counts prefill, decode, reward, and data where prompts are fresh.
    """

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        processor: Processor,
        *,
        examples: Sequence[Example],
        draw: Draw,
        config: GRPOConfig,
        rewards: Mapping[str, Reward],
        seed: int,
        clock: Clock,
    ) -> None:
        self._engine, self._policy, self._processor = engine, policy, processor
        self._examples, self._draw, self._config, self._rewards = examples, draw, config, rewards
        self._seed, self._clock = seed, clock

    def sample(self, step: int, batch: Batch) -> Sampled:
        """The groups of a 0-based step: of the batch's prompts, or of fresh ones in place of groups without signal.

        A group without signal is replaced at most max_resampling_rounds times; the last one then stays, with advantage
        0. Every rank replaces its own groups and takes part in every round until no rank needs one.
        """
        sampled = Sampled(*self._round(step, batch))
        for number in range(1, self._config.max_resampling_rounds + 1):
            without = (~signal_of(sampled.scores, self._config.rewards.aggregation)).nonzero().flatten().tolist()
            per_rank = all_gather_list([len(without)])
            if not sum(per_rank):
                break
            fresh = self._fresh_batch(step, number, sum(per_rank[: rank()]), len(without), sum(per_rank))
            rollouts, scores = self._round(step, fresh)
            self._replace(sampled, without[: len(rollouts.prompts)], rollouts, scores)
            sampled.skipped += fresh.skipped
            sampled.num_rounds = number
        return sampled

    def _fresh_batch(self, step: int, number: int, first: int, count: int, count_of_all: int) -> Batch:
        """This rank's prompts of a round: `count` from the `first` of those that all ranks ask for."""
        per_step = self._config.prompts_per_step
        indices = self._draw.extra_indices(count_of_all, self._seed, step, number, per_step=per_step)[first:][:count]
        # No two samples of a step share a position, and so a seed.
        positions = range(number * per_step + first, number * per_step + first + len(indices))
        with self._clock.phase("data"):
            return encode_all(self._examples, indices, self._processor.encode_prompt, positions)

    def _round(self, step: int, batch: Batch) -> tuple[Rollouts, Scores]:
        rollouts = self._sample(step, batch)
        with self._clock.phase("reward"):
            return rollouts, score(rollouts, self._rewards, self._config.rewards)

    def _replace(self, sampled: Sampled, slots: list[int], rollouts: Rollouts, scores: Scores) -> None:
        if not slots:
            return
        order = list(range(len(sampled.rollouts.prompts)))
        for new, slot in enumerate(slots, len(order)):
            order[slot] = new
        sampled.rollouts = (sampled.rollouts + rollouts).chosen(order)
        sampled.scores = (sampled.scores + scores).chosen(order)
        sampled.num_replaced += len(slots)

    def _sample(self, step: int, batch: Batch) -> Rollouts:
        """Sample, and let rewards that wait for a server start on each completion as soon as it is there."""
        starters = [reward.start for reward in self._rewards.values() if hasattr(reward, "start")]

        def start(prompt: int, completion: str) -> None:
            for starter in starters:
                starter(batch.prompts[prompt].example, completion)

        return self._engine.sample(
            self._policy,
            batch.prompts,
            group_size=self._config.group_size,
            temperature=self._config.sampling.temperature,
            max_new_tokens=self._config.sampling.max_new_tokens,
            seeds=[stream_seed(self._seed, Stream.SAMPLING, step, position) for position in batch.positions],
            on_finished=start if starters else None,
            clock=self._clock,
        )
