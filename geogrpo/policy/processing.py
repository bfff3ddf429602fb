"""Examples -> what the model reads, and tokens -> text. Image processor and tokenizer are used directly: transformers'
AutoProcessor would need torchvision, which has no CPU build.
"""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from geogrpo.images import image_error, open_image
from geogrpo.policy.families import find_family
from geogrpo.policy.packing import Group
from geogrpo.policy.vision_cache import image_key
from geogrpo.prompts import PROMPTS
from geogrpo.types import EncodedPrompt, Example


class Processor:
    """Encodes prompts and answers for one model.

    Args:
        tokenizer: with a chat template and the family's vision tokens.
        image_processor: of the same family.
        prompt: a key of PROMPTS.
        model_config: the model's, as transformers loads it.
        has_image_keys: whether prompts carry an image_key, which takes a millisecond for a large image.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Any,
        prompt: str,
        model_config: Any,
        *,
        has_image_keys: bool = False,
    ) -> None:
        if prompt not in PROMPTS:
            raise ValueError(f"answer.prompt {prompt!r} is unknown. Known: {', '.join(PROMPTS)}.")
        self.tokenizer, self.image_processor = tokenizer, image_processor
        self._family, self._has_image_keys = find_family(model_config), has_image_keys
        self.image_token_id: int = model_config.image_token_id
        self._max_tokens: int = model_config.text_config.max_position_embeddings
        self.eos_token_id: int = tokenizer.eos_token_id
        self._question = PROMPTS[prompt]
        content: Any = [{"type": "image"}, {"type": "text", "text": self._question}]
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        token_ids = tokenizer.encode(text, add_special_tokens=False)
        if token_ids.count(self.image_token_id) != 1:
            raise ValueError("the model's chat template must place exactly one image token for one image.")
        at = token_ids.index(self.image_token_id)
        before, after = self._family.around_image(tokenizer)
        self._before_image = torch.tensor([*token_ids[:at], *before], dtype=torch.int64)
        self._after_image = torch.tensor([*after, *token_ids[at + 1 :]], dtype=torch.int64)

    def encode_prompt(self, example: Example) -> EncodedPrompt:
        """The example's image and question.

        Raises:
            ValueError: naming example and image, when it cannot be read, or not be encoded: Qwen's image processors
                refuse one more than 200 times as long as wide; or when it is more tokens than the model can take,
                as no image is ever cut.
        """
        picture = open_image(example)
        try:
            pixels, grid = self._family.encode_image(self.image_processor, picture)
        except ValueError as error:
            raise image_error(example, "encode", error) from error
        placeholders = torch.full((int(grid.prod()) // self._family.merge_size**2,), self.image_token_id)
        token_ids = torch.cat([self._before_image, placeholders, self._after_image])
        if len(token_ids) >= self._max_tokens:
            too_long = f"{len(token_ids):,} tokens, and the model takes {self._max_tokens:,}; lower model.max_pixels"
            raise image_error(example, "encode", ValueError(too_long))
        position_ids = self._family.prompt_positions(token_ids, grid)
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
