"""Rewards for the form of an answer."""

import pytest

from geogrpo.parsing import parse_completion
from geogrpo.rewards.form import coordinate_format, think_answer_tags, thinking_length, three_names


def test_forms_of_whole_completions() -> None:
    texts = [
        "<think>a</think><answer>Country: X\nState: Y\nCity: Z\n(1, 2)</answer>",
        "<think>a</think> (1, 2)",
        "<think>a</think><answer>Country: X\nCity: Z\n(1, 2) (3, 4)</answer>",
        "",
    ]
    columns = {"prediction": [parse_completion(text) for text in texts]}
    assert coordinate_format([], texts, **columns) == [1.0, 1.0, 0.0, 0.0]
    assert think_answer_tags([], texts, **columns) == [1.0, 0.0, 1.0, 0.0]
    assert three_names([], texts, **columns) == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("num_chars", "expected"), [(0, 0.0), (90, 0.0), (145, 0.5), (200, 1.0), (10_000, 1.0), (112, 0.104)]
)
def test_reasoning_earns_by_its_length(num_chars: int, expected: float) -> None:
    prediction = [parse_completion(f"<think>{'x' * num_chars}</think><answer>(1, 2)</answer>")]
    (earned,) = thinking_length([], [], prediction=prediction)
    assert earned == pytest.approx(expected)


def test_reasoning_without_a_tag_has_no_length() -> None:
    assert thinking_length([], [], prediction=[parse_completion("x" * 500)]) == [0.0]
