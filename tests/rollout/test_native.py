"""Sampling on the trainer's own weights."""

from pathlib import Path

import pytest
import torch
from conftest import model_config

from geogrpo.distributed import gathered_parameters, shard_policy
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.rollout import make_engine, native
from geogrpo.rollout.native import NativeEngine, _choose
from geogrpo.types import EncodedPrompt, Example, Rollouts

SEEDS = [(7, i) for i in range(4)]


@pytest.fixture
def prompts(processor: Processor, examples: list[Example]) -> list[EncodedPrompt]:
    return [processor.encode_prompt(example) for example in examples]


@pytest.fixture
def answering(answering_folder: Path) -> tuple[Policy, Processor]:
    """A model whose completions end, after answers of several lengths."""
    processor = load_processor(model_config(answering_folder), "short")
    return load_policy(model_config(answering_folder), processor.tokenizer), processor


def sample(policy: Policy, processor: Processor, prompts: list[EncodedPrompt], **options: object) -> Rollouts:
    settings = {"group_size": 3, "temperature": 0.8, "max_new_tokens": 12, "seeds": SEEDS[: len(prompts)]} | options
    return NativeEngine(processor).sample(policy, prompts, **settings)


def test_sampled_logprobs_equal_those_recomputed_in_training(
    policy: Policy, processor: Processor, prompts: list[EncodedPrompt]
) -> None:
    rollouts = sample(policy, processor, prompts)
    groups = [Group(prompt, ids) for prompt, ids in zip(rollouts.prompts, rollouts.token_ids, strict=True)]
    recomputed, _ = policy(pack(groups), 0.8)
    sampled = torch.cat([row for group in rollouts.logprobs for row in group])
    torch.testing.assert_close(sampled, recomputed.detach(), rtol=1e-5, atol=1e-5)


def test_completions_do_not_depend_on_what_they_are_batched_with(
    policy: Policy, processor: Processor, prompts: list[EncodedPrompt]
) -> None:
    together = sample(policy, processor, prompts)
    for i, prompt in enumerate(prompts):
        alone = sample(policy, processor, [prompt], seeds=[SEEDS[i]])
        assert [ids.tolist() for ids in alone.token_ids[0]] == [ids.tolist() for ids in together.token_ids[i]]


