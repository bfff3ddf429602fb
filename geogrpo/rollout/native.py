"""Sampling on the trainer's own weights: no copy, no weight synchronisation, no second set of token ids.

Every prompt is prefilled once; its completions decode together on one shared prompt cache. A prompt whose completions
have all ended leaves the batch and makes room for a waiting one; when none waits, single completions leave too. The
uniform numbers that choose the tokens are a function of (seed, prompt) alone, so a completion does not depend on what
it was batched with or on how many ranks there are.

Shapes: P prompts, G group, V vocabulary, M max_new_tokens. Of those in the batch: p prompts with g rows each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geogrpo.clock import Clock
from geogrpo.distributed import gathered_parameters
from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack, split_by_budget
from geogrpo.policy.processing import Processor
from geogrpo.types import EncodedPrompt, Rollouts

MAX_ROWS = 1024
"""Completions decoded at once, unless told otherwise."""
PREFILL_TOKENS = 32_768
"""Unique tokens that are prefilled at once, where a prompt is not longer."""
SHRINK_BELOW_SHARE = 0.75
"""The batch is made smaller when it would keep at most this share of its rows: to copy its cache takes time."""

OnText = Callable[[int, str], None]


class NativeEngine:
    """Samples completions from a policy.

    Args:
        processor: turns tokens into text and knows the end token.
        max_rows: completions decoded at once, of at least one prompt; further prompts join as others end.
    """

    def __init__(self, processor: Processor, max_rows: int = MAX_ROWS) -> None:
        self._processor, self._max_rows = processor, max_rows

    def sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        *,
        group_size: int,
        temperature: float,
        max_new_tokens: int,
        seeds: Sequence[tuple[int, ...]],
        on_finished: OnText | None = None,
        on_text: OnText | None = None,
        clock: Clock | None = None,
    ) -> Rollouts:
        """G completions of every prompt. Every rank must call this, also without prompts.

        Args:
            group_size: completions per prompt, at least 1.
            temperature: of the softmax; 0 is greedy decoding, whose log-probs are those at temperature 1.
            max_new_tokens: longest completion, end token included.
            seeds: one per prompt; equal seeds and prompts give equal completions.
            on_finished: called with the prompt's index in this call and the text of a completion, once for each, as
                soon as it ends, while others still decode.
            on_text: called with the prompt's index and the text so far of a completion, after each of its tokens.
            clock: counts the phases prefill and decode.
        """
        how = _SamplingOptions(group_size, temperature, max_new_tokens, on_finished, on_text)
        was_training = policy.training
        policy.eval()
        try:
            return self._sample(policy, prompts, seeds, how, clock or Clock(policy.device))
        finally:
            policy.train(was_training)

    def _sample(
        self,
        policy: Policy,
        prompts: Sequence[EncodedPrompt],
        seeds: Sequence[tuple[int, ...]],
        how: "_SamplingOptions",
        clock: Clock,
    ) -> Rollouts:
        with torch.no_grad(), gathered_parameters(policy):
            if not prompts:
                # The other ranks gather parameters in their prefill: this one must take part.
                policy.prefill(pack([Group(self._processor.dummy_group().prompt, [])]))
                return Rollouts([], [], [], [], [])
            decoding = _Decoding(policy, self._processor, prompts, seeds, how)
            decoding.run(max(1, self._max_rows // how.group_size), clock)
            return decoding.rollouts()


@dataclass(frozen=True)
class _SamplingOptions:
    """Arguments of `sample`."""

    group_size: int
    temperature: float
    max_new_tokens: int
    on_finished: OnText | None
    on_text: OnText | None


class _Decoding:
    """One call of `sample`: what was sampled so far for all P * G completions, and the batch that decodes."""

    def __init__(
        self,
        policy: Policy,
        processor: Processor,
        prompts: Sequence[EncodedPrompt],
        seeds: Sequence[tuple[int, ...]],
        how: _SamplingOptions,
    ) -> None:
        self._policy, self._processor, self._prompts, self._how = policy, processor, prompts, how
        self._group_size = group_size = how.group_size
        max_new_tokens = how.max_new_tokens
        device, num_rows = policy.device, len(prompts) * group_size
        self._uniforms = _uniforms(seeds, group_size, max_new_tokens).to(device) if how.temperature > 0 else None
        self._token_ids = torch.full((num_rows, max_new_tokens), processor.eos_token_id, device=device)
        self._logprobs = torch.zeros(num_rows, max_new_tokens, device=device)
        self._lengths = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._is_open = torch.ones(num_rows, dtype=torch.bool, device=device)
        self._is_finished = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self._next_position = torch.tensor([prompt.next_position for prompt in prompts], device=device)
        # The batch: (p, g) which of the P * G completions each row is, their logits (p * g, V), what they attend to
        self._rows = torch.zeros(0, group_size, dtype=torch.int64, device=device)
        self._logits = torch.zeros(0, device=device)
        self._layout: DecodeLayout | None = None

    def run(self, max_prompts: int, clock: Clock) -> None:
        """Decode until every completion has ended, at most max_prompts prompts at once."""
        waiting = list(range(len(self._prompts)))
        while waiting or len(self._rows):
            room = max_prompts - len(self._rows)
            if waiting and room > 0:
                joining, waiting = waiting[:room], waiting[room:]
                num_tokens = sum(len(self._prompts[i].token_ids) for i in joining)
                with clock.phase("prefill", num_tokens):
                    self._admit(joining)
            longest = int(self._rows.numel()) * self._how.max_new_tokens
            with clock.phase("decode", sum(len(self._prompts[i].token_ids) for i in self._in_batch()) + longest):
                self._decode(may_narrow=not waiting)

    def _in_batch(self) -> list[int]:
        return (self._rows[:, 0] // self._group_size).tolist()

    def rollouts(self) -> Rollouts:
        """Everything, on the host."""
        token_ids, logprobs, lengths = self._token_ids.cpu(), self._logprobs.cpu(), self._lengths.tolist()
        tokens = [token_ids[row, :length] for row, length in enumerate(lengths)]
        texts = [self._processor.decode(ids) for ids in tokens]
        return Rollouts(
            prompts=list(self._prompts),
            token_ids=_in_groups(tokens, self._group_size),
            logprobs=_in_groups([logprobs[row, :length] for row, length in enumerate(lengths)], self._group_size),
            texts=_in_groups(texts, self._group_size),
            is_finished=_in_groups(self._is_finished.tolist(), self._group_size),
        )

    def _admit(self, joining: list[int]) -> None:
        """Prefill prompts and take all of their completions into the batch."""
        groups = [Group(self._prompts[i], []) for i in joining]
        for part in split_by_budget(groups, PREFILL_TOKENS):
            logits, prefill = self._policy.prefill(pack([groups[k] for k in part]))
            layout = DecodeLayout(prefill, self._group_size, self._how.max_new_tokens)
            first = torch.tensor([joining[k] for k in part], device=logits.device)[:, None] * self._group_size
            rows = first + torch.arange(self._group_size, device=logits.device)
            logits = logits.repeat_interleave(self._group_size, dim=0)
            if self._layout is None:
                self._rows, self._logits, self._layout = rows, logits, layout
            else:
                self._rows, self._logits = torch.cat([self._rows, rows]), torch.cat([self._logits, logits])
                self._layout.extend(layout)

    def _decode(self, *, may_narrow: bool) -> None:
        """Tokens for the whole batch until a prompt's completions have all ended, or few rows are left."""
        while len(self._rows):
            self._choose_tokens()
            if self._drop_ended(may_narrow=may_narrow):
                self._forward()
                return
            self._forward()

    def _choose_tokens(self) -> None:
        assert self._layout is not None
        rows = self._rows.flatten()
        ages = torch.tensor(self._layout.ages, device=rows.device).repeat_interleave(self._rows.shape[1])
        uniform = None if self._uniforms is None else self._uniforms[rows, ages]
        chosen, logprob = _choose(self._logits, self._how.temperature, uniform)
        # A completion that has ended goes on with end tokens that nobody reads.
        is_open, eos = self._is_open[rows], self._processor.eos_token_id
        self._token_ids[rows, ages] = torch.where(is_open, chosen, eos)
        self._logprobs[rows, ages] = logprob
        self._lengths[rows] += is_open
        is_finished = is_open & (chosen == eos)
        is_over = is_finished | (is_open & (ages + 1 == self._how.max_new_tokens))
        self._is_finished[rows] |= is_finished
        self._is_open[rows] &= ~is_over
        if self._how.on_text is not None:
            self._report(rows[is_open], self._how.on_text)
        if self._how.on_finished is not None:
            self._report(rows[is_over], self._how.on_finished)

    def _report(self, rows: Tensor, receive: OnText) -> None:
        """Hand over the texts of some of the P * G completions."""
        for row in rows.tolist():
            receive(row // self._group_size, self._processor.decode(self._token_ids[row, : self._lengths[row]]))

    def _drop_ended(self, *, may_narrow: bool) -> bool:
        """Take what has ended out of the batch where that is worth it; whether a prompt's place became free."""
        is_open = self._is_open[self._rows]
        num_open = is_open.sum(-1).tolist()
        stay = [i for i, number in enumerate(num_open) if number]
        width = max(num_open) if may_narrow else self._rows.shape[1]
        if not stay:
            self._rows, self._layout = self._rows[:0], None
            return True
        assert self._layout is not None
        # A completion at the length limit has no place for another token: its prompt must go.
        is_full = max(self._layout.ages) + 1 == self._how.max_new_tokens
        if not is_full and len(stay) * width > SHRINK_BELOW_SHARE * self._rows.numel():
            return False
        prompts = torch.tensor(stay, device=is_open.device)
        # Open rows first; those that have ended fill up the narrower prompts.
        order = (~is_open[prompts]).to(torch.int8).argsort(dim=-1, stable=True)[:, :width]
        places = prompts[:, None] * self._rows.shape[1] + order
        self._layout.keep(prompts, places)
        self._rows = self._rows[prompts].gather(-1, order)
        return True

    def _forward(self) -> None:
        if self._layout is None:
            return
        rows = self._rows.flatten()
        ages = torch.tensor(self._layout.ages, device=rows.device).repeat_interleave(self._rows.shape[1])
        positions = self._next_position[rows // self._group_size] + ages
        self._logits = self._policy.decode(self._token_ids[rows, ages], positions, self._layout)


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
