"""Examples -> what the model reads, and tokens -> text. Image processor and tokenizer are used directly: transformers'
AutoProcessor would need torchvision, which has no CPU build.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from geogrpo.images import image_error, open_image
from geogrpo.policy.packing import Group, mrope_position_ids
from geogrpo.policy.vision_cache import image_key
from geogrpo.prompts import PROMPTS
from geogrpo.types import EncodedPrompt, Example


class Processor:
    """Encodes prompts and answers for one model.

    Args:
        tokenizer: with a chat template and Qwen's vision tokens.
        image_processor: of the Qwen2-VL family.
        prompt: a key of PROMPTS.
        image_token_id: the placeholder that stands for one merged patch.
        max_tokens: the model's longest sequence.
        has_image_keys: whether prompts carry an image_key, which takes a millisecond for a large image.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        prompt: str,
        image_token_id: int,
        *,
        max_tokens: int | None = None,
        has_image_keys: bool = False,
    ) -> None:
        if prompt not in PROMPTS:
            raise ValueError(f"answer.prompt {prompt!r} is unknown. Known: {', '.join(PROMPTS)}.")
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self.image_token_id, self._max_tokens, self._has_image_keys = image_token_id, max_tokens, has_image_keys
        self.eos_token_id: int = tokenizer.eos_token_id
        self._question = PROMPTS[prompt]
        content: Any = [{"type": "image"}, {"type": "text", "text": self._question}]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        self._template = torch.tensor(tokenizer.encode(text, add_special_tokens=False))
        if (self._template == image_token_id).sum() != 1:
            raise ValueError("the model's chat template must place exactly one image token for one image.")

    def encode_prompt(self, example: Example) -> EncodedPrompt:
        """The example's image and question.

        Raises:
            ValueError: naming example and image, when it cannot be read, or not be encoded: Qwen's image processors
                refuse one more than 200 times as long as wide; or when it is more tokens than the model can take,
                as no image is ever cut.
        """
        picture = open_image(example)
        try:
            features = self.image_processor(images=[picture], return_tensors="pt")
        except ValueError as error:
            raise image_error(example, "encode", error) from error
        grid = features["image_grid_thw"]
        merge_size = self.image_processor.merge_size
        at = int((self._template == self.image_token_id).nonzero())
        placeholders = torch.full((int(grid.prod()) // merge_size**2,), self.image_token_id)
        token_ids = torch.cat([self._template[:at], placeholders, self._template[at + 1 :]])
        if self._max_tokens is not None and len(token_ids) >= self._max_tokens:
            too_long = f"{len(token_ids):,} tokens, and the model takes {self._max_tokens:,}; lower model.max_pixels"
            raise image_error(example, "encode", ValueError(too_long))
        position_ids = mrope_position_ids(token_ids, grid, self.image_token_id, merge_size)
        pixels = features["pixel_values"]
        key = image_key(pixels, grid) if self._has_image_keys else None
        return EncodedPrompt(example, token_ids, position_ids, pixels, grid, self._question, key)

    def encode_answer(self, text: str) -> Tensor:
        """(length,) int64 tokens of a completion, end token included. What looks like a special token is text.

        Raises:
            ValueError: when the text holds the image token and the tokenizer does not know it as special.
        """
        token_ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if self.image_token_id in token_ids:
            raise ValueError(f"answer {text!r} holds the model's image token. Rename the place.")
        return torch.tensor([*token_ids, self.eos_token_id])

    def dummy_group(self) -> Group:
        """A grey picture answered by the end token alone: what a rank without work runs to stay in step."""
        example = Example("dummy", Image.new("RGB", (64, 64), "grey"), (0.0, 0.0))
        return Group(self.encode_prompt(example), [torch.tensor([self.eos_token_id])])

    def decode(self, token_ids: Tensor) -> str:
        """The text of a completion, special tokens left out."""
        return str(self.tokenizer.decode(token_ids.tolist(), skip_special_tokens=True))
