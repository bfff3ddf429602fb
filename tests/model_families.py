"""Random, tiny models of the other families that the policy takes, in the Hugging Face layout."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import (
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

MakeModel = Callable[..., PreTrainedModel]
TEXT_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def qwen2_vl(vocab_size: int, **token_ids: int) -> Qwen2VLForConditionalGeneration:
    """Random and tiny: a vision tower with layer norms and without windows, biases in the language model."""
    config = Qwen2VLConfig(
        text_config=TEXT_SIZES
        | {
            "vocab_size": vocab_size,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
        },
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2, "num_heads": 2},
        **token_ids,
    )
    return Qwen2VLForConditionalGeneration(config)


def qwen3_vl(vocab_size: int, num_layers: int = 2, **token_ids: int) -> Qwen3VLForConditionalGeneration:
    """Random and tiny: deep image features enter several layers."""
    config = Qwen3VLConfig(
        text_config=TEXT_SIZES
        | {
            "num_hidden_layers": num_layers,
            "vocab_size": vocab_size,
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": 64,
            "patch_size": 14,
            "deepstack_visual_indexes": [0],
            "num_position_embeddings": 64,
        },
        **token_ids,
    )
    return Qwen3VLForConditionalGeneration(config)


def shallow_qwen3_vl(vocab_size: int, **token_ids: int) -> Qwen3VLForConditionalGeneration:
    """One layer, and image features that enter after it."""
    return qwen3_vl(vocab_size, 1, **token_ids)


FAMILIES: list[MakeModel] = [qwen2_vl, qwen3_vl]


def save_family(make_model: MakeModel, tiny_folder: Path, folder: Path) -> PreTrainedModel:
    """Write a model of the family to `folder`, with the tiny model's tokenizer and image processor, and return it."""
    shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
    source = json.loads((tiny_folder / "config.json").read_text())
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    model = make_model(source["text_config"]["vocab_size"], **{name: source[name] for name in names})
    model.save_pretrained(folder)
    return model
