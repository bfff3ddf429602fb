"""Sampling on the trainer's own weights: no copy, no weight synchronisation, no second set of token ids.

Every prompt is prefilled once; its completions decode together on one shared prompt cache. The uniform numbers that
choose the tokens are a function of (seed, prompt) alone, so a completion does not depend on what it was batched with
or on how many ranks there are.

Shapes: P prompts, G group, V vocabulary, M max_new_tokens.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from geogrpo.distributed import gathered_parameters
from geogrpo.policy.attention import DecodeLayout
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.types import EncodedPrompt, Rollouts


class NativeEngine:
    """Samples completions from a policy.

    Args:
        processor: turns tokens into text and knows the end token.
    """

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        *,
        group_size: int,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[tuple[int, ...]],
        on_finished: Callable[[int, str], None] | None = None,
    ) -> Rollouts:
        """G completions of every prompt. Every rank must call this, also without prompts.

        Args:
            group_size: completions per prompt, at least 1.
            temperature: of the softmax; 0 is greedy decoding, whose log-probs are those at temperature 1.
            max_new_tokens: longest completion, end token included.
            seeds: one per prompt; equal seeds and prompts give equal completions.
            on_finished: called with the prompt's index in this call and the text of a completion, once for each, as
                soon as it ends, while others still decode; at the end for those cut at the length limit.
        """
        was_training = policy.training
        policy.eval()
        with torch.no_grad(), gathered_parameters(policy):
            if not prompts:
                # The other ranks gather parameters in their prefill: this one must take part.
                policy.prefill(pack([Group(self._processor.dummy_group().prompt, [])]))
                policy.train(was_training)
                return Rollouts([], [], [], [], [])
            token_ids, logprobs, lengths, finished = self._decode(
                policy, prompts, group_size, temperature, max_new_tokens, seeds, on_finished
            )
        policy.train(was_training)
        rows = range(len(prompts) * group_size)
        tokens = [token_ids[row, : lengths[row]] for row in rows]
        texts = [self._processor.decode(row) for row in tokens]
        return Rollouts(
            prompts=list(prompts),
            token_ids=_in_groups(tokens, group_size),
            logprobs=_in_groups([logprobs[row, : lengths[row]] for row in rows], group_size),
            texts=_in_groups(texts, group_size),
            is_finished=_in_groups(finished.tolist(), group_size),
        )

    def _decode(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        group_size: int,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[tuple[int, ...]],
        on_finished: Callable[[int, str], None] | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(P * G, M) token ids and log-probs, (P * G,) lengths and whether the end token came; all on the host."""
        device, eos = policy.device, self._processor.eos_token_id
        num_rows = len(prompts) * group_size
        uniforms = _uniforms(seeds, group_size, max_new_tokens).to(device) if temperature > 0 else None
        logits, prefill = policy.prefill(pack([Group(prompt, []) for prompt in prompts]))
        logits = logits.repeat_interleave(group_size, dim=0)
        layout = DecodeLayout(prefill, group_size, max_new_tokens)
        next_position = torch.tensor([prompt.next_position for prompt in prompts], device=device)
        next_position = next_position.repeat_interleave(group_size)
        token_ids = torch.full((num_rows, max_new_tokens), eos, device=device)
        logprobs = torch.zeros(num_rows, max_new_tokens, device=device)
        lengths = torch.zeros(num_rows, dtype=torch.int64, device=device)
        is_open = torch.ones(num_rows, dtype=torch.bool, device=device)
        for step in range(max_new_tokens):
            chosen, logprob = _choose(logits, temperature, None if uniforms is None else uniforms[:, step])
            # A finished row goes on with end tokens that nobody reads.
            token_ids[:, step] = torch.where(is_open, chosen, eos)
            logprobs[:, step] = logprob
            lengths += is_open
            if on_finished is not None:
                self._report(token_ids[:, : step + 1], is_open & (chosen == eos), group_size, on_finished)
            is_open &= chosen != eos
            if step + 1 == max_new_tokens or not is_open.any():
                break
            logits = policy.decode(token_ids[:, step], next_position + step, layout)
        if on_finished is not None:
            self._report(token_ids, is_open, group_size, on_finished)
        return token_ids.cpu(), logprobs.cpu(), lengths.cpu(), ~is_open.cpu()

    def _report(
        self, token_ids: Tensor, is_over: Tensor, group_size: int, on_finished: Callable[[int, str], None]
    ) -> None:
        """Hand over the completions in the rows where is_over (P * G,); token_ids (P * G, length)."""
        for row in is_over.nonzero().flatten().tolist():
            on_finished(row // group_size, self._processor.decode(token_ids[row]))


def _choose(logits: Tensor, temperature: float, uniform: Tensor | None) -> tuple[Tensor, Tensor]:
    """The next token (N,) and its log-prob (N,), greedy or by inverting the cumulative distribution at `uniform`."""
    if uniform is None:
        chosen = logits.argmax(-1)
        scaled = logits
    else:
        scaled = logits / temperature
        cumulative = scaled.softmax(-1).cumsum(-1)
        # The first token whose cumulative probability exceeds the draw: never one of probability 0. Rounding can
        # put the draw at the total itself; the last token with any probability is then the right one.
        threshold = uniform[:, None] * cumulative[:, -1:]
        last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
        chosen = torch.searchsorted(cumulative, threshold, right=True).minimum(last).squeeze(-1)
    return chosen, scaled.log_softmax(-1).gather(-1, chosen[:, None]).squeeze(-1)


def _uniforms(seeds: Sequence[tuple[int, ...]], group_size: int, max_new_tokens: int) -> Tensor:
    """(P * G, M) float32 in [0, 1), each prompt's numbers from its own seed."""
    shape = (group_size, max_new_tokens)
    draws = [np.random.default_rng(seed).random(shape, dtype=np.float32) for seed in seeds]
    return torch.from_numpy(np.concatenate(draws))


def _in_groups(rows: list, group_size: int) -> list[list]:
    return [rows[start : start + group_size] for start in range(0, len(rows), group_size)]
