"""What a model is worth on held-out photographs: answers, metrics with intervals, and a report.

torchrun --standalone --nproc-per-node 8 -m geogrpo.evaluate --model runs/demo/model -o runs/demo/evaluation
python -m geogrpo.evaluate --server http://localhost:8000/v1 -o out --data.name jsonl --data.test_path test.jsonl
python -m geogrpo.evaluate --predictions theirs.csv -o out --data.name jsonl --data.test_path test.jsonl

The data and how the model is asked are the run's own when the model lies in a run's folder, else --recipe's; every key
of geogrpo/config/ can be given as --section.key value. The output folder gets predictions.jsonl, metrics.json,
report.html and tables; with two or more samples of each image uncertainty.jsonl, too. A run that was stopped goes on
when the same command is given again.
"""

import argparse
import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

from geogrpo.chat_server import ChatServer, ServerOptions
from geogrpo.config import LoraConfig, RunConfig
from geogrpo.config_files import config_to_dict, load_config
from geogrpo.data import load_held_out
from geogrpo.data.blue_marble import world_picture
from geogrpo.distributed import all_gather_list, init_distributed, is_main, leave_together, shard_policy, world_size
from geogrpo.evaluation import HeldOutPrediction, answer_in_batches, read_held_out
from geogrpo.evaluation.comparison import read_other
from geogrpo.evaluation.confidence import TARGET_ACCURACY, image_records
from geogrpo.evaluation.example_rewards import greedy_rewards
from geogrpo.evaluation.findings import Findings, Measures, Other, measure
from geogrpo.evaluation.foreign import match_predictions, read_foreign
from geogrpo.evaluation.osv import require_osv_places, with_label_columns
from geogrpo.evaluation.policy import Answered
from geogrpo.evaluation.server import answer_by_server
from geogrpo.metrics import COMPARATORS, OSV5M_PROTOCOL, Protocol
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.prompts import PROMPTS
from geogrpo.regions.index import default_index
from geogrpo.report.evaluated import MAX_EXAMPLES, write_evaluation
from geogrpo.report.finding_tables import (
    answers_table,
    comparison_tables,
    console_table,
    uncertainty_tables,
)
from geogrpo.resumable import ResumableFiles
from geogrpo.rewards import resolve_preset
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
    measures: Measures
    output: Path
    server: ServerOptions | None = None
    predictions: Path | None = None
    compare: Path | None = None
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
        "--compare", type=Path, metavar="PATH", help="another evaluation's folder, or a file as for --predictions"
    )
    parser.add_argument("--comparator", choices=COMPARATORS, help="within 25 km: at most, or less than (default: <=)")
    parser.add_argument(
        "--protocol",
        choices=("osv5m",),
        help="OSV-5M's: <, a sphere of 6371 km, rows without a label are misses; --osv",
    )
    parser.add_argument(
        "--osv",
        action=argparse.BooleanOptionalAction,
        help="OSV-5M's accuracy of countries to cities; needs reverse_geocoder (default: where data.name is osv5m)",
    )
    parser.add_argument(
        "--target-accuracy",
        type=float,
        default=TARGET_ACCURACY,
        metavar="SHARE",
        help=f"of answers backed off to a country or state where samples disagree (default: {TARGET_ACCURACY})",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="go on without images that are missing or cannot be read; ids without a prediction count as misses",
    )
    parser.add_argument("--overwrite", action="store_true", help="start over instead of going on")
    return parser


def _evaluation(options: argparse.Namespace, overrides: Sequence[str]) -> Evaluation:
    own_recipe = None if options.model is None else options.model.resolve().parent / "config.yaml"
    recipe = options.recipe or (str(own_recipe) if own_recipe is not None and own_recipe.is_file() else None)
    config = load_config(recipe, overrides)
    _check(options, config)
    if options.model is not None:
        config = replace(config, model=replace(config.model, path=str(options.model)))
    data = with_label_columns(config.data) if config.data.name == "osv5m" else config.data
    if recipe is None and not any(word.partition("=")[0] == "--data.num_test" for word in overrides):
        # The default is for evaluation while training: a benchmark is scored whole.
        data = replace(data, num_test=0)
    if options.predictions is not None:
        # Nobody looks at them but the reader of the report.
        data = replace(data, needs_images=False)
    config = replace(config, data=replace(data, allow_missing=data.allow_missing or options.allow_missing))
    server = None
    if options.server is not None:
        server = ServerOptions(options.server, model=options.server_model, model_option="--server-model")
    return Evaluation(
        config,
        _measures(options, config),
        options.output,
        server=server,
        predictions=options.predictions,
        compare=options.compare,
        overwrite=options.overwrite,
    )


