"""A Qwen2.5-VL of a few million parameters, from scratch, in the Hugging Face layout.

Model code and file formats are transformers' own, so AutoModelForImageTextToText, AutoTokenizer and
AutoImageProcessor load the folder like any released checkpoint.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from geogrpo.config import TinyModelConfig
from geogrpo.prompts import PROMPTS

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE_PAD, VIDEO_PAD = "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, "<|vision_pad|>", IMAGE_PAD, VIDEO_PAD)
"""Qwen2.5-VL's own special tokens, by their own names."""

PATCH_SIZE, MERGE_SIZE = 14, 2
QUESTION_REPEATS = 1000
IMAGE_SIDE = 8 * PATCH_SIZE
"""Images are reduced to about this many pixels squared: 16 tokens."""

# A name keeps its leading space and all of its words, "Level:" its line break, and numbers stay whole up to three
# digits: a frequent name is one token, which cannot loop ("de la la la"), and a degree is one decision, not three.
_NAME = r" ?[\p{L}\p{M}]+(?:[ '’.-]+[\p{L}\p{M}]+)*"
_WORD_PATTERN = rf"\n?\p{{L}}+:|{_NAME}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+ ?|\s+"

# A turn per message, pictures where the message has them; no system prompt.
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    f"{IM_START}{{{{ message.role }}}}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}" + VISION_START + IMAGE_PAD + VISION_END + "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}" + IM_END + "\n{% endfor %}"
    "{% if add_generation_prompt %}" + IM_START + "assistant\n{% endif %}"
)


def save_tiny_model(
    folder: Path, config: TinyModelConfig, texts: Iterable[str], pictures: Sequence[Image.Image], *, seed: int
) -> None:
    """Write a randomly initialised model, its tokenizer and its image processor to `folder`.

    Args:
        config: sizes.
        texts: what the tokenizer is trained on: chains of region.
        pictures: some RGB training images; their mean and deviation per channel become the image processor's.
        seed: of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _train_tokenizer(texts, config.vocab_size)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_model_config(config, tokenizer))
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.generation_config = GenerationConfig(do_sample=True, eos_token_id=eos, pad_token_id=pad)
    model.save_pretrained(folder)
    _save_image_processor(folder, pictures)


def _train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Often enough that every word of a prompt becomes one token
    questions = [f"user\n{question}assistant\n" for question in PROMPTS.values()] * QUESTION_REPEATS
    tokenizer.train_from_iterator(itertools.chain(texts, questions), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        additional_special_tokens=[token for token in SPECIAL_TOKENS if token not in (IM_END, END_OF_TEXT)],
        chat_template=_CHAT_TEMPLATE,
    )


def _model_config(config: TinyModelConfig, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    head_dim = config.hidden_size // config.num_heads
    quarter = head_dim // 2 // 4
    token_id = tokenizer.get_vocab()
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": config.vocab_size,
            "hidden_size": config.hidden_size,
            "intermediate_size": config.intermediate_size,
            "num_hidden_layers": config.num_layers,
            "num_attention_heads": config.num_heads,
            "num_key_value_heads": config.num_heads,
            "max_position_embeddings": 4096,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            # Rotary frequencies shared out between time, height and width in Qwen's own 2 : 3 : 3
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [quarter, (head_dim // 2 - quarter + 1) // 2, (head_dim // 2 - quarter) // 2],
            },
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.vision_hidden_size,
            "intermediate_size": config.vision_intermediate_size,
            "num_heads": config.vision_heads,
            "out_hidden_size": config.hidden_size,
            "patch_size": PATCH_SIZE,
            "spatial_merge_size": MERGE_SIZE,
            "window_size": IMAGE_SIDE,
            "fullatt_block_indexes": list(range(config.vision_layers)),
        },
        image_token_id=token_id[IMAGE_PAD],
        video_token_id=token_id[VIDEO_PAD],
        vision_start_token_id=token_id[VISION_START],
        vision_end_token_id=token_id[VISION_END],
        tie_word_embeddings=True,
    )


def _save_image_processor(folder: Path, pictures: Sequence[Image.Image]) -> None:
    pixels = np.concatenate([np.asarray(picture).reshape(-1, 3) for picture in pictures]) / 255
    # Written as released Qwen2.5-VL checkpoints have it, so that either backend of transformers picks it up.
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": PATCH_SIZE,
        "temporal_patch_size": 2,
        "merge_size": MERGE_SIZE,
        "min_pixels": (PATCH_SIZE * MERGE_SIZE) ** 2,
        "max_pixels": IMAGE_SIDE**2,
        "image_mean": pixels.mean(axis=0).round(4).tolist(),
        "image_std": np.maximum(pixels.std(axis=0), 0.01).round(4).tolist(),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
