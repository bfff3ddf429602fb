"""Packed shared-prefix rows against the dense, padded computation with transformers' own attention and positions."""

from pathlib import Path

import pytest
import torch
from model_families import dense_images
from torch import Tensor
from transformers import AutoModelForImageTextToText

from geogrpo.config import ModelConfig
from geogrpo.distributed import load_sharded
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, mrope_position_ids, pack, split_by_budget, split_into_rows
from geogrpo.policy.processing import Processor
from geogrpo.rollout.native import NativeEngine
from geogrpo.types import Example

TEMPERATURE = 0.7


def dense_logprobs(model: torch.nn.Module, processor: Processor, groups: list[Group], forbidden: Tensor) -> Tensor:
    """The oracle: every completion with its own copy of prompt and image, right-padded, transformers' causal mask."""
    pad = processor.tokenizer.pad_token_id
    rows = [(group.prompt, completion) for group in groups for completion in group.completions]
    sequences = [torch.cat([prompt.token_ids, completion]) for prompt, completion in rows]
    input_ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True, padding_value=pad)
    attention_mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(s) for s in sequences], batch_first=True)
    logits = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        use_cache=False,
        **dense_images(model, input_ids, [prompt for prompt, _ in rows]),
    ).logits.float()
    logits = (logits / TEMPERATURE).index_fill(-1, forbidden, -torch.inf)
    pieces = []
    for row, (prompt, completion) in enumerate(rows):
        start = len(prompt.token_ids) - 1
        logprobs = logits[row, start : start + len(completion)].log_softmax(-1)
        pieces.append(logprobs.gather(-1, completion[:, None]).squeeze(-1))
    return torch.cat(pieces)


@pytest.fixture
def dense_model(tiny_folder: Path) -> torch.nn.Module:
    return AutoModelForImageTextToText.from_pretrained(tiny_folder, dtype=torch.float32, attn_implementation="eager")


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float(((actual - expected).norm() / expected.norm()).detach())


def test_packed_logprobs_and_gradients_equal_the_dense_computation(
    policy: Policy, processor: Processor, groups: list[Group], dense_model: torch.nn.Module
) -> None:
    expected = dense_logprobs(dense_model, processor, groups, policy.forbidden_ids)
    actual, _ = policy(pack(groups), TEMPERATURE)
    assert relative_error(actual, expected) < 1e-5
    upstream = torch.randn_like(expected)
    expected.backward(upstream)
    actual.backward(upstream)
    dense = dict(dense_model.named_parameters())
    checked = 0
    for name, parameter in policy.model.named_parameters():
        if dense[name].grad.norm() > 0:
            assert relative_error(parameter.grad, dense[name].grad) < 1e-5, name
            checked += 1
    assert checked > 40


def rounded_dense_logprobs(
    folder: Path, dtype: torch.dtype, processor: Processor, groups: list[Group], forbidden: Tensor
) -> Tensor:
    """The oracle in float64 or bfloat16 on weights rounded to bfloat16: only the computation's error is left."""
    # Loaded in bfloat16, not moved to it, which would round the rotary frequencies too
    load_dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=load_dtype, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
        return dense_logprobs(model.double() if dtype == torch.float64 else model, processor, groups, forbidden)


def test_in_bfloat16_sampling_and_training_are_as_near_the_truth_as_plain_pytorch(
    tiny_folder: Path, processor: Processor, examples: list[Example], device: torch.device
) -> None:
    policy, _ = load_sharded(ModelConfig(path=str(tiny_folder), dtype="bfloat16"), "short")
    prompts = [processor.encode_prompt(example) for example in examples]
    rollouts = NativeEngine(processor).sample(
        policy, prompts, group_size=8, temperature=TEMPERATURE, max_new_tokens=12, seeds=[(i,) for i in range(4)]
    )
    groups = [Group(prompt, ids) for prompt, ids in zip(prompts, rollouts.token_ids, strict=True)]
    sampled = torch.cat([row for group in rollouts.logprobs for row in group])
    trained = policy(pack(groups), TEMPERATURE)[0].detach()
    exact, plain = (
        rounded_dense_logprobs(tiny_folder, dtype, processor, groups, policy.forbidden_ids)
        for dtype in (torch.float64, torch.bfloat16)
    )
    # Twice plain PyTorch's error plus 4 eps of the log-probs, which are float32 whatever the compute dtype
    bound = 2 * (plain - exact).norm() + 4 * torch.finfo(torch.float32).eps * exact.norm()
    assert (sampled - exact).norm() <= bound
    assert (trained - exact).norm() <= bound
    assert (sampled - exact).norm() > 0, "the policy did not compute in bfloat16"


def test_a_completion_does_not_see_its_siblings(policy: Policy, groups: list[Group]) -> None:
    group = groups[0]
    alone = [policy(pack([Group(group.prompt, [c])]))[0] for c in group.completions]
    together, _ = policy(pack([group]))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)


def test_groups_in_one_row_equal_groups_in_rows_of_their_own(policy: Policy, groups: list[Group]) -> None:
    one_row, _ = policy(pack(groups))
    own_rows = torch.cat([policy(pack([group]))[0] for group in groups])
    torch.testing.assert_close(one_row, own_rows, rtol=1e-5, atol=1e-5)


