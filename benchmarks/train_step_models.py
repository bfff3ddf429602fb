"""Model folders with random weights, in the Hugging Face layout: nothing is downloaded."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, Qwen2_5_VLForConditionalGeneration

from geogrpo.config import TinyModelConfig
from geogrpo.plan.shapes import PUBLISHED
from geogrpo.policy.load import forbidden_ids
from geogrpo.policy.tiny import save_tiny_model

QWEN_3B = "Qwen/Qwen2.5-VL-3B-Instruct"
DEMO = TinyModelConfig(vocab_size=6144)
"""Sizes of recipes/demo.yaml."""


def save_demo_model(folder: Path, max_pixels: int) -> None:
    """The demo's model and tokenizer sizes; larger images are reduced to max_pixels.

    Weights are four times as large as transformers initialises them: a wrong position or picture then moves log-probs
    by 1 % or more, and completions are still random.
    """
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    save_tiny_model(folder, DEMO, ["Coordinates: (0.0, 0.0)"], [picture], seed=0)
    widen_vocabulary(folder, DEMO.vocab_size)
    weights = load_file(folder / "model.safetensors")
    scaled = {name: 4 * weight if weight.ndim > 1 else weight for name, weight in weights.items()}
    save_file(scaled, folder / "model.safetensors", metadata={"format": "pt"})
    file = folder / "preprocessor_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"max_pixels": max_pixels}
    file.write_text(json.dumps(settings), encoding="utf-8")


def save_qwen_3b(folder: Path, max_pixels: int) -> None:
    """Qwen2.5-VL-3B's shape and number of tokens, the demo's special tokens and chat template; bfloat16 files."""
    save_demo_model(folder, max_pixels)
    # As released: 271 rows of the embedding are padding.
    widen_vocabulary(folder, 151_665)
    config = PUBLISHED[QWEN_3B]()
    demo = AutoConfig.from_pretrained(folder)
    for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"):
        setattr(config, name, getattr(demo, name))
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, name, getattr(demo.text_config, name))
    with torch.device("cuda"):
        model = Qwen2_5_VLForConditionalGeneration(config).bfloat16()
    model.generation_config = GenerationConfig.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)


def widen_vocabulary(folder: Path, num_tokens: int) -> None:
    """Add made-up words to the tokenizer in `folder` until it has num_tokens."""
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"word{i}": i for i in range(len(vocabulary), num_tokens)}
    file.write_text(json.dumps(tokenizer), encoding="utf-8")


def never_sampled(folder: Path) -> list[int]:
    """The ids that a policy forbids, and the end token: without it every completion is as long as allowed."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    forbidden = forbidden_ids(tokenizer, AutoConfig.from_pretrained(folder))
    return sorted({*forbidden.tolist(), tokenizer.eos_token_id})