def _check(options: argparse.Namespace, config: RunConfig) -> None:
    """Raise ValueError, naming the option, on what cannot be meant."""
    if config.answer.prompt not in PROMPTS:
        raise ValueError(f"answer.prompt {config.answer.prompt!r} is unknown. Known: {', '.join(PROMPTS)}.")
    resolve_preset(config.grpo.rewards)
    if options.server_model and not options.server:
        raise ValueError("--server-model names a model on a server: give --server.")
    if options.protocol and options.comparator:
        raise ValueError("--protocol osv5m has a comparator of its own: leave --comparator out.")
    if not 0 <= options.target_accuracy <= 1:
        raise ValueError(f"--target-accuracy must be from 0 to 1, got {options.target_accuracy}.")
    if options.server is not None and not options.server.startswith(("http://", "https://")):
        raise ValueError(f"--server must be an http:// or https:// address, got {options.server!r}.")


def _measures(options: argparse.Namespace, config: RunConfig) -> Measures:
    use_osv = options.osv
    if use_osv is None:
        use_osv = config.data.name == "osv5m" or options.protocol == "osv5m"
    return Measures(
        protocol=OSV5M_PROTOCOL if options.protocol else Protocol(comparator=options.comparator or "<="),
        bootstrap_samples=config.evaluation.bootstrap_samples,
        seed=config.seed,
        use_osv=use_osv,
        target_accuracy=options.target_accuracy,
        allow_missing=options.allow_missing,
    )


def evaluate(evaluation: Evaluation) -> None:
    """Answer what is not answered yet, score, and write the results. Every rank must call this.

    Raises:
        ValueError: naming the option, file, row or example at fault.
    """
    device = init_distributed()
    config = evaluation.config
    # What may be missing or wrong first: answers take long
    if evaluation.measures.use_osv:
        require_osv_places()
    other = None if evaluation.compare is None else Other(str(evaluation.compare), read_other(evaluation.compare))
    examples = load_held_out(config.data, config.seed)
    if evaluation.server is not None:
        if world_size() > 1:
            raise ValueError("--server is asked by one process: start geogrpo.evaluate without torchrun.")
        name = asyncio.run(ChatServer(evaluation.server).model_name())
        evaluation = replace(evaluation, server=replace(evaluation.server, model=name))
    console = Console(quiet=not is_main())
    if is_main():
        evaluation.output.mkdir(parents=True, exist_ok=True)
    unanswered: set[str] = set()
    if evaluation.predictions is not None:
        predictions, unanswered = _matched(evaluation, examples, console)
    else:
        predictions = _answered(evaluation, examples, device, console)
    if is_main():
        if not predictions:
            raise ValueError("no image could be read, so there is nothing to score.")
        by_id = {example.id: example for example in examples}
        with console.status("Computing metrics"):
            findings = measure(
                predictions,
                by_id,
                evaluation.measures,
                default_index(),
                other=other,
                unanswered=unanswered,
                num_unreadable=len(by_id) - len(predictions),
                are_foreign=evaluation.predictions is not None,
            )
        _write(evaluation, predictions, by_id, findings, console)


def _matched(
    evaluation: Evaluation, examples: Sequence[Example], console: Console
) -> tuple[list[HeldOutPrediction], set[str]]:
    """The predictions of all examples, and the ids of those that had none."""
    assert evaluation.predictions is not None
    truths = ((example.id, example.latlon_deg) for example in examples)
    matched, missing, unknown = match_predictions(read_foreign(evaluation.predictions), truths)
    if missing and not evaluation.measures.allow_missing:
        raise ValueError(
            f"{evaluation.predictions}: {len(missing):,} of {len(matched):,} images have no prediction, such as"
            f" {', '.join(map(repr, missing[:MAX_LISTED]))}. --allow-missing counts them as misses."
        )
    if len(missing) == len(matched):
        raise ValueError(f"{evaluation.predictions}: no id is one of the data's, such as {matched[0].id!r}.")
    for what, ids in (("images without a prediction count as misses", missing), ("ids are not in the data", unknown)):
        if ids:
            console.print(f"{len(ids):,} {what}, such as {ids[0]!r}", style="yellow", highlight=False)
    return matched, set(missing)


def _answered(
    evaluation: Evaluation, examples: Sequence[Example], device: torch.device, console: Console
) -> list[HeldOutPrediction]:
    """The predictions of all examples, those of earlier runs included; on the main rank."""
    path = evaluation.output / "predictions.jsonl"
    # First, as a model that cannot be loaded must leave no files
    answer_from = _answerer(evaluation, examples, device)
    files = _files(evaluation, path, examples) if is_main() else None
    try:
        start = all_gather_list([files.record.num_rows if files else 0])[0]
        if start:
            console.print(f"An earlier run had answered {start:,} of {len(examples):,} images.", highlight=False)
        done = start
        with console.status("Answering") as status:
            for answers, skipped in answer_from(start=start):
                done += len(answers) + len(skipped)
                if files is not None:
                    _append(files, answers, skipped, evaluation.measures.allow_missing)
                status.update(f"Answered {done:,} of {len(examples):,} images")
        if files is not None and files.record.num_skipped:
            unreadable = f"{files.record.num_skipped:,} images could not be read and are left out"
            console.print(f"{unreadable}; {path.with_name('unreadable.jsonl')} lists them", style="yellow")
        return read_held_out(path) if files else []
    finally:
        if files is not None:
            files.close()


