"""A look at everything a run needs but its policy."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geogrpo.config import RunConfig
from geogrpo.distributed import all_gather_list, shard_slice
from geogrpo.plan import DataSize
from geogrpo.policy.load import load_processor
from geogrpo.policy.processing import Processor
from geogrpo.run.setup import barrier, configure_model, example_counts, validate
from geogrpo.types import Example


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
        model_config = configure_model(config, folder / "initial_model", splits.train, resume=False)
        processor = load_processor(model_config, config.answer.prompt)
        prompt = processor.encode_prompt(splits.train[0])
        # Every rank must have loaded before the folder goes.
        barrier()
    problems = all_gather_list(_first_problem(files[shard_slice(len(files))], processor))
    if problems:
        raise ValueError(problems[0])
    num_tokens = len(prompt.token_ids)
    num_image_tokens = int((prompt.token_ids == processor.image_token_id).sum())
    return DryRun(
        f"{example_counts(splits)}, {len(files):,} image files read; the first prompt has {num_tokens} tokens.",
        DataSize(len(splits.train), len(splits.grpo_train), num_image_tokens, num_tokens - num_image_tokens),
    )


def _first_problem(examples: Sequence[Example], processor: Processor) -> list[str]:
    """The message of the first example that cannot be encoded, or nothing."""
    for example in examples:
        try:
            processor.encode_prompt(example)
        except ValueError as error:
            return [str(error)]
    return []


def _with_files(examples: Sequence[Example]) -> list[Example]:
    # A dataset that makes its pictures may hold a hundred thousand and no file.
    if len(examples) and not isinstance(examples[0].image, str | Path):
        return []
    return [example for example in examples if isinstance(example.image, str | Path)]
