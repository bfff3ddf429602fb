"""What a model is made of, without its weights: counted on a model that transformers builds without memory."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    InternVLConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)

from geogrpo.config import ModelConfig, TinyModelConfig
from geogrpo.policy.families import FAMILIES, find_family
from geogrpo.policy.tiny import IMAGE_SIDE, MERGE_SIZE, PATCH_SIZE

_QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN3_VISION_SMALL = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_heads": 16,
    "deepstack_visual_indexes": [5, 11, 17],
}
_QWEN3_VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "deepstack_visual_indexes": [8, 16, 24],
}


def _qwen2_5(sizes: tuple[int, ...], *, vocab_size: int = 152064, is_tied: bool = False, **vision: int) -> Any:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    text = dict(zip(names, sizes, strict=True)) | {"vocab_size": vocab_size}
    return Qwen2_5_VLConfig(
        text_config=text,
        vision_config=_QWEN2_5_VISION | {"out_hidden_size": sizes[0]} | vision,
        tie_word_embeddings=is_tied,
    )


def _qwen3(sizes: tuple[int, ...], vision: dict[str, Any], *, is_tied: bool) -> Any:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    text = dict(zip(names, sizes, strict=True)) | {"vocab_size": 151936, "head_dim": 128}
    return Qwen3VLConfig(
        text_config=text, vision_config=vision | {"out_hidden_size": sizes[0]}, tie_word_embeddings=is_tied
    )


def _internvl3(sizes: tuple[int, ...], *, vocab_size: int) -> Any:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    text = dict(zip(names, sizes, strict=True)) | {"model_type": "qwen2", "vocab_size": vocab_size}
    # transformers' defaults are InternViT-300M, but for the biases.
    return InternVLConfig(text_config=text, vision_config={"attention_bias": True}, tie_word_embeddings=False)


PUBLISHED = {
    "Qwen/Qwen2.5-VL-3B-Instruct": lambda: _qwen2_5((2048, 11008, 36, 16, 2), vocab_size=151936, is_tied=True),
    "Qwen/Qwen2.5-VL-7B-Instruct": lambda: _qwen2_5((3584, 18944, 28, 28, 4)),
    "Qwen/Qwen2.5-VL-72B-Instruct": lambda: _qwen2_5((8192, 29568, 80, 64, 8), intermediate_size=3456),
    "Qwen/Qwen3-VL-4B-Instruct": lambda: _qwen3((2560, 9728, 36, 32, 8), _QWEN3_VISION_SMALL, is_tied=True),
    "Qwen/Qwen3-VL-8B-Instruct": lambda: _qwen3((4096, 12288, 36, 32, 8), _QWEN3_VISION, is_tied=False),
    "OpenGVLab/InternVL3-8B-hf": lambda: _internvl3((3584, 18944, 28, 28, 4), vocab_size=151674),
}
"""Configurations of models whose config.json may not be at hand, from their model cards on the hub."""

PUBLISHED_IMAGE_SETTINGS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}},
    "qwen2_5_vl": {"size": {"shortest_edge": 3136, "longest_edge": 12_845_056}},
    "qwen3_vl": {"size": {"shortest_edge": 65_536, "longest_edge": 16_777_216}},
    "internvl": {"size": {"height": 448, "width": 448}, "min_patches": 1, "max_patches": 12},
}
"""What each family's preprocessor_config.json on the hub says of sizes."""


