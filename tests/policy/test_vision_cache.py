"""Features of a frozen vision tower, computed once."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import InternVLConfig

from geogrpo.config import ModelConfig
from geogrpo.policy.families import find_family
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.policy.vision_cache import VisionCache, image_key, tower_key
from geogrpo.types import Example

KIB = 1024


@pytest.fixture
def frozen_config(tiny_folder: Path) -> ModelConfig:
    return ModelConfig(path=str(tiny_folder), dtype="float32", freeze_vision=True)


@pytest.fixture
def frozen_processor(frozen_config: ModelConfig) -> Processor:
    return load_processor(frozen_config, "short")


@pytest.fixture
def frozen(frozen_config: ModelConfig, frozen_processor: Processor) -> Policy:
    return load_policy(frozen_config, frozen_processor.tokenizer)


@pytest.fixture
def frozen_groups(frozen_processor: Processor, groups: list[Group]) -> list[Group]:
    return [Group(frozen_processor.encode_prompt(group.prompt.example), group.completions) for group in groups]


def test_a_frozen_tower_changes_no_logprob_and_no_gradient_of_the_language_model(
    frozen: Policy, frozen_groups: list[Group], policy: Policy
) -> None:
    batch = pack(frozen_groups)
    for _ in range(2):
        frozen.zero_grad()
        policy.zero_grad()
        actual, expected = frozen(batch)[0], policy(batch)[0]
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
        actual.sum().backward()
        expected.sum().backward()
        expected_of = dict(policy.named_parameters())
        for name, parameter in frozen.named_parameters():
            if ".visual." in name:
                assert parameter.grad is None
            else:
                torch.testing.assert_close(parameter.grad, expected_of[name].grad, rtol=1e-5, atol=1e-6)


def test_each_image_is_encoded_once(frozen: Policy, frozen_groups: list[Group]) -> None:
    encoded: list[int] = []
    frozen.model.model.visual.register_forward_pre_hook(
        lambda module, inputs, options: encoded.append(len(options["grid_thw"])), with_kwargs=True
    )
    # One image that is new among others, and one that is there twice
    frozen(pack(frozen_groups[:3]))
    frozen(pack([frozen_groups[1], frozen_groups[3], frozen_groups[1]]))
    with torch.no_grad():
        frozen.prefill(pack([Group(group.prompt, []) for group in frozen_groups]))
    assert encoded == [3, 1]
    assert frozen.vision_cache is not None
    assert (frozen.vision_cache.num_computed, frozen.vision_cache.num_found) == (4, 5)


def test_prompts_without_keys_are_refused(frozen: Policy, groups: list[Group]) -> None:
    with pytest.raises(ValueError, match="need an image_key"):
        frozen(pack(groups))


def test_other_pixels_have_another_key(frozen_processor: Processor, examples: list[Example]) -> None:
    prompts = [frozen_processor.encode_prompt(example) for example in examples]
    assert len({prompt.image_key for prompt in prompts}) == len(prompts)
    again = frozen_processor.encode_prompt(examples[0])
    assert again.image_key == prompts[0].image_key
    pixels = again.pixel_values.clone()
    pixels[3, 5] += 1e-6
    assert image_key(pixels, again.image_grid_thw) != again.image_key
    assert image_key(again.pixel_values, again.image_grid_thw.flip(-1)) != again.image_key


def test_another_tower_has_another_key(frozen: Policy) -> None:
    def key(dtype: torch.dtype = torch.bfloat16, settings: tuple[str, ...] = ("a", "b")) -> str:
        return tower_key(frozen.vision_parameters(), settings, dtype)

    before = key()
    assert key() == before
    assert key(torch.float32) != before
    assert key(settings=("a", "c")) != before
    for parameters in (frozen.tower_parameters(), frozen.aligner_parameters()):
        before = key()
        with torch.no_grad():
            next(iter(parameters)).view(-1)[0] += 1
        assert key() != before


def test_settings_that_features_depend_on_give_another_key(frozen: Policy) -> None:
    qwen, tiles = frozen.family, find_family(InternVLConfig(text_config={"model_type": "qwen2"}))
    for family, owner, name, value in (
        (qwen, qwen.config.vision_config, "hidden_act", "gelu"),
        (tiles, tiles.config.vision_config, "layer_norm_eps", 1e-3),
        (tiles, tiles.config, "downsample_ratio", 0.25),
        (tiles, tiles.config, "projector_hidden_act", "relu"),
    ):
        before = family.vision_settings
        setattr(owner, name, value)
        assert family.vision_settings != before, name


def features(value: float, kib: int = 1) -> list[Tensor]:
    return [torch.full((kib * KIB // 8, 1), value), torch.full((kib * KIB // 8, 1), -value)]


def test_the_least_recently_used_goes_first() -> None:
    cache = VisionCache(max_bytes=2 * KIB)
    for name in ("a", "b"):
        cache.put(name, features(1.0))
    assert cache.get("a") is not None
    cache.put("c", features(2.0))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c")[1][0, 0] == -2.0


def test_what_is_larger_than_memory_is_there_for_its_own_row() -> None:
    cache = VisionCache(max_bytes=10)
    cache.put("a", features(1.0))
    assert cache.get("a") is not None
    cache.put("b", features(2.0))
    assert cache.get("a") is None


def test_what_leaves_memory_is_found_in_the_folder_by_this_run_and_the_next(tmp_path: Path) -> None:
    cache = VisionCache(2 * KIB, tmp_path / "tower", max_folder_bytes=100 * KIB)
    for i, name in enumerate("abcd"):
        cache.put(name, features(float(i)))
    names = sorted(path.name for path in (tmp_path / "tower").iterdir())
    assert names == [f"{name}.safetensors" for name in "abcd"]
    for reader in (cache, VisionCache(2 * KIB, tmp_path / "tower")):
        found = reader.get("b")
        assert found is not None
        assert [part.tolist() for part in found] == [part.tolist() for part in features(1.0)]
    assert cache.num_computed == 4


def test_the_folder_has_a_bound(tmp_path: Path) -> None:
    cache = VisionCache(KIB, tmp_path, max_folder_bytes=2 * KIB)
    for i in range(8):
        cache.put(f"{i}", features(1.0))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_named_and_its_image_encoded_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04 no safetensors")
    cache = VisionCache(KIB, tmp_path)
    assert cache.get("a") is None
    assert "a.safetensors: damaged" in caplog.text
    assert not (tmp_path / "a.safetensors").exists()


def test_a_second_run_with_a_folder_encodes_nothing(
    frozen_config: ModelConfig, frozen_processor: Processor, frozen_groups: list[Group], tmp_path: Path
) -> None:
    # No room in memory but for the last image
    config = dataclasses.replace(frozen_config, vision_cache_gib=0.0, vision_cache_folder=str(tmp_path))
    batch = pack(frozen_groups)
    policies = [load_policy(config, frozen_processor.tokenizer) for _ in range(2)]
    expected, actual = (each(batch)[0] for each in policies)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    caches = [each.vision_cache for each in policies]
    assert [cache.num_computed for cache in caches if cache is not None] == [4, 0]


def test_a_folder_that_cannot_be_written_is_named_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = VisionCache(KIB, tmp_path / "file" / "tower", max_folder_bytes=100 * KIB)
    for name in "ab":
        cache.put(name, features(1.0))
    assert cache.get("b") is not None
    assert caplog.text.count("cannot be written") == 1
