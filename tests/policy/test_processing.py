"""What the model reads: pictures it cannot take, and labels that look like its special tokens."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import model_config
from PIL import Image
from transformers import AddedToken

from geogrpo.data.loader import encode_all
from geogrpo.policy.load import load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.regions.chain import chain_of_region
from geogrpo.types import Example

IMAGE_TOKEN = "<|image_pad|>"


def test_a_picture_that_cannot_be_encoded_is_named(processor: Processor, tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    Image.new("RGB", (3000, 4)).save(path)
    message = rf"^example 'x7': cannot encode image {re.escape(str(path))}: .*aspect ratio.*, got 750\.0\. Replace"
    with pytest.raises(ValueError, match=message):
        processor.encode_prompt(Example("x7", path, (0.0, 0.0)))
    with pytest.raises(ValueError, match="^example 'x8': cannot encode image in memory: "):
        processor.encode_prompt(Example("x8", Image.new("RGB", (3000, 4)), (0.0, 0.0)))


def test_a_picture_that_cannot_be_encoded_is_skipped_in_training(processor: Processor) -> None:
    examples = [Example(f"{w}", Image.new("RGB", (w, 8)), (0.0, 0.0)) for w in (8, 3000, 16)]
    batch = encode_all(examples, [0, 1, 2], processor.encode_prompt, range(3))
    assert batch.positions == [0, 2]
    assert [text.split(":")[0] for text in batch.skipped] == ["example '3000'"]


@pytest.mark.parametrize("size", [(1, 1), (1, 150), (150, 1), (2000, 1500)])
def test_every_other_picture_is_encoded(processor: Processor, size: tuple[int, int]) -> None:
    prompt = processor.encode_prompt(Example("x", Image.new("RGB", size), (0.0, 0.0)))
    assert (prompt.token_ids == processor.image_token_id).sum() * 4 == len(prompt.pixel_values)


@pytest.mark.parametrize("name", [f"A{IMAGE_TOKEN}", IMAGE_TOKEN, "<|im_end|>", "<|vision_start|>B<|endoftext|>"])
def test_a_label_that_looks_like_a_special_token_is_text(processor: Processor, policy: Policy, name: str) -> None:
    example = Example("x", Image.new("RGB", (56, 56)), (1.0, 2.0), country=name)
    text = chain_of_region(example, 1)
    answer = processor.encode_answer(text)
    assert processor.decode(answer) == text
    assert answer[-1] == processor.eos_token_id
    assert not torch.isin(answer[:-1], torch.tensor(processor.tokenizer.all_special_ids)).any()
    logprobs, _ = policy(pack([Group(processor.encode_prompt(example), [answer])]))
    assert logprobs.isfinite().all()


def test_a_special_token_in_one_label_changes_nothing_for_the_next(processor: Processor) -> None:
    before = processor.tokenizer.encode(IMAGE_TOKEN, add_special_tokens=False)
    processor.encode_answer(IMAGE_TOKEN)
    assert processor.tokenizer.encode(IMAGE_TOKEN, add_special_tokens=False) == before == [processor.image_token_id]


def test_encoding_labels_leaves_the_saved_tokenizer_as_it_was(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_processor(model_config(tiny_folder), "short").tokenizer
    tokenizer.save_pretrained(tmp_path / "before")
    encoder = load_processor(model_config(tiny_folder), "short")
    encoder.encode_answer(IMAGE_TOKEN)
    encoder.tokenizer.save_pretrained(tmp_path / "after")
    names = sorted(path.name for path in (tmp_path / "before").iterdir())
    assert "tokenizer.json" in names
    for name in names:
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes(), name


def test_ordinary_labels_are_encoded_as_the_tokenizer_does(processor: Processor) -> None:
    for text in ("Country: France\nState: Brittany\nCoordinates: (48.4, -4.5)", "Å <3 |x| 北京", ""):
        plain = processor.tokenizer.encode(text, add_special_tokens=False)
        assert processor.encode_answer(text).tolist() == [*plain, processor.eos_token_id]


def test_a_label_is_refused_where_the_tokenizer_cannot_tell_the_image_token_from_text(tiny_folder: Path) -> None:
    processor = load_processor(model_config(tiny_folder), "short")
    tokenizer = processor.tokenizer
    # A tokenizer whose files do not flag it
    tokenizer._tokenizer.add_tokens([AddedToken("<|not_flagged|>", special=False)])
    processor.image_token_id = tokenizer.convert_tokens_to_ids("<|not_flagged|>")
    with pytest.raises(ValueError, match=r"answer 'A<\|not_flagged\|>' holds the model's image token.*Rename"):
        processor.encode_answer("A<|not_flagged|>")


def test_a_prompt_longer_than_the_model_takes_is_refused_by_name_and_not_cut(
    tiny_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["text_config"]["max_position_embeddings"] = 26
    (tmp_path / "config.json").write_text(json.dumps(settings))
    processor = load_processor(model_config(tmp_path), "short")
    message = (
        "example 'place-0': cannot encode image in memory: 28 tokens, and the model takes 26; lower model.max_pixels"
    )
    with pytest.raises(ValueError, match=message):
        processor.encode_prompt(examples[0])
    assert len(processor.encode_prompt(examples[1]).token_ids) == 20
