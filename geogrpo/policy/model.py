"""The policy: a transformers vision-language model that turns packed groups into per-token log-probs or their loss.

Head, log-probs and loss are inside the module, so that FSDP2's hooks gather the head's weight exactly once.

Shapes: T packed tokens, S scored tokens, P prompts, G group, V vocabulary.
"""

import torch
from geogrpo_kernels import PolicyLoss, PolicyObjective, linear_grpo_loss, token_logprobs
from geogrpo_kernels.launch import matmul_f32
from torch import Tensor, nn
from transformers import PreTrainedModel

from geogrpo.policy.attention import DecodeLayout, PackedLayout
from geogrpo.policy.packing import to_device
from geogrpo.types import PackedBatch


class Policy(nn.Module):
    """Wraps a model made for image and text (`model.model` the backbone, `model.lm_head` the head).

    Args:
        model: Qwen2.5-VL or Qwen3-VL, its language model using ATTENTION_NAME.
        forbidden_ids: (F,) int64 tokens that can never be sampled.
    """

    def __init__(self, model: PreTrainedModel, forbidden_ids: Tensor) -> None:
        super().__init__()
        self.model = model
        self.forbidden_ids: Tensor
        self.register_buffer("forbidden_ids", forbidden_ids, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the policy's inputs belong."""
        return self.forbidden_ids.device

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
        batch = to_device(batch, self.device)
        layout = PackedLayout(batch, keep_prompt_kv=True)
        last = batch.prompt_lengths.cumsum(0) - 1
        return self._logits(self._hidden(batch, layout)[last.to(self.device)]), layout

    def decode(self, token_ids: Tensor, positions: Tensor, layout: DecodeLayout) -> Tensor:
        """Run one token of each completion: (P * G,) ids and rotary positions -> (P * G, V) float32 logits."""
        output = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(token_ids)[None],
            position_ids=positions.expand(3, 1, -1),
            use_cache=False,
            layout=layout,
        )
        layout.num_cached += 1
        return self._logits(output.last_hidden_state[0])

    def _scored(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(S, H) hidden states that predict targets, the (V, H) head, and the (S,) targets."""
        batch = to_device(batch, self.device)
        hidden = self._hidden(batch, PackedLayout(batch))
        return hidden.index_select(0, batch.score_index), self.model.lm_head.weight, batch.target_ids

    def _hidden(self, batch: PackedBatch, layout: PackedLayout) -> Tensor:
        output = self.model.model(
            input_ids=batch.input_ids[None],
            position_ids=batch.position_ids[:, None],
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.image_grid_thw,
            use_cache=False,
            layout=layout,
        )
        return output.last_hidden_state[0]

    def _logits(self, hidden: Tensor) -> Tensor:
        """(N, V) float32 logits with the forbidden ids at -inf."""
        weight = self.model.lm_head.weight
        logits = matmul_f32(hidden, weight.T, out=hidden.new_empty(len(hidden), len(weight), dtype=torch.float32))
        return logits.index_fill_(-1, self.forbidden_ids, -torch.inf)
