"""The policy: a transformers vision-language model that turns packed groups into per-token log-probs or their loss.

Head, log-probs and loss are inside the module, so that FSDP2's hooks gather the head's weight exactly once.

Shapes: T packed tokens, R rows that are scored, S scored tokens, P prompts, G group, W hidden, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from geogrpo_kernels import PolicyLoss, linear_exact_kl, token_logprobs
from geogrpo_kernels.launch import matmul_f32
from torch import Tensor, nn
from transformers import PreTrainedModel

from geogrpo.losses import Objective, head_loss
from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.families import find_family
from geogrpo.policy.last_block import LastBlock
from geogrpo.policy.layouts import LAYOUTS, PackedLayout, choose_layout
from geogrpo.policy.packing import to_device
from geogrpo.policy.vision_cache import Features, VisionCache
from geogrpo.types import PackedBatch


class Policy(nn.Module):
    """Wraps a model made for image and text (`model.model` the backbone, `model.lm_head` the head).

    Args:
        model: of one of FAMILIES, its language model using ATTENTION_NAME.
        forbidden_ids: (F,) int64 tokens that can never be sampled.
        attention: "auto" or a key of LAYOUTS.
    """

    def __init__(self, model: PreTrainedModel, forbidden_ids: Tensor, attention: str = "auto") -> None:
        super().__init__()
        self.model = model
        self.family = find_family(model.config)
        self.forbidden_ids: Tensor
        self.register_buffer("forbidden_ids", forbidden_ids, persistent=False)
        self._attention = attention
        self.dtype = torch.float32
        """What forward and backward compute in; shard_policy sets it."""
        self.vision_cache: VisionCache | None = None
        """Where a frozen vision tower's features are kept; None computes them each time."""

    @property
    def device(self) -> torch.device:
        """Where the policy's inputs belong."""
        return self.forbidden_ids.device

    @property
    def language_model(self) -> Any:
        """The decoder that reads text and image features; its blocks are `layers`."""
        return self.model.model.language_model

    @property
    def vision_blocks(self) -> Any:
        """The blocks of the vision tower, an nn.ModuleList."""
        return self.model.model.get_submodule(self.family.blocks)

    def vision_parameters(self) -> Iterator[nn.Parameter]:
        """Of the vision tower and its aligner: all that image features depend on."""
        for name in self.family.vision_parts:
            yield from self.model.model.get_submodule(name).parameters()

    def aligner_parameters(self) -> Iterator[nn.Parameter]:
        """Of what leads from the vision tower to the language model."""
        for path in self.family.aligners:
            yield from self.model.model.get_submodule(path).parameters()

    def tower_parameters(self) -> Iterator[nn.Parameter]:
        """Of the vision tower alone."""
        aligner = set(self.aligner_parameters())
        return (parameter for parameter in self.vision_parameters() if parameter not in aligner)

    def share_vision(self, other: "Policy") -> None:
        """See with the vision tower of another policy, of the same model, and with its cache."""
        for name in self.family.vision_parts:
            setattr(self.model.model, name, other.model.model.get_submodule(name))
        self.vision_cache = other.vision_cache

    @property
    def attention(self) -> str:
        """The key of LAYOUTS that packed rows are computed with, on this device."""
        head_dim = self.language_model.layers[0].self_attn.head_dim
        return choose_layout(self._attention, self.device, self.dtype, head_dim)

    def forward(self, batch: PackedBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability of each target and entropy at each scored position: two (S,) float32, nats."""
        return token_logprobs(*self._scored(batch), temperature=temperature, forbidden_ids=self.forbidden_ids)

    def loss(self, batch: PackedBatch, objective: Objective, temperature: float = 1.0) -> PolicyLoss:
        """Loss of the targets; objective's tensors are (S,) on the policy's device."""
        return head_loss(*self._scored(batch), objective, temperature=temperature, forbidden_ids=self.forbidden_ids)

    def hidden_states(self, batch: PackedBatch) -> Tensor:
        """(S, W) hidden states that predict the targets."""
        return self._scored(batch)[0]

    def exact_kl(
        self, batch: PackedBatch, ref_hidden: Tensor, ref_weight: Tensor | None, temperature: float = 1.0
    ) -> Tensor:
        """(S,) float32 KL to a reference at each scored position, over the whole vocabulary, nats.

        Args:
            ref_hidden: (S, W) the reference's hidden states there.
            ref_weight: (V, W) its head; None for the policy's own.
        """
        hidden, weight, _ = self._scored(batch)
        ref_weight = weight if ref_weight is None else ref_weight
        return linear_exact_kl(
            hidden, weight, ref_hidden, ref_weight, temperature=temperature, forbidden_ids=self.forbidden_ids
        )

    def prefill(self, batch: PackedBatch) -> tuple[Tensor, PackedLayout]:
        """Run prompts alone: (P, V) float32 logits of the first completion token, and the prompts' key-value cache."""
        batch = self._moved(batch)
        layout = self._layout(batch, keep_prompt_kv=True)
        # The rows that are scored are the prompts' last tokens.
        return self._logits(self._hidden(batch, layout)), layout

    def decode(self, token_ids: Tensor, positions: Tensor, layout: DecodeLayout) -> Tensor:
        """Run one token of each completion: (P * G,) ids and rotary positions -> (P * G, V) float32 logits."""
        output = self.language_model(
            inputs_embeds=self.model.get_input_embeddings()(token_ids)[None],
            position_ids=self.family.position_argument(positions.expand(3, -1)),
            use_cache=False,
            layout=layout,
        )
        layout.advance()
        return self._logits(output.last_hidden_state[0])

    def _moved(self, batch: PackedBatch) -> PackedBatch:
        # Pixels whose features are cached are never read.
        return to_device(batch, self.device, with_pixels=self.vision_cache is None)

    def _layout(self, batch: PackedBatch, *, keep_prompt_kv: bool = False) -> PackedLayout:
        return LAYOUTS[self.attention](batch, keep_prompt_kv=keep_prompt_kv)

    def _scored(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(S, W) hidden states that predict targets, the (V, W) head, and the (S,) targets."""
        batch = self._moved(batch)
        layout = self._layout(batch)
        rows = torch.searchsorted(layout.scored_rows, batch.score_index)
        hidden = self._hidden(batch, layout).index_select(0, rows)
        return hidden, self.model.lm_head.weight, batch.target_ids

    def _hidden(self, batch: PackedBatch, layout: PackedLayout) -> Tensor:
        """(R, W) last hidden states of layout.scored_rows."""
        last = self.language_model.layers[-1]
        if self.vision_cache is None:
            images: dict[str, Any] = self.family.image_arguments(batch.pixel_values, batch.image_grid_thw)
        else:
            images = {"mm_encoder_outputs": {"image": self._image_features(batch, self.vision_cache)}}
        output = self.model.model(
            input_ids=batch.input_ids[None],
            position_ids=self.family.position_argument(batch.position_ids),
            use_cache=False,
            layout=layout,
            **images,
        )
        hidden = output.last_hidden_state[0]
        return hidden if isinstance(last, LastBlock) else hidden.index_select(0, layout.scored_rows)

    def _image_features(self, batch: PackedBatch, cache: VisionCache) -> Any:
        """The images' features as the vision tower gives them, only those encoded that the cache does not hold."""
        keys = batch.image_keys
        if len(keys) != len(batch.image_grid_thw):
            raise ValueError("prompts need an image_key where vision features are cached: see load_processor.")
        found = {key: cache.get(key) for key in dict.fromkeys(keys)}
        missing = [key for key, features in found.items() if features is None]
        if missing:
            for key, features in zip(missing, self._encode(batch, [keys.index(key) for key in missing]), strict=True):
                found[key] = features
                cache.put(key, features)
        per_image = [[part.to(self.device, non_blocking=True) for part in found[key] or []] for key in keys]
        return self.family.join_features(per_image)

    @torch.no_grad()
    def _encode(self, batch: PackedBatch, images: Sequence[int]) -> list[Features]:
        """What the vision tower says of some images of the batch, on the host."""
        rows = batch.pixel_values.split(self.family.rows_per_image(batch.image_grid_thw))  # on the host
        grid = batch.image_grid_thw[list(images)]
        pixels = torch.cat([rows[i] for i in images]).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.model.model.get_image_features(**self.family.image_arguments(pixels, grid))
        per_image = self.family.split_features(output, grid)
        return [[part.to("cpu", self.dtype) for part in parts] for parts in per_image]

    def _logits(self, hidden: Tensor) -> Tensor:
        """(N, V) float32 logits with the forbidden ids at -inf."""
        weight = self.model.lm_head.weight
        logits = matmul_f32(hidden, weight.T, out=hidden.new_empty(len(hidden), len(weight), dtype=torch.float32))
        return logits.index_fill_(-1, self.forbidden_ids, -torch.inf)
