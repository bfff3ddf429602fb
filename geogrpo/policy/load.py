"""Loading a policy and its processor from a folder or a hub name. Files are data: no code of a checkpoint is run."""

import itertools
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
from geogrpo.policy.attention import ATTENTION_NAME
from geogrpo.policy.compiled import compile_blocks
from geogrpo.policy.families import find_family
from geogrpo.policy.last_block import LastBlock
from geogrpo.policy.lora import add_adapters
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor
from geogrpo.policy.vision_cache import VisionCache, tower_key

VISION_TOKENS = (
    *("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    *("context_image_token_id", "start_image_token_id", "end_image_token_id"),
)
"""What model configurations and tokenizers call the ids of their vision tokens, where they have them."""


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
    find_family(model_config).bound_images(image_processor, config.min_pixels, config.max_pixels)
    return Processor(tokenizer, image_processor, prompt, model_config, has_image_keys=config.caches_vision)


def load_policy(config: ModelConfig, tokenizer: PreTrainedTokenizerBase) -> Policy:
    """The model of `config.path` in float32 on the CPU, ready for packed groups; frozen and checkpointed as configured.

    Raises:
        ValueError: naming the folder, when there is no such model or it has no image support; of adapters, naming
            model.lora.targets, or peft where it is missing.
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
    family = find_family(model.config)
    # Set after loading: while loading, the name would be taken for a kernel to import.
    model.model.get_submodule(family.tower).config._attn_implementation = family.image_attention
    if len(model.model.language_model.layers) > family.num_deep_layers:
        _put_last_block(model)
    if config.lora.rank:
        add_adapters(model, config.lora)
    if config.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model, forbidden_ids(tokenizer, model.config), config.attention)
    _freeze(policy, config)
    if config.compile:
        compile_blocks(policy)
    if config.caches_vision:
        policy.vision_cache = _vision_cache(policy, config)
    return policy


def _put_last_block(model: Any) -> None:
    """Compute the last block at scored positions only: no image features may be added after it (a tiny Qwen3-VL)."""
    layers = model.model.language_model.layers
    layers[-1] = LastBlock(layers[-1])


def _freeze(policy: Policy, config: ModelConfig) -> None:
    """Leave as loaded what freeze_vision and freeze_aligner name."""
    frozen = [policy.tower_parameters()] if config.freeze_vision else []
    if config.is_aligner_frozen:
        frozen.append(policy.aligner_parameters())
    for parameter in itertools.chain(*frozen):
        parameter.requires_grad_(False)


def _vision_cache(policy: Policy, config: ModelConfig) -> VisionCache:
    gib = 2**30
    folder = None
    if config.vision_cache_folder is not None:
        dtype = getattr(torch, config.dtype)
        tower = tower_key(policy.vision_parameters(), policy.family.vision_settings, dtype)
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
    named = [getattr(holder, name, None) for holder in (model_config, tokenizer) for name in VISION_TOKENS]
    special |= {token_id for token_id in named if token_id is not None}
    special -= {tokenizer.eos_token_id}
    return torch.tensor(sorted({i for i in special if i < vocab_size} | set(range(len(tokenizer), vocab_size))))


def _require_path(config: ModelConfig) -> str:
    if config.path is None:
        raise ValueError("model.path must name a folder or a hub model here; only `geogrpo.train` makes a tiny one.")
    return config.path


def _load_model_config(path: str) -> Any:
    config = _from_pretrained(AutoConfig, path, "model configuration")
    try:
        find_family(config)
    except ValueError as error:
        raise ValueError(f"model {path}: {error}") from error
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
