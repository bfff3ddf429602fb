"""Answers of a policy on all ranks: greedy and sampled."""

from collections.abc import Iterator, Sequence
from typing import Any

from geogrpo.config import EvaluationConfig
from geogrpo.data.loader import encode_all
from geogrpo.distributed import all_gather_list, shard_slice, world_size
from geogrpo.evaluation.answers import HeldOutPrediction, held_out_prediction
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.rollout import Engine
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example

Answered = tuple[list[HeldOutPrediction], list[str]]
"""Answers for readable images, in order, and a message for each unreadable one."""


def predict_held_out(
    policy: Policy,
    processor: Processor,
    engine: Engine,
    examples: Sequence[Example],
    config: EvaluationConfig,
    *,
    max_new_tokens: int,
    seed: int,
) -> Answered:
    """Answers for every readable image, in order, and a message for each unreadable one; the same on every rank."""
    predictions: list[HeldOutPrediction] = []
    skipped: list[str] = []
    for answered, unreadable in answer_in_batches(
        policy, processor, engine, examples, config, max_new_tokens=max_new_tokens, seed=seed
    ):
        predictions += answered
        skipped += unreadable
    return predictions, skipped


def answer_in_batches(
    policy: Policy,
    processor: Processor,
    engine: Engine,
    examples: Sequence[Example],
    config: EvaluationConfig,
    *,
    max_new_tokens: int,
    seed: int,
    start: int = 0,
) -> Iterator[Answered]:
    """The same in batches of config.batch_size images per rank, as they are done. Every rank must take all of them.

    A completion depends on the seed and on its example's position alone: not on batches, ranks or `start`.

    Args:
        start: position of the first example to answer.
    """
    per_batch = config.batch_size * world_size()
    for begin in range(start, len(examples), per_batch):
        of_batch = range(begin, min(begin + per_batch, len(examples)))
        positions = of_batch[shard_slice(len(of_batch))]
        batch = encode_all(examples, positions, processor.encode_prompt, positions)
        sampling: dict[str, Any] = {
            "max_new_tokens": max_new_tokens,
            "seeds": [stream_seed(seed, Stream.EVALUATION, position) for position in batch.positions],
        }
        greedy = engine.sample(policy, batch.prompts, group_size=1, temperature=0.0, **sampling)
        sampled_texts: list[list[str]] = [[] for _ in batch.prompts]
        if config.num_samples > 0:
            sampled_texts = engine.sample(
                policy, batch.prompts, group_size=config.num_samples, temperature=config.temperature, **sampling
            ).texts
        answered = [
            held_out_prediction(prompt.example, text, others)
            for prompt, (text,), others in zip(batch.prompts, greedy.texts, sampled_texts, strict=True)
        ]
        yield all_gather_list(answered), all_gather_list(batch.skipped)
