"""The options that `predict` and `serve` share: who is asked, and how."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import transformers

from geogrpo.chat_server import ServerOptions
from geogrpo.config import LoraConfig, RunConfig
from geogrpo.config_files import load_config
from geogrpo.images import limit_image_pixels
from geogrpo.prediction.answering import Sampling
from geogrpo.prediction.predictor import Predictor
from geogrpo.prediction.record import GRANULARITIES
from geogrpo.prompts import PROMPTS


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add them; predictor_of reads them."""
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", metavar="FOLDER", type=Path, help="a model's folder, such as runs/demo/model")
    who.add_argument("--server", metavar="URL", help="an OpenAI-compatible server, such as http://localhost:8000/v1")
    parser.add_argument("--server-model", metavar="NAME", help="the model on the server (default: the one it serves)")
    parser.add_argument(
        "--recipe",
        help="a recipe or a YAML file to take defaults from (default: the model's run, if it lies in one)",
    )
    parser.add_argument("--prompt", help=f"{', '.join(PROMPTS)} (default: the run's, else chain_of_region)")
    parser.add_argument(
        "--samples",
        metavar="K",
        type=int,
        default=8,
        help="answers sampled besides the greedy one, for radii and alternatives; 0: none (default: 8)",
    )
    parser.add_argument("--temperature", metavar="T", type=float, help="of the samples (default: the run's, else 1)")
    parser.add_argument("--max-new-tokens", metavar="N", type=int, help="longest answer (default: the run's, else 512)")
    parser.add_argument("--seed", metavar="N", type=int, help="of the samples (default: the run's, else 0)")
    parser.add_argument(
        "--granularity",
        choices=GRANULARITIES,
        help="reveal names of regions down to this level, and no point, distance, reasoning or sample; the names are"
        " the region index's for the answer's point (default: reveal everything)",
    )


def predictor_of(options: argparse.Namespace) -> Predictor:
    """The predictor that the options describe; also sets the pixel limit for pictures.

    Raises:
        ValueError: naming the option at fault, the folder without a model, or the server that does not answer.
    """
    own_recipe = None if options.model is None else options.model.resolve().parent / "config.yaml"
    recipe = options.recipe or (str(own_recipe) if own_recipe is not None and own_recipe.is_file() else None)
    config = load_config(recipe)
    prompt = options.prompt or config.answer.prompt
    if prompt not in PROMPTS:
        raise ValueError(f"--prompt {prompt!r} is unknown. Known: {', '.join(PROMPTS)}.")
    if options.server_model and not options.server:
        raise ValueError("--server-model names a model on a server: give --server.")
    sampling = _sampling(options, None if recipe is None else config)
    limit_image_pixels(config.data.max_image_pixels)
    if options.server is not None:
        if not options.server.startswith(("http://", "https://")):
            raise ValueError(f"--server must be an http:// or https:// address, got {options.server!r}.")
        if options.granularity is not None:
            # Its warnings quote answers that are of no use, and those hold places too.
            logging.getLogger("geogrpo.chat_server").setLevel(logging.ERROR)
        server = ServerOptions(options.server, model=options.server_model, model_option="--server-model")
        return Predictor.from_server(server, prompt, sampling)
    if not options.model.is_dir():
        raise ValueError(f"--model {options.model}: no such folder.")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    # Nothing is trained: no new adapter, whose own is merged into the model's weights, and no minute of compiling for a
    # prompt. And a frozen vision tower would keep what it sees, on disk if the run did.
    path = str(options.model.resolve())
    model = replace(config.model, path=path, lora=LoraConfig(), compile=False, freeze_vision=False, freeze_aligner=None)
    return Predictor.from_model(replace(config, model=model, answer=replace(config.answer, prompt=prompt)), sampling)


def _sampling(options: argparse.Namespace, config: RunConfig | None) -> Sampling:
    """What was given, else what the run used, else the defaults."""
    given = {name: getattr(options, name) for name in ("temperature", "max_new_tokens", "seed")}
    of_run = (
        {}
        if config is None
        else {
            "temperature": config.evaluation.temperature,
            "max_new_tokens": config.grpo.sampling.max_new_tokens,
            "seed": config.seed,
        }
    )
    chosen = of_run | {name: value for name, value in given.items() if value is not None}
    return Sampling(num_samples=options.samples, **chosen)