def _files(evaluation: Evaluation, path: Path, examples: Sequence[Example]) -> ResumableFiles:
    config = evaluation.config
    options = {
        "model": config.model.path,
        "weights": _weights(config.model.path) if evaluation.server is None else None,
        "server": None if evaluation.server is None else [evaluation.server.url, evaluation.server.model],
        "data": config_to_dict(config)["data"],
        "examples": _digest(examples),
        "answer.prompt": config.answer.prompt,
        "model.pixels": [config.model.min_pixels, config.model.max_pixels],
        "samples": [config.evaluation.num_samples, config.evaluation.temperature],
        "max_new_tokens": config.grpo.sampling.max_new_tokens,
        "seed": config.seed,
        "--allow-missing": evaluation.measures.allow_missing,
    }
    return ResumableFiles(path, path.with_name("unreadable.jsonl"), options, overwrite=evaluation.overwrite)


def _weights(model: str | None) -> list[list[Any]]:
    """Name, bytes and time of each file of weights: another checkpoint in the same folder is another model."""
    files = sorted(Path(model).expanduser().glob("*.safetensors")) if model else []
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def _digest(examples: Sequence[Example]) -> str:
    """Of ids and places in their order: answers are gone on with by position."""
    digest = hashlib.blake2b(digest_size=16)
    for example in examples:
        digest.update(json.dumps([example.id, *example.latlon_deg]).encode())
    return digest.hexdigest()


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
    # An exported model has its adapter merged, and one that nothing has trained changes nothing.
    policy = load_policy(replace(config.model, lora=LoraConfig()), processor.tokenizer)
    policy = shard_policy(policy, device, getattr(torch, config.model.dtype), config.parallel)
    engine = make_engine(config.grpo.sampling.engine, processor)
    return partial(answer_in_batches, policy, processor, engine, examples, config.evaluation, **sampling)


def _write(
    evaluation: Evaluation,
    predictions: Sequence[HeldOutPrediction],
    examples: Mapping[str, Example],
    findings: Findings,
    console: Console,
) -> None:
    """The files of the results, and what is printed."""
    output, config = evaluation.output, evaluation.config
    run_config = _run_config(evaluation)
    results = {**findings.to_json(), "protocol": asdict(evaluation.measures.protocol), "config": run_config}
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False)
    (output / "metrics.json").write_text(text + "\n", encoding="utf-8")
    # That of an earlier evaluation with samples must not stay.
    (output / "uncertainty.jsonl").unlink(missing_ok=True)
    if findings.uncertainty:
        with (output / "uncertainty.jsonl").open("w", encoding="utf-8") as file:
            for record in image_records(findings.uncertainty, predictions, default_index()):
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    _print(findings, evaluation.measures.protocol, console)
    with console.status("Writing the report"):
        rewards, notes = greedy_rewards(
            predictions[:MAX_EXAMPLES], examples, config.grpo.rewards, PROMPTS[config.answer.prompt]
        )
        write_evaluation(
            output,
            predictions=predictions,
            examples=examples,
            scored=findings.scored,
            config=run_config,
            index=default_index(),
            world=world_picture(),
            comparator=evaluation.measures.protocol.comparator,
            floors=findings.floors,
            uncertainty=findings.uncertainty,
            comparison=findings.comparison,
            rewards=rewards,
        )
    for note in notes:
        console.print(note, style="yellow", highlight=False, markup=False)
    console.print(f"Results: {output}, the report is {output / 'report.html'}", highlight=False)


def _run_config(evaluation: Evaluation) -> dict[str, Any]:
    """The configuration as far as it had a part, and first whose answers these are."""
    config, source = config_to_dict(evaluation.config), {"model": evaluation.config.model.path}
    if evaluation.server is not None:
        source = {"server": evaluation.server.url, "model": evaluation.server.model}
    elif evaluation.predictions is not None:
        source = {"predictions": str(evaluation.predictions)}
    if "predictions" in source or "server" in source:
        # A default of ours would read as the model that answered.
        del config["model"]
    return {"answers_from": source, "geogrpo": version("geogrpo"), **config}


def _print(findings: Findings, protocol: Protocol, console: Console) -> None:
    answers = {track: metrics.estimates for track, metrics in findings.scored.items()}
    answers |= findings.floors.estimates()
    console.print(answers_table(answers, findings.num_images, protocol.comparator))
    tables = uncertainty_tables(findings.uncertainty) if findings.uncertainty else []
    if findings.comparison:
        # Those of the other tracks are in the report.
        tables.append(comparison_tables(findings.comparison, protocol.comparator)[0])
    for table in tables:
        console.print(console_table(table))


if __name__ == "__main__":
    main()