@dataclass(frozen=True)
class TowerShape:
    """The blocks of the language model or of the vision tower; all of a tower are alike."""

    num_blocks: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    head_dim: int
    num_kv_heads: int
    block_parameters: int
    """In the largest block."""
    weights: int
    """Numbers in the weight matrices of all blocks: each token is multiplied with every one of them."""
    is_gated: bool
    """Whether the MLP has a gate: three matrices instead of two."""
    has_head_norms: bool
    """Whether queries and keys are normalised per head."""
    has_layer_norm: bool
    """Whether norms are nn.LayerNorm; otherwise an RMS norm that computes in float32."""
    has_layer_scales: bool
    """Whether what attention and MLP add to the residual stream is scaled by learned numbers."""

    @property
    def query_size(self) -> int:
        """Width of all query heads."""
        return self.num_heads * self.head_dim

    @property
    def key_size(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.num_kv_heads * self.head_dim


@dataclass(frozen=True)
class ModelShape:
    """Everything about a model that its costs follow from."""

    source: str
    """Where the numbers are from, for the reader of a plan."""
    num_parameters: int
    """Tied ones once."""
    vocab_size: int
    language: TowerShape
    vision: TowerShape
    patch_weights: int
    """Numbers that each patch is multiplied with before the first block."""
    merger_weights: int
    """Numbers that each image token is multiplied with after the last block, those of DeepStack included."""
    merge_size: int
    """An image token is this many patches high and wide."""
    pixels_per_side: int
    """An image token is this many pixels high and wide."""
    window_patches: int
    """Patches in a full attention window, or in a tile."""
    num_class_tokens: int
    """Tokens of the vision tower in each tile that stand for no patch."""
    num_windowed_blocks: int
    """Blocks of the vision tower that attend within windows only."""
    min_pixels: int
    """That the vision tower reads of one image, at least."""
    max_pixels: int
    """That the vision tower reads of one image, at most."""

    @property
    def root_parameters(self) -> int:
        """Outside all blocks: FSDP2 gathers them together, and once."""
        return self.num_parameters - sum(t.num_blocks * t.block_parameters for t in (self.language, self.vision))

    @property
    def head_weights(self) -> int:
        """Numbers in the language-model head."""
        return self.vocab_size * self.language.hidden_size

    @property
    def image_token_range(self) -> tuple[int, int]:
        """Fewest and most tokens of one image.

        Qwen's image processor rounds both sides to whole tokens, then shrinks or enlarges the picture until its pixels
        lie within [min_pixels, max_pixels]. Source: smart_resize of transformers' Qwen2-VL image processor. A picture
        more times as long as wide than it has tokens may take more: no side is less than a token. InternVL's makes
        whole tiles.
        """
        area = self.pixels_per_side**2
        return max(1, -(-self.min_pixels // area)), max(1, self.max_pixels // area)


def find_shape(config: ModelConfig) -> ModelShape | str:
    """The shape of the configured model, or why it is not known.

    Looks at the tiny model, then at config.json in the folder or in the hub's cache, then at PUBLISHED. Nothing is
    downloaded and no weights are read.
    """
    if config.path is None:
        bounds = {"shortest_edge": (PATCH_SIZE * MERGE_SIZE) ** 2, "longest_edge": IMAGE_SIDE**2}
        images = SimpleNamespace(size=bounds)
        return _shape(tiny_config(config.tiny), "made from scratch, as model.tiny says", images, config)
    path = str(Path(config.path).expanduser())
    try:
        found: Any = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        source = "from its config.json"
    except (OSError, ValueError, KeyError):
        if config.path not in PUBLISHED:
            return f"{config.path} has no config.json on this machine, and its published shape is not listed here"
        found, source = PUBLISHED[config.path](), "as published; its files are not on this machine"
    if found.model_type not in FAMILIES:
        return f"{config.path} is of type {found.model_type!r}, not one of {', '.join(FAMILIES)}"
    return _shape(found, source, _image_settings(path, found.model_type), config)


def tiny_config(config: TinyModelConfig) -> Any:
    """The tiny model's configuration as far as sizes go; policy.tiny writes the whole of it."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_heads,
            # Qwen's own lie outside a small vocabulary, which transformers warns about.
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.vision_hidden_size,
            "intermediate_size": config.vision_intermediate_size,
            "num_heads": config.vision_heads,
            "out_hidden_size": config.hidden_size,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "fullatt_block_indexes": list(range(config.vision_layers)),
        },
        tie_word_embeddings=True,
    )


def _image_settings(path: str, model_type: str) -> Any:
    """The image processor, or what stands for it."""
    try:
        return AutoImageProcessor.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError):
        settings = PUBLISHED_IMAGE_SETTINGS[model_type]
        return SimpleNamespace(**(settings | {"size": dict(settings["size"])}))


def _shape(config: Any, source: str, image_settings: Any, model: ModelConfig) -> ModelShape:
    with torch.device("meta"):
        built = AutoModelForImageTextToText.from_config(config)
    family = find_family(config)
    family.bound_images(image_settings, model.min_pixels, model.max_pixels)
    min_pixels, max_pixels = family.pixel_range(image_settings)
    return replace(built_shape(built), source=source, min_pixels=min_pixels, max_pixels=max_pixels)


def built_shape(built: Any) -> ModelShape:
    """The shape of a transformers model, sharded or not; it does not know how large its images are (0 pixels)."""
    family, text = find_family(built.config), built.config.get_text_config()
    blocks: Any = built.model.get_submodule(family.blocks)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    kv_heads, heads = text.num_key_value_heads, family.num_vision_heads
    return ModelShape(
        source="from the model itself",
        num_parameters=sum(parameter.numel() for parameter in built.parameters()),
        vocab_size=text.vocab_size,
        language=_tower(built.model.language_model.layers, text.num_attention_heads, head_dim, kv_heads),
        vision=_tower(blocks, heads, _width(blocks) // heads, heads),
        patch_weights=built.model.get_submodule(family.patch_embedding).weight.numel(),
        merger_weights=_linear_weights(built.model.get_submodule(path) for path in family.aligners),
        merge_size=family.merge_size,
        pixels_per_side=family.patch_size * family.merge_size,
        window_patches=family.window_patches,
        num_class_tokens=family.num_class_tokens,
        num_windowed_blocks=family.num_windowed_blocks(len(blocks)),
        min_pixels=0,
        max_pixels=0,
    )


_ATTENTIONS = ("attn", "attention", "self_attn")
"""What blocks call their attention."""


def _tower(blocks: Any, num_heads: int, head_dim: int, num_kv_heads: int) -> TowerShape:
    linears = [module for module in blocks[0].mlp.modules() if isinstance(module, nn.Linear)]
    is_gated = len(linears) == 3
    attention = next(getattr(blocks[0], name) for name in _ATTENTIONS if hasattr(blocks[0], name))
    return TowerShape(
        num_blocks=len(blocks),
        hidden_size=_width(blocks),
        intermediate_size=linears[0].out_features,
        num_heads=num_heads,
        head_dim=head_dim,
        num_kv_heads=num_kv_heads,
        block_parameters=max(sum(p.numel() for p in block.parameters()) for block in blocks),
        weights=_linear_weights(blocks),
        is_gated=is_gated,
        # An InternVL without them has a module of that name that does nothing.
        has_head_norms=hasattr(getattr(attention, "q_norm", None), "weight"),
        has_layer_norm=any(isinstance(module, nn.LayerNorm) for module in blocks[0].modules()),
        has_layer_scales=hasattr(blocks[0], "lambda_1"),
    )


def _width(blocks: Any) -> int:
    """Of the residual stream: what the MLP's first matrix reads."""
    return next(module.in_features for module in blocks[0].mlp.modules() if isinstance(module, nn.Linear))


def _linear_weights(modules: Iterable[nn.Module]) -> int:
    return sum(
        module.weight.numel() for outer in modules for module in outer.modules() if isinstance(module, nn.Linear)
    )
