"""The dense path: every completion with its own copy of prompt and image, padded, as trainers that share nothing do it.

The backbone is transformers' own with its causal SDPA attention and its own positions; the head is ours and sees
completion positions only. So it differs from the shared path in the sharing alone, and is its oracle.

Shapes: as in types.PackedBatch; L longest sequence, H hidden.
"""

import torch
from geogrpo_kernels import PolicyLoss, token_logprobs
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerBase

from geogrpo.losses import Objective, head_loss
from geogrpo.policy.load import forbidden_ids
from geogrpo.policy.model import Policy
from geogrpo.types import PackedBatch


class DensePolicy(Policy):
    """A policy for optimization.update whose forward pass shares nothing."""

    def forward(self, batch: PackedBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """See Policy.forward."""
        return token_logprobs(*self._scored_tokens(batch), temperature=temperature, forbidden_ids=self.forbidden_ids)

    def loss(self, batch: PackedBatch, objective: Objective, temperature: float = 1.0) -> PolicyLoss:
        """See Policy.loss."""
        return head_loss(
            *self._scored_tokens(batch), objective, temperature=temperature, forbidden_ids=self.forbidden_ids
        )

    def _scored_tokens(self, batch: PackedBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(S, H) hidden states that predict targets, the (V, H) head, and the (S,) targets."""
        prompts, completions = unpack(batch)
        of_prompt = batch.completion_prompt.tolist()
        sequences = [torch.cat([prompts[p], completion]) for p, completion in zip(of_prompt, completions, strict=True)]
        input_ids = pad_sequence(sequences, batch_first=True).to(self.device)
        attention_mask = pad_sequence([torch.ones_like(row) for row in sequences], batch_first=True).to(self.device)
        images = batch.pixel_values.split(batch.image_grid_thw.prod(-1).tolist())
        hidden = self.model.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            mm_token_type_ids=(input_ids == self.model.config.image_token_id).int(),
            pixel_values=torch.cat([images[p] for p in of_prompt]).to(self.device),
            image_grid_thw=batch.image_grid_thw[batch.completion_prompt].to(self.device),
            use_cache=False,
        ).last_hidden_state
        # The position before a token predicts it.
        starts = batch.prompt_lengths[batch.completion_prompt] - 1
        pieces = [
            hidden[row, start : start + len(completion)]
            for row, (start, completion) in enumerate(zip(starts.tolist(), completions, strict=True))
        ]
        return torch.cat(pieces), self.model.lm_head.weight, batch.target_ids.to(self.device)


def unpack(batch: PackedBatch) -> tuple[list[Tensor], list[Tensor]]:
    """The tokens of every prompt and of every completion, last tokens included, from a row with one image a prompt."""
    assert len(batch.image_grid_thw) == len(batch.prompt_lengths)
    group_lengths = batch.prompt_lengths.index_add(0, batch.completion_prompt, batch.completion_lengths)
    groups = batch.input_ids.split(group_lengths.tolist())
    prompts = [group[:length] for group, length in zip(groups, batch.prompt_lengths.tolist(), strict=True)]
    return prompts, list(batch.target_ids.split((batch.completion_lengths + 1).tolist()))


def load_dense_policy(folder: str, tokenizer: PreTrainedTokenizerBase) -> DensePolicy:
    """The model in `folder` in float32 on the CPU, for distributed.shard_policy."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    return DensePolicy(model, forbidden_ids(tokenizer, model.config))
