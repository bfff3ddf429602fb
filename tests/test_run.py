"""A whole run in small: its files, its model, its random streams, images that break half-way, two ranks."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image
from safetensors.torch import load_file
from small_runs import final_tensors, no_steps, torchrun, two_nodes, without_timing
from transformers import AutoModelForImageTextToText, AutoTokenizer

from geogrpo.checkpoint import latest_checkpoint
from geogrpo.config import LossConfig, ModelConfig, RunConfig
from geogrpo.config_files import save_config
from geogrpo.data.draws import step_indices
from geogrpo.evaluation import HeldOutPrediction
from geogrpo.policy.packing import Group, pack
from geogrpo.report.run_log import read_metrics
from geogrpo.run import Run
from geogrpo.seeds import Stream
from geogrpo.types import EncodedPrompt, Example

LOAD_WORKER = Path(__file__).parent / "workers" / "load_checkpoint.py"


def test_a_run_leaves_what_the_readme_promises(config: RunConfig, device: torch.device) -> None:
    run = Run(config, device, resume=False)
    run.train()
    for name in ("config.yaml", "metrics.jsonl", "completions.jsonl", "summary.json", "model/model.safetensors"):
        assert (run.folder / name).stat().st_size > 0, name
    assert list((run.folder / "tensorboard").iterdir())
    assert "Completions while training" in (run.folder / "report" / "report.html").read_text(encoding="utf-8")
    for name in ("reward_curve.png", "distance_histogram.png", "world_map_supervised.png", "world_map_grpo.png"):
        with Image.open(run.folder / "report" / name) as figure:
            assert len(figure.convert("RGB").getcolors(1 << 24)) > 50
    completions = [json.loads(line) for line in (run.folder / "completions.jsonl").read_text().splitlines()]
    assert len(completions) == 4 * 2 * 4
    assert {"multiscale", "format"} == set(completions[0]["rewards"])
    predictions = [json.loads(line) for line in (run.folder / "predictions_grpo.jsonl").read_text().splitlines()]
    assert [record["id"] for record in predictions] == [f"test-{i}.png" for i in range(4)]
    fields = {field.name for field in dataclasses.fields(HeldOutPrediction)}
    assert set(predictions[0]) == fields
    assert all(len(record["sampled_latlon_deg"]) == 2 for record in predictions)


def test_the_model_of_a_finished_run_loads_and_gives_the_policys_own_logits(
    config: RunConfig, device: torch.device, answering_folder: Path
) -> None:
    short = dataclasses.replace(
        config,
        supervised=dataclasses.replace(config.supervised, steps=2),
        grpo=dataclasses.replace(config.grpo, steps=1),
    )
    run = Run(short, device, resume=False)
    run.train()
    prompt = run.processor.encode_prompt(run.splits.test[0])
    with torch.no_grad():
        actual = run.policy.prefill(pack([Group(prompt, [])]))[0]
        exported, initial = (hub_logits(folder, prompt) for folder in (run.folder / "model", answering_folder))
    allowed = actual.isfinite()
    # All but the forbidden and never-used ones of 640
    assert allowed.sum() > 400
    # The issue's bound for the packed forward pass against transformers' own
    assert (actual - exported)[allowed].norm() <= 1e-5 * exported[allowed].norm()
    assert (actual - initial)[allowed].norm() > 1e-3 * initial[allowed].norm()


def hub_logits(folder: Path, prompt: EncodedPrompt) -> torch.Tensor:
    """(1, V) logits of the first answer token, by transformers alone, with the folder's own tokenizer."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    image_token = AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|image_pad|>")
    input_ids = prompt.token_ids[None]
    output = model(
        input_ids=input_ids,
        mm_token_type_ids=(input_ids == image_token).int(),
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        use_cache=False,
    )
    return output.logits[:, -1]


