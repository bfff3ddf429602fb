"""What a model is worth on held-out photographs: answers, metrics with intervals, and a report.

torchrun --standalone --nproc-per-node 8 -m geogrpo.evaluate --model runs/demo/model -o runs/demo/evaluation
python -m geogrpo.evaluate --server http://localhost:8000/v1 -o out --data.name jsonl --data.test_path test.jsonl
python -m geogrpo.evaluate --predictions theirs.csv -o out --data.name jsonl --data.test_path test.jsonl

The data and how the model is asked are the run's own when the model lies in a run's folder, else --recipe's; every key
of geogrpo/config.py can be given as --section.key value. The output folder gets predictions.jsonl, metrics.json and
tables. A run that was stopped goes on when the same command is given again.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from geogrpo.chat_server import ServerOptions
from geogrpo.config import RunConfig
from geogrpo.config_files import config_to_dict, load_config
from geogrpo.data import load_held_out
from geogrpo.data.blue_marble import world_picture
from geogrpo.distributed import all_gather_list, init_distributed, is_main, leave_together, shard_policy, world_size
from geogrpo.evaluation import HeldOutPrediction, answer_in_batches, read_held_out
from geogrpo.evaluation.foreign import match_predictions, read_foreign
from geogrpo.evaluation.policy import Answered
from geogrpo.evaluation.scores import TRACKS, headline, metrics_to_json, score_tracks
from geogrpo.evaluation.server import answer_by_server
from geogrpo.metrics import Metrics, Protocol
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.prompts import PROMPTS
from geogrpo.regions.index import default_index
from geogrpo.report.evaluated import write_evaluation
from geogrpo.resumable import ResumableFiles
from geogrpo.rollout import make_engine
from geogrpo.types import Example

MAX_LISTED = 10
"""Images named in a message."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. A mistake in the options or the data ends with one line and exit code 2."""
    options, overrides = _parser().parse_known_args(arguments)
    try:
        # Only here is a ValueError the user's; a server that does not answer is one of them.
        try:
            evaluate(_evaluation(options, overrides))
        except ValueError as error:
            print(f"geogrpo.evaluate: error: {error}", file=sys.stderr)
            sys.exit(2)
    finally:
        leave_together()


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, on what, and how."""

    config: RunConfig
    output: Path
    server: ServerOptions | None = None
    predictions: Path | None = None
    protocol: Protocol = field(default_factory=Protocol)
    allow_missing: bool = False
    overwrite: bool = False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="geogrpo.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--model", type=Path, help="a model's folder, such as runs/demo/model")
    whose.add_argument("--server", metavar="URL", help="an OpenAI-compatible server, such as http://localhost:8000/v1")
    whose.add_argument("--predictions", type=Path, help="answers of others: .csv, .tsv or .jsonl (also .gz)")
    parser.add_argument("--server-model", metavar="NAME", help="the model on the server (default: the one it serves)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--recipe", help="a recipe or a YAML file (default: the run's own, or package defaults)")
    parser.add_argument(
        "--comparator", choices=("<=", "<"), default="<=", help="within 25 km: at most, or less than (default: <=)"
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on without images that cannot be read; ids without a prediction count as misses",
    )
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    return parser


def _evaluation(options: argparse.Namespace, overrides: Sequence[str]) -> Evaluation:
    own_recipe = None if options.model is None else options.model.resolve().parent / "config.yaml"
    recipe = options.recipe or (str(own_recipe) if own_recipe is not None and own_recipe.is_file() else None)
    config = load_config(recipe, overrides)
    if config.answer.prompt not in PROMPTS:
        raise ValueError(f"answer.prompt {config.answer.prompt!r} is unknown. Known: {', '.join(PROMPTS)}.")
    if options.server_model and not options.server:
        raise ValueError("--server-model names a model on a server: give --server.")
    if options.model is not None:
        config = replace(config, model=replace(config.model, path=str(options.model)))
    server = None
    if options.server is not None:
        if not options.server.startswith(("http://", "https://")):
            raise ValueError(f"--server must be an http:// or https:// address, got {options.server!r}.")
        server = ServerOptions(options.server, model=options.server_model, model_option="--server-model")
    return Evaluation(
        config,
        options.output,
        server=server,
        predictions=options.predictions,
        protocol=Protocol(comparator=options.comparator),
        allow_missing=options.allow_missing,
        overwrite=options.overwrite,
    )


def evaluate(evaluation: Evaluation) -> None:
    """Answer what is not answered yet, score, and write the results. Every rank must call this.

    Raises:
        ValueError: naming the option, file, row or example at fault.
    """
    device = init_distributed()
    config = evaluation.config
    examples = load_held_out(config.data, config.seed)
    if evaluation.server is not None and world_size() > 1:
        raise ValueError("--server is asked by one process: start geogrpo.evaluate without torchrun.")
    console = Console(quiet=not is_main())
    if is_main():
        evaluation.output.mkdir(parents=True, exist_ok=True)
    if evaluation.predictions is not None:
        predictions = _matched(evaluation, examples, console)
    else:
        predictions = _answered(evaluation, examples, device, console)
    if is_main():
        _score(evaluation, predictions, {example.id: example for example in examples}, console)


def _matched(evaluation: Evaluation, examples: Sequence[Example], console: Console) -> list[HeldOutPrediction]:
    assert evaluation.predictions is not None
    truths = ((example.id, example.latlon_deg) for example in examples)
    matched, missing, unknown = match_predictions(read_foreign(evaluation.predictions), truths)
    if missing and not evaluation.allow_missing:
        raise ValueError(
            f"{evaluation.predictions}: {len(missing):,} of {len(matched):,} images have no prediction, such as"
            f" {', '.join(map(repr, missing[:MAX_LISTED]))}. --allow-missing counts them as misses."
        )
    if len(missing) == len(matched):
        raise ValueError(f"{evaluation.predictions}: no id is one of the data's, such as {matched[0].id!r}.")
    for what, ids in (("images without a prediction count as misses", missing), ("ids are not in the data", unknown)):
        if ids:
            console.print(f"{len(ids):,} {what}, such as {ids[0]!r}", style="yellow", highlight=False)
    return matched


def _answered(
    evaluation: Evaluation, examples: Sequence[Example], device: torch.device, console: Console
) -> list[HeldOutPrediction]:
    """The predictions of all examples, those of earlier runs included; on the main rank."""
    path = evaluation.output / "predictions.jsonl"
    # First, as a model that cannot be loaded must leave no files
    answer_from = _answerer(evaluation, examples, device)
    files = _files(evaluation, path) if is_main() else None
    try:
        start = all_gather_list([files.record.num_rows if files else 0])[0]
        if start:
            console.print(f"An earlier run had answered {start:,} of {len(examples):,} images.", highlight=False)
        done = start
        with console.status("Answering") as status:
            for answers, skipped in answer_from(start=start):
                done += len(answers) + len(skipped)
                if files is not None:
                    _append(files, answers, skipped, evaluation.allow_missing)
                status.update(f"Answered {done:,} of {len(examples):,} images")
        return read_held_out(path) if files else []
    finally:
        if files is not None:
            files.close()


def _files(evaluation: Evaluation, path: Path) -> ResumableFiles:
    config = evaluation.config
    server = None if evaluation.server is None else [evaluation.server.url, evaluation.server.model]
    options = {
        "model": config.model.path,
        "server": server,
        "data": config_to_dict(config)["data"],
        "answer.prompt": config.answer.prompt,
        "model.pixels": [config.model.min_pixels, config.model.max_pixels],
        "samples": [config.evaluation.num_samples, config.evaluation.temperature],
        "max_new_tokens": config.grpo.sampling.max_new_tokens,
        "seed": config.seed,
        "--allow-missing": evaluation.allow_missing,
    }
    return ResumableFiles(path, path.with_name("unreadable.jsonl"), options, overwrite=evaluation.overwrite)


def _append(files: ResumableFiles, answers: list[HeldOutPrediction], skipped: list[str], allow_missing: bool) -> None:
    if skipped and not allow_missing:
        raise ValueError(f"{skipped[0]} --allow-missing goes on without such images.")
    files.append(
        [json.dumps(answer.to_json(), ensure_ascii=False) + "\n" for answer in answers],
        [json.dumps({"problem": message}, ensure_ascii=False) + "\n" for message in skipped],
    )
    files.record.num_rows += len(answers) + len(skipped)
    files.record.num_written += len(answers)
    if skipped:
        files.record.skipped["unreadable"] = files.record.skipped.get("unreadable", 0) + len(skipped)
    files.commit()


def _answerer(
    evaluation: Evaluation, examples: Sequence[Example], device: torch.device
) -> Callable[..., Iterator[Answered]]:
    """What answers the examples from a position on."""
    config = evaluation.config
    sampling: dict[str, Any] = {"max_new_tokens": config.grpo.sampling.max_new_tokens, "seed": config.seed}
    if evaluation.server is not None:
        question = PROMPTS[config.answer.prompt]
        return partial(answer_by_server, evaluation.server, question, examples, config.evaluation, **sampling)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    processor = load_processor(config.model, config.answer.prompt)
    policy = load_policy(config.model, processor.tokenizer)
    policy = shard_policy(policy, device, getattr(torch, config.model.dtype))
    engine = make_engine(config.grpo.sampling.engine, processor)
    return partial(answer_in_batches, policy, processor, engine, examples, config.evaluation, **sampling)


def _score(
    evaluation: Evaluation,
    predictions: Sequence[HeldOutPrediction],
    examples: Mapping[str, Example],
    console: Console,
) -> None:
    if not predictions:
        raise ValueError("no image could be read, so there is nothing to score.")
    with console.status("Computing metrics"):
        scored = score_tracks(
            predictions,
            index=default_index(),
            protocol=evaluation.protocol,
            num_samples=evaluation.config.evaluation.bootstrap_samples,
        )
    results = {
        "num_images": len(predictions),
        "protocol": asdict(evaluation.protocol),
        "tracks": {track: metrics_to_json(metrics) for track, metrics in scored.items()},
        "config": config_to_dict(evaluation.config),
    }
    path = evaluation.output / "metrics.json"
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    console.print(closing_table(scored, evaluation.protocol))
    with console.status("Writing the report"):
        write_evaluation(
            evaluation.output,
            predictions=predictions,
            examples=examples,
            scored=scored,
            config=evaluation.config,
            index=default_index(),
            world=world_picture(),
        )
    console.print(f"Results: {evaluation.output}, the report is {evaluation.output / 'report.html'}", highlight=False)


def closing_table(scored: dict[str, Metrics], protocol: Protocol) -> Table:
    """Metrics as rows, tracks as columns, each value with its interval."""
    titles = {**TRACKS, "samples": "every sample"}
    num_images = next(iter(scored.values())).num_images
    table = Table(title=f"{num_images:,} images (95 % interval; within: {protocol.comparator})")
    table.add_column("")
    for track in scored:
        table.add_column(titles[track], justify="right")
    columns = {track: headline(metrics) for track, metrics in scored.items()}
    for name in next(iter(columns.values())):
        cells = [_cell(name, column[name]) if name in column else "-" for column in columns.values()]
        table.add_row(name.replace("_", " "), *cells)
    return table


def _cell(name: str, estimate: Any) -> str:
    form = "{:,.0f}" if (name.endswith("_km") and not name.startswith("within")) or name == "geoscore" else "{:.1%}"
    value = form.format(estimate.value)
    if math.isnan(estimate.low):
        return value
    return f"{value}  ({form.format(estimate.low)} to {form.format(estimate.high)})"


if __name__ == "__main__":
    main()
