"""What families of models differ in: the names of their parts, how an image becomes tokens, and where these stand.

A family is a class here, a line in FAMILIES, and a tiny model in tests/model_families.py for the tests of all families.

Shapes: I images, N rows of pixels (patches or tiles), K tokens of a prompt, T packed tokens, W hidden.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutputWithPooling

from geogrpo.policy.attention import IMAGE_ATTENTION_NAME
from geogrpo.policy.packing import mrope_position_ids
from geogrpo.policy.vision_cache import Features


class Family(ABC):
    """What the rest of the package asks of a family.

    Args:
        config: a model's, as transformers loads it.
    """

    tower: ClassVar[str]
    """Where in `model.model` the vision tower is."""
    blocks: ClassVar[str]
    """Where the list of the tower's blocks is."""
    patch_embedding: ClassVar[str]
    """Where the layer is that reads pixels."""
    aligners: ClassVar[tuple[str, ...]]
    """Where the modules are that lead from the tower to the language model."""
    image_attention: ClassVar[str] = "sdpa"
    """What transformers knows the tower's attention by."""
    num_deep_layers: int = 0
    """Layers of the language model after which image features are added once more."""
    num_class_tokens: ClassVar[int] = 0
    """What the tower adds to the patches of a window."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def vision_parts(self) -> tuple[str, ...]:
        """Names in `model.model` of what turns pixels into image features, aligners included."""
        return tuple(dict.fromkeys(path.split(".")[0] for path in (self.tower, *self.aligners)))

    @property
    @abstractmethod
    def merge_size(self) -> int:
        """An image token is this many patches high and wide."""

    @property
    @abstractmethod
    def patch_size(self) -> int:
        """A patch is this many pixels high and wide."""

    @property
    @abstractmethod
    def num_vision_heads(self) -> int:
        """Attention heads of the tower."""

    @property
    def window_patches(self) -> int:
        """Patches in a full attention window of the tower; 0 where there are no windows."""
        return 0

    def num_windowed_blocks(self, num_blocks: int) -> int:
        """Of the tower's blocks, those that attend within windows only."""
        return 0

    @property
    @abstractmethod
    def vision_settings(self) -> tuple[str, ...]:
        """The settings that image features depend on, besides the weights."""

    @abstractmethod
    def bound_images(self, image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
        """Set what the image processor makes of small and large images; None leaves its own.

        Raises:
            ValueError: naming the option, when no image can be made so.
        """

    @abstractmethod
    def pixel_range(self, image_processor: Any) -> tuple[int, int]:
        """Fewest and most pixels that the tower reads of one image, besides very long ones."""

    @abstractmethod
    def encode_image(self, image_processor: Any, picture: Image.Image) -> tuple[Tensor, Tensor]:
        """(N, ...) float32 pixels, and (1, 3) int64 their grid of patches: time (or tiles), height, width.

        Raises:
            ValueError: when the image processor refuses the picture.
        """

    @abstractmethod
    def rows_per_image(self, image_grid_thw: Tensor) -> list[int]:
        """Rows of pixels of each of I images."""

    def around_image(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
        """Tokens before and after an image's placeholders that the chat template leaves to transformers' processor."""
        return [], []

    @abstractmethod
    def prompt_positions(self, token_ids: Tensor, image_grid_thw: Tensor) -> Tensor:
        """Rotary positions of a prompt: (K,) tokens -> (3, K) int64, equal rows where positions have one dimension."""

    @abstractmethod
    def position_argument(self, position_ids: Tensor) -> Tensor:
        """(3, T) positions as the language model takes them."""

    @abstractmethod
    def image_arguments(self, pixel_values: Tensor, image_grid_thw: Tensor) -> dict[str, Tensor]:
        """Pixels as the model takes them, by keyword."""

    @abstractmethod
    def split_features(self, output: Any, image_grid_thw: Tensor) -> list[Features]:
        """What get_image_features returned for I images, image by image."""

    @abstractmethod
    def join_features(self, features: Sequence[Features]) -> Any:
        """The opposite: what the model takes in the place of what get_image_features returns."""


class QwenVL(Family):
    """Qwen2-VL (arXiv 2409.12191): patches of any resolution, positions in time, height and width."""

    tower, blocks, patch_embedding = "visual", "visual.blocks", "visual.patch_embed.proj"
    aligners: ClassVar[tuple[str, ...]] = ("visual.merger",)
    image_attention = IMAGE_ATTENTION_NAME

    @property
    def merge_size(self) -> int:
        return int(self.config.vision_config.spatial_merge_size)

    @property
    def patch_size(self) -> int:
        return int(self.config.vision_config.patch_size)

    @property
    def num_vision_heads(self) -> int:
        return int(self.config.vision_config.num_heads)

    @property
    def vision_settings(self) -> tuple[str, ...]:
        return (self.config.vision_config.to_json_string(),)

    def bound_images(self, image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
        for key, bound in (("shortest_edge", min_pixels), ("longest_edge", max_pixels)):
            if bound is not None:
                image_processor.size[key] = bound

    def pixel_range(self, image_processor: Any) -> tuple[int, int]:
        return image_processor.size["shortest_edge"], image_processor.size["longest_edge"]

    def encode_image(self, image_processor: Any, picture: Image.Image) -> tuple[Tensor, Tensor]:
        features = image_processor(images=[picture], return_tensors="pt")
        return features["pixel_values"], features["image_grid_thw"]

    def rows_per_image(self, image_grid_thw: Tensor) -> list[int]:
        sizes: list[int] = image_grid_thw.prod(-1).tolist()
        return sizes

    def prompt_positions(self, token_ids: Tensor, image_grid_thw: Tensor) -> Tensor:
        return mrope_position_ids(token_ids, image_grid_thw, self.config.image_token_id, self.merge_size)

    def position_argument(self, position_ids: Tensor) -> Tensor:
        return position_ids[:, None]

    def image_arguments(self, pixel_values: Tensor, image_grid_thw: Tensor) -> dict[str, Tensor]:
        return {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}

    def split_features(self, output: Any, image_grid_thw: Tensor) -> list[Features]:
        return [[part] for part in output.pooler_output]

    def join_features(self, features: Sequence[Features]) -> Any:
        output: Any = BaseModelOutputWithPooling()
        output.pooler_output = tuple(parts[0] for parts in features)
        return output


class Qwen25VL(QwenVL):
    """Qwen2.5-VL (arXiv 2502.13923): some blocks of the tower attend within windows."""

    @property
    def window_patches(self) -> int:
        vision = self.config.vision_config
        return int((vision.window_size // vision.patch_size) ** 2)

    def num_windowed_blocks(self, num_blocks: int) -> int:
        return num_blocks - len(self.config.vision_config.fullatt_block_indexes)


class Qwen3VL(QwenVL):
    """Qwen3-VL (arXiv 2511.21631): what inner blocks of the tower see enters the first layers of the language model."""

    aligners = ("visual.merger", "visual.deepstack_merger_list")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_deep_layers = len(config.vision_config.deepstack_visual_indexes)

    def split_features(self, output: Any, image_grid_thw: Tensor) -> list[Features]:
        return [list(parts) for parts in zip(output.pooler_output, *output.deepstack_features, strict=True)]

    def join_features(self, features: Sequence[Features]) -> Any:
        output = super().join_features(features)
        output.deepstack_features = [list(layer) for layer in list(zip(*features, strict=True))[1:]]
        return output


class InternVL(Family):
    """InternVL (InternVL3: arXiv 2504.10479): square tiles of one size and a thumbnail, positions of one dimension.

    Its language model may be a Qwen2 or Qwen3.
    """

    tower, blocks = "vision_tower", "vision_tower.encoder.layer"
    patch_embedding = "vision_tower.embeddings.patch_embeddings.projection"
    aligners = ("multi_modal_projector",)
    num_class_tokens = 1
    language_models: ClassVar = ("qwen2", "qwen3")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.text_config.model_type not in self.language_models:
            raise ValueError(
                f"the language model of this InternVL is of type {config.text_config.model_type!r}; geogrpo trains"
                f" {' and '.join(self.language_models)}, as in InternVL3-8B and InternVL3.5-8B."
            )

    @property
    def merge_size(self) -> int:
        return round(1 / self.config.downsample_ratio)

    @property
    def patch_size(self) -> int:
        return int(self.config.vision_config.patch_size[0])

    @property
    def num_vision_heads(self) -> int:
        return int(self.config.vision_config.num_attention_heads)

    @property
    def window_patches(self) -> int:
        height, width = self.config.vision_config.image_size
        return int(height // self.patch_size * (width // self.patch_size))

    def num_windowed_blocks(self, num_blocks: int) -> int:
        return num_blocks

    @property
    def vision_settings(self) -> tuple[str, ...]:
        names = ("downsample_ratio", "projector_hidden_act", "vision_feature_layer", "vision_feature_select_strategy")
        return (self.config.vision_config.to_json_string(), *(repr(getattr(self.config, name)) for name in names))

    def bound_images(self, image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
        # The files of published models say nothing of it; transformers' processor of InternVL asks for tiles.
        image_processor.crop_to_patches = True
        tile = _tile_pixels(image_processor)
        if max_pixels is not None:
            if max_pixels < tile:
                raise ValueError(
                    f"model.max_pixels must be at least {tile:,}, got {max_pixels:,}: this model sees an image as tiles"
                    f" of {tile:,} pixels each."
                )
            image_processor.max_patches = max_pixels // tile
        if min_pixels is not None:
            image_processor.min_patches = -(-min_pixels // tile)
        if image_processor.min_patches > image_processor.max_patches:
            raise ValueError(
                f"model.min_pixels asks for {image_processor.min_patches} tiles of {tile:,} pixels, and an image may"
                f" have {image_processor.max_patches}. Lower it, or raise model.max_pixels."
            )

    def pixel_range(self, image_processor: Any) -> tuple[int, int]:
        tile = _tile_pixels(image_processor)
        # Where there are several tiles, the whole picture is one more.
        fewest, most = (n + (n > 1) for n in (image_processor.min_patches, image_processor.max_patches))
        return tile * fewest, tile * most

    def encode_image(self, image_processor: Any, picture: Image.Image) -> tuple[Tensor, Tensor]:
        tiles = image_processor(images=[picture], return_tensors="pt")["pixel_values"]
        num_tiles, _, height, width = tiles.shape
        return tiles, torch.tensor([[num_tiles, height // self.patch_size, width // self.patch_size]])

    def rows_per_image(self, image_grid_thw: Tensor) -> list[int]:
        num_tiles: list[int] = image_grid_thw[:, 0].tolist()
        return num_tiles

    def around_image(self, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
        start, end = (getattr(tokenizer, f"{name}_image_token_id", None) for name in ("start", "end"))
        if start is None or end is None:
            raise ValueError(
                "the model's tokenizer does not say what stands around an image (start_image_token, end_image_token)."
                " Take the version of the model that was made for transformers: its name ends in -hf."
            )
        return [start], [end]

    def prompt_positions(self, token_ids: Tensor, image_grid_thw: Tensor) -> Tensor:
        return torch.arange(len(token_ids)).expand(3, -1)

    def position_argument(self, position_ids: Tensor) -> Tensor:
        return position_ids[:1]

    def image_arguments(self, pixel_values: Tensor, image_grid_thw: Tensor) -> dict[str, Tensor]:
        return {"pixel_values": pixel_values}

    def split_features(self, output: Any, image_grid_thw: Tensor) -> list[Features]:
        per_image = output.pooler_output.split(self.rows_per_image(image_grid_thw))
        return [[tiles.flatten(0, 1)] for tiles in per_image]

    def join_features(self, features: Sequence[Features]) -> Any:
        output: Any = BaseModelOutputWithPooling()
        output.pooler_output = torch.cat([parts[0] for parts in features])
        return output


def _tile_pixels(image_processor: Any) -> int:
    return int(image_processor.size["height"] * image_processor.size["width"])


FAMILIES: dict[str, type[Family]] = {
    "qwen2_vl": QwenVL,
    "qwen2_5_vl": Qwen25VL,
    "qwen3_vl": Qwen3VL,
    "internvl": InternVL,
}
"""By what a model's configuration calls its type."""


def find_family(config: Any) -> Family:
    """The family of a model, from its configuration.

    Raises:
        ValueError: when it is none of FAMILIES.
    """
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"it is of type {config.model_type!r}, which geogrpo cannot show images to."
            f" Supported: {', '.join(FAMILIES)}."
        )
    return FAMILIES[config.model_type](config)