@pytest.mark.parametrize("max_rows", [1, 3, 6, 12, 15, 24])
@pytest.mark.parametrize(("temperature", "max_new_tokens"), [(0.8, 30), (0.8, 16), (0.0, 30)])
def test_completions_do_not_depend_on_when_prompts_join_and_rows_leave(
    answering: tuple[Policy, Processor],
    prompts: list[EncodedPrompt],
    max_rows: int,
    temperature: float,
    max_new_tokens: int,
) -> None:
    """With 1 and 3 rows prompts follow one another; with more one joins while others decode. 16 tokens cut some."""
    policy, processor = answering
    many, seeds = prompts * 4, [(3, i) for i in range(16)]
    settings = {"group_size": 3, "temperature": temperature, "max_new_tokens": max_new_tokens, "seeds": seeds}
    expected = NativeEngine(processor).sample(policy, many, **settings)
    lengths = {len(ids) for group in expected.token_ids for ids in group}
    assert len(lengths) > 3 or temperature == 0, "nothing ends early"
    actual = NativeEngine(processor, max_rows).sample(policy, many, **settings)
    assert actual.texts == expected.texts
    assert actual.is_finished == expected.is_finished
    for some, others in zip(actual.logprobs, expected.logprobs, strict=True):
        torch.testing.assert_close(some, others, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("max_new_tokens", [12, 16, 20])
def test_completions_at_the_limit_leave_while_younger_ones_go_on(
    policy: Policy,
    processor: Processor,
    prompts: list[EncodedPrompt],
    max_new_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Single completions that end at all ages, so that few reach the limit together."""
    original, eos = Policy._logits, processor.eos_token_id

    def often_ending(self: Policy, hidden: torch.Tensor) -> torch.Tensor:
        logits = original(self, hidden)
        # One token in ten is the end.
        logits[:, eos] = logits.logsumexp(-1) - 2.2
        return logits

    monkeypatch.setattr(Policy, "_logits", often_ending)
    settings = {"group_size": 1, "temperature": 1.0, "max_new_tokens": max_new_tokens}
    settings |= {"seeds": [(4, i) for i in range(48)]}
    expected = NativeEngine(processor).sample(policy, prompts * 12, **settings)
    lengths = [len(ids) for group in expected.token_ids for ids in group]
    assert 4 < lengths.count(max_new_tokens) < 44
    for max_rows in (5, 8, 13):
        actual = NativeEngine(processor, max_rows).sample(policy, prompts * 12, **settings)
        assert actual.texts == expected.texts


def test_what_has_ended_is_not_decoded_any_more(
    answering: tuple[Policy, Processor], prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, processor = answering
    decoded: list[int] = []
    original = Policy.decode

    def decode(self: Policy, token_ids: torch.Tensor, positions: torch.Tensor, layout: object) -> torch.Tensor:
        decoded.append(len(token_ids))
        return original(self, token_ids, positions, layout)

    monkeypatch.setattr(Policy, "decode", decode)
    many, seeds = prompts * 8, [(5, i) for i in range(32)]
    rollouts = sample(policy, processor, many, max_new_tokens=40, seeds=seeds, temperature=1.0)
    needed = sum(len(ids) - 1 for group in rollouts.token_ids for ids in group)
    longest = max(len(ids) for group in rollouts.token_ids for ids in group) - 1
    assert needed <= sum(decoded) < 0.9 * 96 * longest
    assert max(decoded) == 96


def test_prefill_is_done_in_parts(
    policy: Policy, processor: Processor, prompts: list[EncodedPrompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = sample(policy, processor, prompts)
    monkeypatch.setattr(native, "PREFILL_TOKENS", 50)
    sizes: list[int] = []
    original = Policy.prefill
    monkeypatch.setattr(
        Policy, "prefill", lambda self, batch: (sizes.append(len(batch.input_ids)), original(self, batch))[1]
    )
    assert sample(policy, processor, prompts).texts == expected.texts
    assert len(sizes) > 1
    assert max(sizes) <= 50


def test_seeds_choose_the_completions(policy: Policy, processor: Processor, prompts: list[EncodedPrompt]) -> None:
    first, again, other = (
        sample(policy, processor, prompts[:1], seeds=[seed]).texts for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert first == again
    assert first != other
    assert len(set(first[0])) > 1


def test_special_tokens_are_never_sampled(policy: Policy, processor: Processor, prompts: list[EncodedPrompt]) -> None:
    rollouts = sample(policy, processor, prompts, group_size=16, temperature=50.0, max_new_tokens=20)
    sampled = torch.cat([ids for group in rollouts.token_ids for ids in group])
    assert not torch.isin(sampled, policy.forbidden_ids).any()
    assert len(sampled.unique()) > 300


def test_greedy_takes_the_likeliest_token(policy: Policy, processor: Processor, prompts: list[EncodedPrompt]) -> None:
    rollouts = sample(policy, processor, prompts[:1], group_size=1, temperature=0.0)
    ids = rollouts.token_ids[0][0]
    for length in range(1, len(ids)):
        prefix = ids[:length]
        tried = torch.arange(policy.model.config.text_config.vocab_size)
        tried = tried[~torch.isin(tried, policy.forbidden_ids)]
        continuations = [torch.cat([prefix[:-1], token[None]]) for token in tried]
        logprobs, _ = policy(pack([Group(prompts[0], continuations)]))
        last = logprobs.view(len(tried), length)[:, -1]
        assert tried[last.argmax()] == prefix[-1]


@pytest.fixture
def ending_policy(policy: Policy, processor: Processor) -> Policy:
    """Its end token is likely but not certain, so that both endings occur at temperature 3."""
    with torch.no_grad():
        policy.model.lm_head.weight[processor.eos_token_id] *= 3.0
    return policy


def test_a_completion_ends_with_its_end_token_or_at_the_limit(
    ending_policy: Policy, processor: Processor, prompts: list[EncodedPrompt]
) -> None:
    rollouts = sample(ending_policy, processor, prompts, group_size=32, temperature=3.0)
    endings = set()
    for group, finished in zip(rollouts.token_ids, rollouts.is_finished, strict=True):
        for ids, is_finished in zip(group, finished, strict=True):
            assert (ids[:-1] != processor.eos_token_id).all()
            assert is_finished == (ids[-1] == processor.eos_token_id)
            assert is_finished or len(ids) == 12
            endings.add(is_finished)
    assert endings == {True, False}


def test_every_completion_is_handed_over_once_as_soon_as_it_ends(
    ending_policy: Policy,
    processor: Processor,
    prompts: list[EncodedPrompt],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decodes, handed_over = [], []
    decode = ending_policy.decode
    monkeypatch.setattr(ending_policy, "decode", lambda *arguments: decodes.append(1) or decode(*arguments))
    rollouts = sample(
        ending_policy,
        processor,
        prompts,
        group_size=8,
        temperature=3.0,
        on_finished=lambda prompt, text: handed_over.append((prompt, text, len(decodes))),
    )
    # The first token comes from the prefill: one of length n is whole after n - 1 decoding steps.
    expected = [
        (prompt, text, len(ids) - 1)
        for prompt, group in enumerate(rollouts.token_ids)
        for ids, text in zip(group, rollouts.texts[prompt], strict=True)
    ]
    assert sorted(handed_over) == sorted(expected)
    is_finished = [value for group in rollouts.is_finished for value in group]
    assert {True, False} == set(is_finished)
    assert len({steps for *_, steps in handed_over}) > 3
    # Those cut at the limit come last, when all is over.
    num_cut = len(is_finished) - sum(is_finished)
    assert [steps for *_, steps in handed_over[-num_cut:]] == [11] * num_cut


@pytest.mark.parametrize("temperature", [0.0, 3.0])
def test_handing_completions_over_changes_none(
    ending_policy: Policy, processor: Processor, prompts: list[EncodedPrompt], temperature: float
) -> None:
    silent = sample(ending_policy, processor, prompts, temperature=temperature)
    watched = sample(
        ending_policy, processor, prompts, temperature=temperature, on_finished=lambda prompt, text: torch.rand(1)
    )
    assert watched.texts == silent.texts
    assert watched.is_finished == silent.is_finished
    for field in ("token_ids", "logprobs"):
        torch.testing.assert_close(getattr(watched, field), getattr(silent, field), rtol=0, atol=0)


def test_tokens_follow_their_probabilities() -> None:
    logits = torch.tensor([0.1, 0.0, 0.4, 0.3, 0.2]).log()
    draws = torch.linspace(0, 1, 10_001)[:-1]
    chosen, logprobs = _choose(logits.expand(len(draws), -1), 1.0, draws)
    shares = torch.bincount(chosen, minlength=5) / len(draws)
    torch.testing.assert_close(shares, logits.exp(), atol=2e-4, rtol=0)
    torch.testing.assert_close(logprobs, logits[chosen])


def test_the_largest_draw_never_picks_an_impossible_token() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf, -torch.inf]])
    just_below_one = torch.nextafter(torch.ones(1), torch.zeros(1))
    for draw in (just_below_one, torch.ones(1)):
        assert _choose(logits, 1.0, draw)[0].item() == 1
    assert _choose(logits.flip(-1), 1.0, torch.zeros(1))[0].item() == 2


def test_a_sharded_policy_samples_the_same_and_frees_its_parameters(
    policy: Policy, processor: Processor, prompts: list[EncodedPrompt], device: torch.device
) -> None:
    expected = sample(policy, processor, prompts)
    sharded = shard_policy(policy, device, torch.float32)
    actual = sample(sharded, processor, prompts)
    assert actual.texts == expected.texts
    parameter = next(iter(sharded.model.model.language_model.layers[0].parameters()))
    assert type(parameter.data).__name__ == "DTensor"
    with gathered_parameters(sharded):
        pass
    assert sample(sharded, processor, prompts).texts == expected.texts


def test_no_prompts_give_no_completions(policy: Policy, processor: Processor) -> None:
    assert sample(policy, processor, []).prompts == []


def test_an_unknown_engine_is_named(processor: Processor) -> None:
    with pytest.raises(ValueError, match="'vllm' is unknown. Known: native"):
        make_engine("vllm", processor)