def test_each_image_enters_a_row_once(groups: list[Group]) -> None:
    batch = pack(groups)
    assert len(batch.image_grid_thw) == len(groups)
    assert len(batch.pixel_values) == sum(len(group.prompt.pixel_values) for group in groups)
    assert len(batch.input_ids) == sum(group.num_unique_tokens for group in groups)


def test_positions_equal_those_of_transformers(groups: list[Group], dense_model: torch.nn.Module) -> None:
    for group in groups:
        prompt = group.prompt
        is_image = (prompt.token_ids == dense_model.config.image_token_id).int()
        expected, _ = dense_model.model.get_rope_index(prompt.token_ids[None], is_image[None], prompt.image_grid_thw)
        assert torch.equal(prompt.position_ids, expected[:, 0])


def test_placeholders_that_do_not_match_the_images_are_refused() -> None:
    image, grid = 9, torch.tensor([[1, 4, 4]])
    with pytest.raises(ValueError, match="needs 4 placeholder tokens"):
        mrope_position_ids(torch.tensor([1, image, image, 2]), grid, image, 2)
    with pytest.raises(ValueError, match="placeholders for 0 images, got 1"):
        mrope_position_ids(torch.tensor([1, 2]), grid, image, 2)
    with pytest.raises(ValueError, match="more than its 1 images"):
        mrope_position_ids(torch.tensor([image] * 4 + [1] + [image] * 4), grid, image, 2)


def test_an_empty_completion_is_refused(groups: list[Group]) -> None:
    with pytest.raises(ValueError, match="place-0.* has no tokens"):
        pack([Group(groups[0].prompt, [torch.zeros(0, dtype=torch.int64)])])
    with pytest.raises(ValueError, match="at least one group"):
        pack([])


def test_rows_hold_whole_groups_in_order_within_the_budget(groups: list[Group]) -> None:
    sizes = [group.num_unique_tokens for group in groups]
    budget = sizes[0] + sizes[1]
    rows = split_by_budget(groups, budget)
    assert [i for row in rows for i in row] == [0, 1, 2, 3]
    assert rows[0] == [0, 1]
    assert all(sum(sizes[i] for i in row) <= budget for row in rows)
    assert split_by_budget(groups, 1) == [[0], [1], [2], [3]]


def completions_of(groups: list[Group]) -> list[torch.Tensor]:
    return [completion for group in groups for completion in group.completions]


@pytest.mark.parametrize("budget", [46, 60, 80, 150, 10_000])
def test_rows_hold_every_completion_once_with_its_prompt_within_the_budget(groups: list[Group], budget: int) -> None:
    rows = split_into_rows(groups, budget)
    everything = completions_of(groups)
    assert sorted(c for row in rows for c in row.completions) == list(range(len(everything)))
    example_of = [group.prompt.example.id for group in groups for _ in group.completions]
    for row in rows:
        assert sum(group.num_unique_tokens for group in row.groups) <= budget
        for c, completion in zip(row.completions, completions_of(row.groups), strict=True):
            assert completion is everything[c]
        named = [group.prompt.example.id for group in row.groups for _ in group.completions]
        assert named == [example_of[c] for c in row.completions]


def test_rows_are_about_equally_long(groups: list[Group]) -> None:
    many = [groups[i % 4] for i in (0, 0, 0, 1, 1, 2, 2, 3)]
    budget = 2 * max(group.num_unique_tokens for group in many)
    rows = split_into_rows(many, budget)
    sizes = [sum(group.num_unique_tokens for group in row.groups) for row in rows]
    assert len(rows) == len(split_by_budget(many, budget))
    assert max(sizes) - min(sizes) < max(group.num_unique_tokens for group in many)


def test_a_split_group_costs_its_prompt_once_more_per_part(groups: list[Group]) -> None:
    group = max(groups, key=lambda group: group.num_unique_tokens)
    rows = split_into_rows([group], group.num_unique_tokens - 1)
    assert len(rows) == 2
    total = sum(part.num_unique_tokens for row in rows for part in row.groups)
    assert total == group.num_unique_tokens + len(group.prompt.token_ids)


def test_a_budget_that_one_completion_does_not_fit_names_the_example_and_the_budget_that_works(
    groups: list[Group],
) -> None:
    least = max(
        len(group.prompt.token_ids) + max(len(completion) - 1 for completion in group.completions) for group in groups
    )
    with pytest.raises(ValueError, match=rf"example 'place-.*': .* are {least} tokens, .* Set it to at least {least}"):
        split_into_rows(groups, least - 1)
    split_into_rows(groups, least)


def test_gradients_of_split_groups_add_up_to_the_whole(policy: Policy, groups: list[Group]) -> None:
    policy(pack(groups))[0].sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}
    policy.zero_grad()
    rows = split_into_rows(groups, 60)
    assert len(rows) > len(groups)
    for row in rows:
        policy(pack(row.groups))[0].sum().backward()
    for name, parameter in policy.named_parameters():
        assert relative_error(parameter.grad, expected[name]) < 1e-5, name
