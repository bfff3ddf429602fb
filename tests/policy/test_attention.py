"""The attention layouts against one square mask over the whole row."""

import pytest
import torch
import torch.nn.functional as F

from geogrpo.policy.attention import image_attention
from geogrpo.policy.decoding import DecodeLayout
from geogrpo.policy.layouts import PaddedLayout, group_starts
from geogrpo.policy.packing import Group, pack

SCALING = 0.3


def test_starts_of_prompts_and_completions(groups: list[Group]) -> None:
    batch = pack(groups)
    prompt_start, completion_start = group_starts(batch)
    for start, group in zip(prompt_start.tolist(), groups, strict=True):
        tokens = batch.input_ids[start : start + len(group.prompt.token_ids)]
        assert torch.equal(tokens, group.prompt.token_ids)
    completions = [completion for group in groups for completion in group.completions]
    for start, completion in zip(completion_start.tolist(), completions, strict=True):
        assert torch.equal(batch.input_ids[start : start + len(completion) - 1], completion[:-1])


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_decoding_step_by_step_equals_the_packed_row(groups: list[Group], kv_heads: int) -> None:
    length = 5
    equal = [Group(group.prompt, [torch.arange(length + 1)] * 3) for group in groups]
    batch = pack(equal)
    q, k, v = (torch.randn(heads, len(batch.input_ids), 8, dtype=torch.float64) for heads in (2, kv_heads, kv_heads))
    expected = PaddedLayout(batch).attend(0, q, k, v, SCALING)
    prompts = pack([Group(group.prompt, []) for group in equal])
    prompt_start, completion_start = group_starts(batch)
    where = torch.cat([torch.arange(n) + s for s, n in zip(prompt_start, batch.prompt_lengths, strict=True)])
    prefill = PaddedLayout(prompts, keep_prompt_kv=True)
    torch.testing.assert_close(prefill.attend(0, q[:, where], k[:, where], v[:, where], SCALING), expected[where])
    layout = DecodeLayout(prefill, group_size=3, max_new_tokens=length)
    for step in range(length):
        at = completion_start + step
        actual = layout.attend(0, q[:, at], k[:, at], v[:, at], SCALING)
        layout.advance()
        torch.testing.assert_close(actual, expected[at])


@pytest.mark.parametrize("lengths", [[4, 4, 4], [3, 7, 1]])
def test_patches_see_their_own_image_only(lengths: list[int]) -> None:
    ends = torch.tensor(lengths).cumsum(0)
    q, k, v = (torch.randn(1, 2, int(ends[-1]), 8, dtype=torch.float64) for _ in range(3))
    module = torch.nn.Module()
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
    actual, _ = image_attention(module, q, k, v, None, scaling=SCALING, cu_seq_lens_q=starts)
    for begin, end in zip(starts[:-1], ends, strict=True):
        expected = F.scaled_dot_product_attention(
            q[:, :, begin:end], k[:, :, begin:end], v[:, :, begin:end], scale=SCALING
        )
        torch.testing.assert_close(actual[:, begin:end], expected.transpose(1, 2))
