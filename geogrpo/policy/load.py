"""Loading a policy and its processor from a folder or a hub name. Files are data: no code of a checkpoint is run."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from geogrpo.config import ModelConfig
from geogrpo.policy.attention import ATTENTION_NAME, IMAGE_ATTENTION_NAME
from geogrpo.policy.last_block import LastBlock
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.policy.vision_cache import VisionCache, tower_key

SUPPORTED_MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Families whose rotary positions packing.mrope_position_ids computes."""
VISION_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
"""What model configurations call the ids of their vision tokens, where they have them."""


def load_processor(config: ModelConfig, prompt: str) -> Processor:
    """Tokenizer and image processor of `config.path`, asking the question `prompt` (a key of PROMPTS).

    Raises:
        ValueError: naming the folder, when it holds no tokenizer, image processor or chat template.
    """
    path = _require_path(config)
    model_config = _load_model_config(path)
    tokenizer = _from_pretrained(AutoTokenizer, path, "tokenizer")
    if tokenizer.chat_template is None:
        raise ValueError(f"model {path}: its tokenizer has no chat template. Take the model's instruct version.")
    image_processor = _from_pretrained(AutoImageProcessor, path, "image processor")
    for bound, key in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
        if getattr(config, bound) is not None:
            image_processor.size[key] = getattr(config, bound)
    return Processor(
        tokenizer,
        image_processor,
        prompt,
        model_config.image_token_id,
        max_tokens=model_config.text_config.max_position_embeddings,
        has_image_keys=config.freeze_vision,
    )


def load_policy(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> Policy:
    """The model of `config.path` in float32 on the CPU, ready for packed groups; frozen and checkpointed as configured.

    Raises:
        ValueError: naming the folder, when there is no such model or it has no image support.
    """
    path = _require_path(config)
    _load_model_config(path)
    model = _from_pretrained(
        AutoModelForImageTextToText,
        path,
        "model",
        dtype=torch.float32,
        attn_implementation={"text_config": ATTENTION_NAME, "vision_config": "sdpa"},
        use_safetensors=True,
    )
    # Set after loading: while loading, the name would be taken for a kernel to import.
    model.model.visual.config._attn_implementation = IMAGE_ATTENTION_NAME
    _put_last_block(model)
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model, forbidden_ids(tokenizer, model.config), config.attention)
    if config.freeze_vision:
        model.model.visual.requires_grad_(False)
        policy.vision_cache = _vision_cache(policy, config)
    return policy


def _put_last_block(model: Any) -> None:
    """Compute the last block at scored positions only, unless vision features are added after it (a tiny Qwen3-VL)."""
    layers = model.model.language_model.layers
    deepstack = getattr(model.config.vision_config, "deepstack_visual_indexes", None) or []
    if len(layers) > len(deepstack):
        layers[-1] = LastBlock(layers[-1])


def _vision_cache(policy: Policy, config: ModelConfig) -> VisionCache:
    gib = 2**30
    folder = None
    if config.vision_cache_folder is not None:
        tower = tower_key(policy.model.model.visual, getattr(torch, config.dtype))
        folder = Path(config.vision_cache_folder).expanduser() / tower
    return VisionCache(int(config.vision_cache_gib * gib), folder, int(config.vision_cache_folder_gib * gib))


def forbidden_ids(tokenizer: PreTrainedTokenizerBase, model_config: Any) -> torch.Tensor:
    """(F,) int64 ids that must never be sampled: special and vision tokens but the end token, and padding rows of the
    embedding. An image placeholder sampled by accident would crash the next forward.
    """
    vocab_size = model_config.text_config.vocab_size
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    # A tokenizer's files may not flag them.
    special |= {getattr(model_config, name) for name in VISION_TOKENS if getattr(model_config, name, None) is not None}
    special -= {tokenizer.eos_token_id}
    return torch.tensor(sorted({i for i in special if i < vocab_size} | set(range(len(tokenizer), vocab_size))))


def _require_path(config: ModelConfig) -> str:
    if config.path is None:
        raise ValueError("model.path must name a folder or a hub model here; only `geogrpo.train` makes a tiny one.")
    return config.path


def _load_model_config(path: str) -> Any:
    config = _from_pretrained(AutoConfig, path, "model configuration")
    if config.model_type not in SUPPORTED_MODEL_TYPES:
        raise ValueError(
            f"model {path} is of type {config.model_type!r}, which geogrpo cannot show images to."
            f" Supported: {', '.join(SUPPORTED_MODEL_TYPES)}."
        )
    return config


def _from_pretrained(auto_class: Any, path: str, what: str, **options: Any) -> Any:
    if path.startswith((".", "/", "~")) and not Path(path).expanduser().is_dir():
        raise ValueError(f"model.path {path}: no such folder. Give an existing folder or a hub name (owner/model).")
    try:
        return auto_class.from_pretrained(str(Path(path).expanduser()), trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"model {path}: cannot load its {what}: {reason}. Expected a folder or hub name in the Hugging Face layout:"
            " config.json, *.safetensors, tokenizer.json, preprocessor_config.json."
        ) from error
