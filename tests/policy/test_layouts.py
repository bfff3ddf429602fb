"""The ways to compute a packed row, and the rows that the last block computes, against one square mask."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from geogrpo.policy import attention, layouts
from geogrpo.policy.attention import attend_varlen
from geogrpo.policy.layouts import LAYOUTS, choose_layout
from geogrpo.policy.packing import Group, pack

SCALING = 0.3
CPU, BF16 = torch.device("cpu"), torch.bfloat16


def square_mask(groups: Sequence[Group]) -> Tensor:
    """(T, T) bool: True where a row token may look."""
    owner, completion = [], []
    for g, group in enumerate(groups):
        lengths = [len(group.prompt.token_ids)] + [len(c) - 1 for c in group.completions]
        owner += [g] * sum(lengths)
        completion += [c for c, length in enumerate(lengths) for _ in range(length)]
    owner, completion = torch.tensor(owner), torch.tensor(completion)
    same_group = owner[:, None] == owner
    visible = (completion == 0)[None, :] | (completion[:, None] == completion)
    return same_group & visible & torch.ones(len(owner), len(owner)).bool().tril()


def varlen_in_words(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):  # type: ignore[no-untyped-def]
    """What torch.nn.attention.varlen documents, one sequence after another."""
    assert window_size in ((-1, 0), (-1, -1))
    assert (cu_q.dtype, cu_k.dtype) == (torch.int32, torch.int32)
    assert max_q == int(cu_q.diff().max())
    assert max_k == int(cu_k.diff().max())
    outputs = []
    for (q0, q1), (k0, k1) in zip(cu_q.unfold(0, 2, 1).tolist(), cu_k.unfold(0, 2, 1).tolist(), strict=True):
        num_q, num_k = q1 - q0, k1 - k0
        # Causal from the lower right corner: the last query sees every key.
        mask = torch.ones(num_q, num_k, dtype=torch.bool)
        mask = mask.tril(num_k - num_q) if window_size == (-1, 0) else mask
        q, k, v = (x.transpose(0, 1)[None] for x in (query[q0:q1], key[k0:k1], value[k0:k1]))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        outputs.append(seen[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_every_layout_equals_a_square_mask(
    groups: list[Group], name: str, kv_heads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No CPU has variable-length attention; what is checked is what it is asked for.
    monkeypatch.setattr(attention, "_VARLEN", varlen_in_words)
    batch = pack(groups)
    num_tokens = len(batch.input_ids)
    # FlexAttention takes no head narrower than 16 and no float64.
    q, k, v = (torch.randn(heads, num_tokens, 16) for heads in (4, kv_heads, kv_heads))
    expected = F.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=square_mask(groups), scale=SCALING, enable_gqa=kv_heads < 4
    )[0].transpose(0, 1)
    layout = LAYOUTS[name](batch)
    torch.testing.assert_close(layout.attend(0, q, k, v, SCALING), expected)
    rows = layout.scored_rows
    torch.testing.assert_close(layout.attend(0, q[:, rows], k, v, SCALING), expected[rows])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_prefill_keeps_the_prompts_keys(groups: list[Group], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_VARLEN", varlen_in_words)
    batch = pack([Group(group.prompt, []) for group in groups])
    q, k, v = (torch.randn(2, len(batch.input_ids), 16) for _ in range(3))
    layout = LAYOUTS[name](batch, keep_prompt_kv=True)
    layout.attend(3, q, k, v, SCALING)
    assert layout.prompt_kv is not None
    kept_k, kept_v = layout.prompt_kv[3]
    mask = layout.prompt_mask
    assert mask.sum(-1).tolist() == batch.prompt_lengths.tolist()
    assert torch.equal(kept_k.transpose(1, 2)[mask], k.transpose(0, 1))
    assert torch.equal(kept_v.transpose(1, 2)[mask], v.transpose(0, 1))


def test_scored_rows_are_those_that_predict_targets(groups: list[Group]) -> None:
    batch = pack(groups)
    layout = LAYOUTS["padded"](batch)
    assert layout.scored_rows.tolist() == sorted(set(batch.score_index.tolist()))


def test_images_go_through_one_call_where_lengths_may_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(1, 2, 11, 8) for _ in range(3))
    starts = torch.tensor([0, 3, 10, 11])
    module = torch.nn.Module()
    expected, _ = attention.image_attention(module, q, k, v, None, scaling=SCALING, cu_seq_lens_q=starts)
    monkeypatch.setattr(attention, "can_use_varlen", lambda device, dtype, head_dim: True)
    monkeypatch.setattr(attention, "_VARLEN", varlen_in_words)
    actual, _ = attention.image_attention(module, q, k, v, None, scaling=SCALING, cu_seq_lens_q=starts)
    torch.testing.assert_close(actual, expected)


def test_varlen_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(attention, "_VARLEN", lambda *args, **options: seen.append(options))
    q, k = torch.randn(3, 4, 8), torch.randn(3, 2, 8)
    ends = (torch.tensor([0, 3], dtype=torch.int32), 3)
    attend_varlen(q, k, k, ends, ends, SCALING, is_causal=True)
    attend_varlen(q, q, q, ends, ends, SCALING)
    assert seen == [
        {"scale": SCALING, "window_size": (-1, 0), "enable_gqa": True},
        {"scale": SCALING, "window_size": (-1, -1), "enable_gqa": False},
    ]


def test_auto_takes_varlen_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_layout("auto", CPU, BF16) == "padded"
    monkeypatch.setattr(layouts, "can_use_varlen", lambda device, dtype, head_dim: True)
    assert choose_layout("auto", CPU, BF16) == "varlen"
    assert choose_layout("padded", CPU, BF16) == "padded"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("varlen", "varlen needs CUDA.*here is cpu, torch.bfloat16.*Use auto or padded"),
        ("flex", "flex needs CUDA.*Use padded"),
        ("eager", "must be auto or one of padded, varlen, flex, got 'eager'"),
    ],
)
def test_what_cannot_run_here_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_layout(name, CPU, BF16)
