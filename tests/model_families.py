"""Random, tiny models of the other families that the policy takes, in the Hugging Face layout."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from geogrpo.types import EncodedPrompt

MakeModel = Callable[..., PreTrainedModel]
TEXT_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
TILE_SIDE = 56
"""Pixels: 4 x 4 patches, 4 image tokens."""


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


def internvl(
    vocab_size: int,
    *,
    image_token_id: int,
    language_model: str = "qwen2",
    vision_layers: int = 2,
    vision_width: int = 32,
    **_: int,
) -> InternVLForConditionalGeneration:
    """Random and tiny: tiles with a class token, an aligner outside the tower, positions of one dimension."""
    config = InternVLConfig(
        text_config=TEXT_SIZES | {"model_type": language_model, "vocab_size": vocab_size, "head_dim": 16},
        vision_config={
            "num_hidden_layers": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": vision_width * 3 // 2,
            "num_attention_heads": 2,
            "attention_bias": True,
            "image_size": [TILE_SIDE, TILE_SIDE],
            "patch_size": [14, 14],
        },
        image_token_id=image_token_id,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        # Zero at initialisation, where a wrong order of tiles or patches would not show
        for embedding in (model.model.vision_tower.embeddings.cls_token, position_embeddings(model)):
            embedding.normal_()
    return model


def position_embeddings(model: InternVLForConditionalGeneration) -> torch.Tensor:
    """Of the patches of a tile."""
    return model.model.vision_tower.embeddings.position_embeddings


def internvl_qwen3(vocab_size: int, **token_ids: int) -> InternVLForConditionalGeneration:
    """As InternVL3.5: its language model norms queries and keys per head."""
    return internvl(vocab_size, language_model="qwen3", **token_ids)


FAMILIES: list[MakeModel] = [qwen2_vl, qwen3_vl, internvl, internvl_qwen3]


def save_family(make_model: MakeModel, tiny_folder: Path, folder: Path) -> PreTrainedModel:
    """Write a model of the family to `folder`, with the tiny model's tokenizer and an image processor of the family,
    and return it.
    """
    shutil.copytree(tiny_folder, folder, dirs_exist_ok=True)
    source = json.loads((tiny_folder / "config.json").read_text())
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    model = make_model(source["text_config"]["vocab_size"], **{name: source[name] for name in names})
    model.save_pretrained(folder)
    if model.config.model_type == "internvl":
        _show_tiles(folder)
    return model


def dense_images(model: torch.nn.Module, input_ids: torch.Tensor, prompts: Sequence[EncodedPrompt]) -> dict[str, Any]:
    """What transformers' own forward takes besides tokens: the pictures of one prompt after another."""
    pixel_values = torch.cat([prompt.pixel_values for prompt in prompts])
    if model.config.model_type == "internvl":
        return {"pixel_values": pixel_values}
    return {
        "pixel_values": pixel_values,
        "image_grid_thw": torch.cat([prompt.image_grid_thw for prompt in prompts]),
        "mm_token_type_ids": (input_ids == model.config.image_token_id).int(),
    }


def _show_tiles(folder: Path) -> None:
    """Make a Qwen2.5-VL's tokenizer and image processor those of an InternVL, as published ones have them."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {
        "start_image_token": "<|vision_start|>",
        "end_image_token": "<|vision_end|>",
        "context_image_token": "<|image_pad|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    template = (folder / "chat_template.jinja").read_text()
    bare = template.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>\n")
    assert bare != template
    (folder / "chat_template.jinja").write_text(bare)
    image_processor = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "size": {"height": TILE_SIDE, "width": TILE_SIDE},
        "crop_to_patches": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
