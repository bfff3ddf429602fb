"""Which examples a step sees, and what happens to pictures that cannot be read."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from geogrpo.data.draws import step_indices
from geogrpo.data.loader import Batch, encode_all, load_batches
from geogrpo.images import open_image
from geogrpo.types import EncodedPrompt, Example


def example(i: int, image: Any = None) -> Example:
    return Example(f"example-{i}", image or Image.new("RGB", (1, 1), (i, 0, 0)), (0.0, float(i)))


def encode(one: Example) -> EncodedPrompt:
    """The red of its picture for a token."""
    red = open_image(one).getpixel((0, 0))[0]
    return EncodedPrompt(one, torch.tensor([red]), *[torch.zeros(0)] * 3, question="")


def tokens(batch: Batch) -> list[int]:
    return [int(prompt.token_ids) for prompt in batch.prompts]


def run(examples: Sequence[Example], steps: range, per_step: int = 4, seed: int = 0) -> list[tuple]:
    batches = load_batches(examples, encode, per_step=per_step, seed=seed, steps=steps)
    return [(tokens(batch), batch.positions, batch.skipped) for batch in batches]


@settings(deadline=None)
@given(num_examples=st.integers(1, 30), per_step=st.integers(1, 40), seed=st.integers(0, 5))
def test_each_example_is_seen_once_per_epoch(num_examples: int, per_step: int, seed: int) -> None:
    num_epochs = 3
    num_steps = -(-num_epochs * num_examples // per_step)
    steps = [step_indices(num_examples, per_step, seed, step) for step in range(num_steps)]
    assert all(len(indices) == per_step for indices in steps)
    stream = [index for indices in steps for index in indices]
    for epoch in range(num_epochs):
        assert sorted(stream[epoch * num_examples : (epoch + 1) * num_examples]) == list(range(num_examples))


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    orders = [step_indices(50, 50, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert list(range(50)) not in orders
    assert step_indices(50, 50, 1, 1) == orders[3]


@pytest.mark.parametrize("per_step", [1, 7, 50, 120])
def test_the_order_does_not_depend_on_the_size_of_a_step(per_step: int) -> None:
    stream = [index for step in range(240 // per_step) for index in step_indices(50, per_step, 3, step)]
    expected = [index for epoch in range(5) for index in step_indices(50, 50, 3, epoch)]
    assert stream == expected[: len(stream)]


def test_batches_do_not_depend_on_where_a_run_started() -> None:
    examples = [example(i) for i in range(10)]
    from_the_start = run(examples, range(9))
    assert [len(batch[0]) for batch in from_the_start] == [4] * 9
    for start in (1, 4, 8):
        assert run(examples, range(start, 9)) == from_the_start[start:]
    assert run(examples, range(9, 9)) == []


def test_batches_hold_the_examples_of_their_step_in_order() -> None:
    for step, (reds, positions, skipped) in enumerate(run([example(i) for i in range(10)], range(6), seed=2)):
        assert reds == step_indices(10, 4, 2, step)
        assert positions == [0, 1, 2, 3]
        assert skipped == []


def test_a_broken_picture_is_skipped_and_named_and_the_others_keep_their_positions(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 and no more")
    missing = tmp_path / "missing.jpg"
    examples = [example(0), example(1, broken), example(2), example(3, missing), example(4)]
    batch = encode_all(examples, [4, 1, 0, 3, 2], encode, range(10, 15))
    assert tokens(batch) == [4, 0, 2]
    assert batch.positions == [10, 12, 14]
    assert len(batch.skipped) == 2
    assert batch.skipped[0].startswith(f"example 'example-1': cannot read image {broken}: ")
    assert batch.skipped[1].startswith(f"example 'example-3': cannot read image {missing}: ")


def test_a_broken_picture_changes_nothing_for_the_rest_of_a_run(tmp_path: Path) -> None:
    examples = [example(i) for i in range(10)]
    intact = run(examples, range(5))
    broken = tmp_path / "broken.jpg"
    broken.write_text("not a picture")
    with_broken = run([*examples[:7], example(7, broken), *examples[8:]], range(5))
    num_skipped = 0
    for (reds, positions, _), (left, kept, skipped) in zip(intact, with_broken, strict=True):
        assert dict(zip(kept, left, strict=True)) == {
            p: red for p, red in zip(positions, reds, strict=True) if red != 7
        }
        num_skipped += len(skipped)
    # 20 draws from 10 examples are two epochs.
    assert num_skipped == 2


def test_an_error_that_is_not_about_a_picture_is_not_swallowed() -> None:
    def fails(one: Example) -> EncodedPrompt:
        raise RuntimeError(f"a bug at {one.id}")

    with pytest.raises(RuntimeError, match="a bug at example-0"):
        encode_all([example(0)], [0], fails, range(1))
    with pytest.raises(RuntimeError, match="a bug at example-0"):
        next(load_batches([example(0)], fails, per_step=1, seed=0, steps=range(3)))


def test_the_next_batch_is_prepared_while_this_one_is_used() -> None:
    is_second_started = threading.Event()

    def notice(one: Example) -> EncodedPrompt:
        if notice.calls:  # type: ignore[attr-defined]
            is_second_started.set()
        notice.calls += 1  # type: ignore[attr-defined]
        return encode(one)

    notice.calls = 0  # type: ignore[attr-defined]
    batches = load_batches([example(0)], notice, per_step=1, seed=0, steps=range(2))
    next(batches)
    assert is_second_started.wait(timeout=30)
    assert len(list(batches)) == 1


def test_no_examples_are_rejected() -> None:
    with pytest.raises(ValueError, match="there are no examples to train on"):
        next(load_batches([], encode, per_step=4, seed=0, steps=range(3)))