def test_each_stage_trains_on_its_own_examples(
    config: RunConfig, dataset: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (dataset / "train.jsonl").read_text().splitlines()
    (dataset / "easy.jsonl").write_text("\n".join(lines[:7]))
    (dataset / "hard.jsonl").write_text("\n".join(lines[7:]))
    data = dataclasses.replace(
        config.data, path=str(dataset / "easy.jsonl"), grpo_path=str(dataset / "hard.jsonl"), num_test=1
    )
    run = Run(dataclasses.replace(config, data=data), device, resume=False)
    encoded: list[str] = []
    original = run.processor.encode_prompt

    def encode_prompt(example: Example) -> EncodedPrompt:
        encoded.append(example.id)
        return original(example)

    monkeypatch.setattr(run.processor, "encode_prompt", encode_prompt)
    run.train()
    easy, hard = ({f"train-{i}.png" for i in numbers} for numbers in (range(7), range(7, 12)))
    completions = [json.loads(line) for line in (run.folder / "completions.jsonl").read_text().splitlines()]
    # Eight prompts of a stage that has five examples
    assert {record["id"] for record in completions} == hard
    # Stage 1 is evaluated before stage 2 begins; it encodes 16 prompts of seven examples.
    end_of_stage_1 = next(i for i, name in enumerate(encoded) if name.startswith("test-"))
    assert set(encoded[:end_of_stage_1]) - {"dummy"} == easy
    assert set(encoded[end_of_stage_1:]) & easy == set()


def test_everything_random_in_a_run_has_a_stream_of_its_own(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: set[tuple[int, ...]] = set()
    original = np.random.default_rng

    def default_rng(seed: object) -> np.random.Generator:
        if isinstance(seed, tuple):
            seeds.add(seed)
        return original(seed)

    monkeypatch.setattr(np.random, "default_rng", default_rng)
    one_step = dataclasses.replace(config.grpo, steps=1, loss=LossConfig())
    tiny = ModelConfig(tiny=TINY, dtype="float32")
    Run(dataclasses.replace(no_steps(config), model=tiny, grpo=one_step), device, resume=False).train()
    assert {len(seed) for seed in seeds} == {4}
    # The crops and the draw of held-out examples belong to data sets that this run has none of; it resamples nothing.
    assert {seed[1] for seed in seeds} == set(Stream) - {Stream.CROPS, Stream.HELD_OUT, Stream.RESAMPLING}


def test_a_second_run_does_not_touch_the_first(config: RunConfig, device: torch.device) -> None:
    quick = no_steps(config)
    first = Run(quick, device, resume=False)
    first.train()
    second = Run(quick, device, resume=False)
    assert (first.folder.name, second.folder.name) == ("small", "small-2")


def test_an_image_that_breaks_in_training_is_skipped_and_counted(
    config: RunConfig, dataset: Path, device: torch.device
) -> None:
    run = Run(config, device, resume=False)
    # Truncated after the files were checked: the header still reads.
    broken = dataset / "train-3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    run.train()
    last = read_metrics(run.folder)[-1]
    assert last["num_skipped_images"] > 0
    seen = [json.loads(line)["id"] for line in (run.folder / "completions.jsonl").read_text().splitlines()]
    assert "train-3.png" not in seen
    progress = json.loads((latest_checkpoint(run.checkpoints) / "progress.json").read_text())
    ((message, times),) = progress["skipped_images"].items()
    assert "train-3.png" in message
    assert times >= 1
    assert last["num_skipped_images"] == 1


@pytest.mark.slow
def test_a_checkpoint_loads_at_another_world_size(config: RunConfig, tiny_folder: Path, device: torch.device) -> None:
    run = Run(config, device, resume=False)
    run.train()
    output = run.folder / "loaded.pt"
    done = torchrun(2, str(LOAD_WORKER), str(tiny_folder), str(latest_checkpoint(run.checkpoints)), str(output))
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = torch.load(output, weights_only=True)
    expected = final_tensors(run.folder)
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.slow
def test_two_nodes_do_what_one_rank_does(config: RunConfig, dataset: Path, device: torch.device) -> None:
    """The whole command on two nodes of a rank each, an image of one of them broken, against one rank in this process,
    which then goes on after one of their checkpoints.
    """
    lines = (dataset / "test.jsonl").read_text().splitlines()
    (dataset / "three.jsonl").write_text("\n".join(lines[:3]))
    short = dataclasses.replace(
        config,
        supervised=dataclasses.replace(config.supervised, steps=2),
        # Three held-out images in batches of one: one rank has a batch more than the other.
        data=dataclasses.replace(config.data, test_path=str(dataset / "three.jsonl")),
        # Evaluations while training, by steps and by the main rank's clock
        evaluation=dataclasses.replace(config.evaluation, batch_size=1, every_steps=2, every_minutes=1e-9),
        grpo=dataclasses.replace(config.grpo, steps=2),
        checkpoint_every=1,
    )
    one = Run(short, device, resume=False)
    two = dataclasses.replace(short, name="two")
    save_config(two, dataset / "two.yaml")
    for name in broken_in_first_grpo_step(one):
        (dataset / name).write_bytes((dataset / name).read_bytes()[:60])
    one.train()
    two_nodes([1, 1], "-m", "geogrpo.train", "--recipe", str(dataset / "two.yaml"))
    folder = Path(two.output_dir) / "two"
    expected, actual = read_metrics(one.folder), read_metrics(folder)
    assert [record["step"] for record in actual] == [1, 2, 0, 1, 2]
    assert all("eval/geoscore" in record for record in actual[2:])
    assert expected[3]["num_skipped_images"] > 0
    for one_step, two_step in zip(expected, actual, strict=True):
        for key in without_timing(one_step).keys() - {"stage"}:
            assert two_step[key] == pytest.approx(one_step[key], rel=1e-3, abs=1e-5), key
    texts = [
        [json.loads(line)["text"] for line in (path / "completions.jsonl").read_text().splitlines()]
        for path in (one.folder, folder)
    ]
    assert texts[0] == texts[1]
    predictions = [(path / "predictions_supervised.jsonl").read_text() for path in (one.folder, folder)]
    assert predictions[0] == predictions[1]
    assert len(predictions[0].splitlines()) == 3
    trained = load_file(folder / "model" / "model.safetensors")
    shutil.rmtree(latest_checkpoint(folder / "checkpoints"))
    resumed = Run(two, device, resume=True)
    assert resumed.progress.step == 1
    resumed.train()
    for name, tensor in load_file(folder / "model" / "model.safetensors").items():
        assert (tensor - trained[name]).norm() <= 1e-4 * trained[name].norm(), name


def broken_in_first_grpo_step(run: Run) -> list[str]:
    """The image that rank 1 of 2 is given in the first GRPO step: alone, so that it has nothing to do."""
    config = run.config
    order = step_indices(len(run.splits.train), config.grpo.prompts_per_step, config.seed + 1, 0)
    return [run.splits.train[order[1]].id]


def test_a_model_left_by_a_run_that_never_started_is_made_anew(config: RunConfig, device: torch.device) -> None:
    """The folder belongs to nobody until its config.yaml exists; what lies there may be of another size."""
    small = dataclasses.replace(config, model=ModelConfig(tiny=TINY, dtype="float32"))
    first = Run(small, device, resume=False)
    (first.folder / "initial_model" / "stale").touch()
    wider = dataclasses.replace(small, model=ModelConfig(tiny=dataclasses.replace(TINY, hidden_size=128)))
    second = Run(wider, device, resume=False)
    assert second.folder == first.folder
    assert second.policy.model.config.text_config.hidden_size == 128
    assert not (second.folder / "initial_model" / "stale").exists()


def test_a_tiny_model_appears_complete_or_not_at_all(
    config: RunConfig, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(folder: Path, *arguments: object, **options: object) -> None:
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("geogrpo.run.setup.save_tiny_model", breaks)
    with pytest.raises(KeyboardInterrupt):
        Run(dataclasses.replace(config, model=ModelConfig(tiny=TINY)), device, resume=False)
    assert not (Path(config.output_dir) / config.name / "initial_model").exists()
