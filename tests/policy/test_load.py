"""Loading models: the Hugging Face layout, and folders that are no such thing."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model_families import FAMILIES, MakeModel, dense_images, save_family
from transformers import (
    AutoImageProcessor,
    AutoModelForImageTextToText,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from geogrpo.config import ModelConfig
from geogrpo.policy.load import forbidden_ids, load_policy, load_processor
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.rollout.native import NativeEngine
from geogrpo.types import Example


def test_auto_classes_load_the_tiny_model(tiny_folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    image_processor = AutoImageProcessor.from_pretrained(tiny_folder)
    assert model.config.model_type == "qwen2_5_vl"
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.convert_ids_to_tokens(model.config.image_token_id) == "<|image_pad|>"
    assert image_processor.patch_size == model.config.vision_config.patch_size


def test_text_survives_the_tokenizer(processor: Processor) -> None:
    for text in ("Country: Perú\nCity: Ñuñoa 北京\nCoordinates: (-0.5, 179.9)", " two  spaces\t", "é́ẞ🗺"):
        assert processor.decode(processor.encode_answer(text)) == text


def config_of(vocab_size: int, **token_ids: int) -> SimpleNamespace:
    """A model's configuration, as far as forbidden_ids reads it."""
    return SimpleNamespace(text_config=SimpleNamespace(vocab_size=vocab_size), **token_ids)


@pytest.mark.parametrize("name", ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"])
def test_the_models_vision_tokens_are_forbidden_whatever_the_tokenizer_says(processor: Processor, name: str) -> None:
    tokenizer = processor.tokenizer
    ordinary = tokenizer.convert_tokens_to_ids("a")
    assert ordinary not in forbidden_ids(tokenizer, config_of(len(tokenizer)))
    assert ordinary in forbidden_ids(tokenizer, config_of(len(tokenizer), **{name: ordinary}))


def test_everything_special_but_the_end_token_is_forbidden(processor: Processor) -> None:
    tokenizer = processor.tokenizer
    forbidden = set(forbidden_ids(tokenizer, config_of(len(tokenizer) + 3)).tolist())
    assert tokenizer.eos_token_id not in forbidden
    for token in ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>", "<|im_start|>"):
        assert tokenizer.convert_tokens_to_ids(token) in forbidden
    assert set(range(len(tokenizer), len(tokenizer) + 3)) <= forbidden
    assert len(forbidden) == len(tokenizer.all_special_ids) - 1 + 3


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(ValueError, match="/no/such/model: no such folder. Give an existing folder or a hub name"):
        load_processor(ModelConfig(path="/no/such/model"), "short")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    message = f"{tmp_path}: cannot load its model configuration: .* Expected a folder or hub name in the Hugging Face"
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_processor(ModelConfig(path=str(tmp_path)), "short")


def test_a_text_model_is_refused(tmp_path: Path) -> None:
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=32, **tiny)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of type 'llama', which geogrpo cannot show images to"):
        load_processor(ModelConfig(path=str(tmp_path)), "short")


def test_a_tokenizer_without_chat_template_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_processor(ModelConfig(path=str(tmp_path)), "short")


def test_pickled_weights_are_refused(tiny_folder: Path, tmp_path: Path, processor: Processor) -> None:
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot load its model"):
        load_policy(ModelConfig(path=str(tmp_path)), processor.tokenizer)


def test_max_pixels_bounds_the_image_tokens(tiny_folder: Path, examples: list[Example]) -> None:
    processor = load_processor(ModelConfig(path=str(tiny_folder), max_pixels=56 * 56), "short")
    assert processor.encode_prompt(examples[0]).image_grid_thw.prod() // 4 == 4


@pytest.mark.parametrize("freeze_vision", [False, True])
@pytest.mark.parametrize("make_model", FAMILIES)
def test_other_families_pack_like_their_dense_selves_and_sample_what_they_train(
    make_model: MakeModel, freeze_vision: bool, tiny_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    model = save_family(make_model, tiny_folder, tmp_path)
    model_config = ModelConfig(path=str(tmp_path), freeze_vision=freeze_vision)
    processor = load_processor(model_config, "short")
    policy = load_policy(model_config, processor.tokenizer)
    prompts = [processor.encode_prompt(example) for example in examples]
    answers = [processor.encode_answer(text) for text in ("Country: Japan", "Coordinates: (1.0, 2.0)")]
    logprobs, _ = policy(pack([Group(prompt, answers) for prompt in prompts]))
    expected = []
    for prompt in prompts:
        for answer in answers:
            ids = torch.cat([prompt.token_ids, answer])[None]
            logits = model(input_ids=ids, **dense_images(model, ids, [prompt])).logits
            logits = logits[0, len(prompt.token_ids) - 1 : -1]
            logits = logits.index_fill(-1, policy.forbidden_ids, -torch.inf)
            expected.append(logits.log_softmax(-1).gather(-1, answer[:, None]).squeeze(-1))
    torch.testing.assert_close(logprobs, torch.cat(expected), rtol=1e-5, atol=1e-5)
    rollouts = NativeEngine(processor).sample(
        policy, prompts, group_size=2, temperature=1.0, max_new_tokens=6, seeds=[(i,) for i in range(len(prompts))]
    )
    sampled = torch.cat([row for group in rollouts.logprobs for row in group])
    groups = [Group(prompt, ids) for prompt, ids in zip(prompts, rollouts.token_ids, strict=True)]
    torch.testing.assert_close(sampled, policy(pack(groups))[0].detach(), rtol=1e-5, atol=1e-5)
