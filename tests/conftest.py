"""Very small models, pictures of several shapes, and a run in small, shared by the tests."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Before Triton is imported: its kernels then run in its interpreter, where a test asks for them.
    os.environ.setdefault("TRITON_INTERPRET", "1")

from PIL import Image
from small_runs import supervised_metrics

from geogrpo.checkpoint import export_model
from geogrpo.config import (
    AnswerConfig,
    DataConfig,
    EvaluationConfig,
    GRPOConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    SupervisedConfig,
    TinyModelConfig,
)
from geogrpo.distributed import init_distributed, load_sharded
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group
from geogrpo.policy.processing import Processor
from geogrpo.policy.tiny import save_tiny_model
from geogrpo.types import Example

TINY = TinyModelConfig(
    vocab_size=640,
    hidden_size=64,
    num_layers=2,
    num_heads=2,
    intermediate_size=96,
    vision_hidden_size=32,
    vision_layers=2,
    vision_heads=2,
    vision_intermediate_size=48,
)
ANSWERS = (
    "Country: France\nState: Brittany\nCity: Brest\nCoordinates: (48.4, -4.5)",
    "Country: Kenya\nCity: Nairobi\nCoordinates: (-1.3, 36.8)",
    "Country: Japan\nState: Hokkaido\nCity: Biei\nCoordinates: (43.5, 142.6)",
    "no idea",
)
CITIES = (("France", 48.86, 2.35), ("Kenya", -1.29, 36.82), ("Japan", 35.68, 139.69), ("Peru", -12.05, -77.04))
# Width x height: 16, 8, 4 and 10 image tokens
PICTURE_SIZES = ((112, 112), (112, 56), (56, 56), (140, 56))


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Random pixels."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL with two layers of each kind; its weights are larger than at initialisation, so that attention
    is far from uniform and a wrong mask shows.
    """
    folder = tmp_path_factory.mktemp("tiny_model")
    save_tiny_model(folder, TINY, list(ANSWERS) * 50, [picture(0, (112, 112))], seed=0)
    policy = load_policy(model_config(folder), load_processor(model_config(folder), "short").tokenizer)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0 if "embed" not in name else 10.0)
    policy.model.save_pretrained(folder)
    return folder


def model_config(folder: Path) -> ModelConfig:
    """The model in `folder`, in float32."""
    return ModelConfig(path=str(folder), dtype="float32")


@pytest.fixture(scope="session")
def processor(tiny_folder: Path) -> Processor:
    return load_processor(model_config(tiny_folder), "short")


@pytest.fixture
def policy(tiny_folder: Path, processor: Processor) -> Policy:
    """Not sharded."""
    return load_policy(model_config(tiny_folder), processor.tokenizer)


@pytest.fixture
def examples() -> list[Example]:
    """Four places with pictures of four shapes."""
    places = ((48.4, -4.5), (-1.3, 36.8), (43.5, 142.6), (64.1, -21.9))
    return [
        Example(f"place-{i}", picture(i, size), latlon_deg, country="Somewhere")
        for i, (size, latlon_deg) in enumerate(zip(PICTURE_SIZES, places, strict=True))
    ]


@pytest.fixture
def groups(processor: Processor, examples: list[Example]) -> list[Group]:
    """Four groups of three completions of unequal lengths, one of them the end token alone."""
    eos = torch.tensor([processor.eos_token_id])
    completions = [processor.encode_answer(text) for text in ANSWERS] + [eos]
    return [
        Group(processor.encode_prompt(example), [completions[(i + j * (i + 1)) % len(completions)] for j in range(3)])
        for i, example in enumerate(examples)
    ]


@pytest.fixture(scope="session")
def answering_folder(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Path:
    """A model that answers in chains of region, most of the time: rewards differ within a group."""
    folder = tmp_path_factory.mktemp("answering_model")
    save_tiny_model(folder, TINY, list(ANSWERS) * 50, [picture(0, (112, 112))], seed=0)
    policy, processor = load_sharded(model_config(folder), "short")
    config = SupervisedConfig(steps=120, examples_per_step=8, optimizer=OptimizerConfig(lr=3e-3, warmup_steps=5))
    places = [(48.4, -4.5), (-1.3, 36.8), (-33.5, 142.6), (64.1, -21.9)] * 2
    examples = [Example(f"{i}", picture(i, (56, 56)), place, country="Kenya") for i, place in enumerate(places)]
    supervised_metrics(policy, processor, examples, config)
    export_model(folder, policy, processor)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve flat pictures in a JSONL file, train.jsonl, and four in test.jsonl."""
    for split, count in (("train", 12), ("test", 4)):
        lines = []
        for i in range(count):
            country, lat, lon = CITIES[i % 4]
            name = f"{split}-{i}.png"
            Image.new("RGB", (56, 56 if i % 2 else 84), (60 * (i % 4), 20 * i, 90)).save(tmp_path / name)
            lines.append(json.dumps({"image": name, "lat": lat, "lon": lon, "country": country}))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def config(dataset: Path, answering_folder: Path) -> RunConfig:
    """A run of four steps a stage on `dataset`, from the model in `answering_folder`."""
    return RunConfig(
        name="small",
        output_dir=str(dataset / "runs"),
        checkpoint_every=2,
        tokens_per_microbatch=200,
        model=ModelConfig(path=str(answering_folder), dtype="float32"),
        data=DataConfig(name="jsonl", path=str(dataset / "train.jsonl"), test_path=str(dataset / "test.jsonl")),
        answer=AnswerConfig(prompt="short"),
        supervised=SupervisedConfig(steps=4, examples_per_step=4, optimizer=OptimizerConfig(lr=1e-3, warmup_steps=1)),
        grpo=GRPOConfig(
            steps=4,
            prompts_per_step=2,
            group_size=4,
            advantage_scale="batch",
            sampling=SamplingConfig(max_new_tokens=24),
            loss=LossConfig(beta=0.1),
            optimizer=OptimizerConfig(lr=1e-3),
        ),
        evaluation=EvaluationConfig(num_samples=2, batch_size=3, bootstrap_samples=100),
    )


@pytest.fixture(scope="session")
def device() -> Iterator[torch.device]:
    """A process group of one rank."""
    yield init_distributed()
    torch.distributed.destroy_process_group()
