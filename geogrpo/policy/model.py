"""The policy: a transformers vision-language model that turns packed groups into per-token log-probs or their loss.

Head, log-probs and loss are inside the module, so that FSDP2's hooks gather the head's weight exactly once.

Shapes: T packed tokens, R rows that are scored, S scored tokens, P prompts, G group, W hidden, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective, linear_grpo_loss, token_logprobs
from geogrpo_kernels.launch import matmul_f32
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.last_block import LastBlock
from geogrpo.policy.layouts import LAYOUTS, PackedLayout, choose_layout
from geogrpo.policy.packing import to_device
from geogrpo.policy.vision_cache import Features, VisionCache
from geogrpo.types import PackedBatch


class Policy(nn.Module):
    """Wraps a model made for image and text (`model.model` the backbone, `model.lm_head` the head).

    Args:
        model: Qwen2-VL, Qwen2.5-VL or Qwen3-VL, its language model using ATTENTION_NAME.
        forbidden_ids: (F,) int64 tokens that can never be sampled.
        attention: "auto" or a key of LAYOUTS.
    """

    def __init__(self, model: PreTrainedModel, forbidden_ids: Tensor, attention: str = "auto") -> None:
        super().__init__()
        self.model = model
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
    def attention(self) -> str:
        """The key of LAYOUTS that packed rows are computed with, on this device."""
        head_dim = self.model.model.language_model.layers[0].self_attn.head_dim
        return choose_layout(self._attention, self.device, self.dtype, head_dim)

    def forward(self, batch: PackedBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability of each target and entropy at each scored position: two (S,) float32, nats."""
        return token_logprobs(*self._scored(batch), temperature=temperature, forbidden_ids=self.forbidden_ids)

    def loss(self, batch: PackedBatch, objective: PolicyObjective, temperature: float = 1.0) -> PolicyLoss:
        """Loss of the targets, its gradient computed with it; objective's tensors are (S,) on the policy's device."""
        return linear_grpo_loss(
            *self._scored(batch), objective, temperature=temperature, forbidden_ids=self.forbidden_ids
        )

    def prefill(self, batch: PackedBatch) -> tuple[Tensor, PackedLayout]:
        """Run prompts alone: (P, V) float32 logits of the first completion token, and the prompts' key-value cache."""
        batch = self._moved(batch)
        layout = self._layout(batch, keep_prompt_kv=True)
        # The rows that are scored are the prompts' last tokens.
        return self._logits(self._hidden(batch, layout)), layout

    def decode(self, token_ids: Tensor, positions: Tensor, layout: DecodeLayout) -> Tensor:
        """Run one token of each completion: (P * G,) ids and rotary positions -> (P * G, V) float32 logits."""
        output = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(token_ids)[None],
            position_ids=positions.expand(3, 1, -1),
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
        last = self.model.model.language_model.layers[-1]
        if self.vision_cache is None:
            images: dict[str, Any] = {"pixel_values": batch.pixel_values, "image_grid_thw": batch.image_grid_thw}
        else:
            images = {"mm_encoder_outputs": {"image": self._image_features(batch, self.vision_cache)}}
        output = self.model.model(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[:, None],
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
        first, *deeper = zip(*per_image, strict=True)
        output: Any = BaseModelOutputWithPooling()
        output.pooler_output = first
        output.deepstack_features = list(deeper)
        return output

    @torch.no_grad()
    def _encode(self, batch: PackedBatch, images: Sequence[int]) -> list[Features]:
        """What the vision tower says of some images of the batch, on the host."""
        patches = batch.pixel_values.split(batch.image_grid_thw.prod(-1).tolist())  # on the host
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output = self.model.model.get_image_features(
                torch.cat([patches[i] for i in images]).to(self.device), batch.image_grid_thw[list(images)]
            )
        parts = [output.pooler_output, *(getattr(output, "deepstack_features", None) or [])]
        return [[part[i].to("cpu", self.dtype) for part in parts] for i in range(len(images))]

    def _logits(self, hidden: Tensor) -> Tensor:
        """(N, V) float32 logits with the forbidden ids at -inf."""
        weight = self.model.lm_head.weight
        logits = matmul_f32(hidden, weight.T, out=hidden.new_empty(len(hidden), len(weight), dtype=torch.float32))
        return logits.index_fill_(-1, self.forbidden_ids, -torch.inf)
