"""Who answers: the greedy text as it comes, and samples that depend on the picture and the seed alone."""

from itertools import pairwise
from pathlib import Path

import pytest
from prediction.photographs import pixels

from geogrpo.config import AnswerConfig, ModelConfig, RunConfig
from geogrpo.prediction.answering import ModelAnswerer, Sampling

SAMPLING = Sampling(num_samples=3, max_new_tokens=16, seed=2)


@pytest.fixture(scope="module")
def answerer(tiny_folder: Path, device: object) -> ModelAnswerer:
    config = RunConfig(model=ModelConfig(str(tiny_folder), dtype="float32"), answer=AnswerConfig(prompt="short"))
    return ModelAnswerer(config)


def test_the_greedy_text_grows_to_the_answer_a_token_at_a_time(answerer: ModelAnswerer) -> None:
    heard: list[str] = []
    greedy, _ = answerer.answer(pixels(), SAMPLING, heard.append)
    assert heard[-1] == greedy
    # The last token may be the end, which adds no text
    assert len(heard) <= 16
    assert len(set(heard)) > 4
    without_halves = [text.rstrip("\N{REPLACEMENT CHARACTER}") for text in heard]
    assert all(later.startswith(earlier) for earlier, later in pairwise(without_halves))


def test_listening_changes_nothing(answerer: ModelAnswerer) -> None:
    assert answerer.answer(pixels(), SAMPLING, lambda _: None) == answerer.answer(pixels(), SAMPLING, None)


def test_samples_follow_from_picture_and_seed(answerer: ModelAnswerer) -> None:
    first = answerer.answer(pixels(), SAMPLING, None)
    other_picture = answerer.answer(pixels(1), SAMPLING, None)
    other_seed = answerer.answer(pixels(), Sampling(num_samples=3, max_new_tokens=16, seed=3), None)
    assert answerer.answer(pixels(), SAMPLING, None) == first
    assert (other_seed[0], other_seed[1] != first[1]) == (first[0], True)
    assert other_picture != first
    assert len(set(first[1])) == 3


def test_without_samples_there_is_the_greedy_answer_alone(answerer: ModelAnswerer) -> None:
    greedy, samples = answerer.answer(pixels(), Sampling(num_samples=0, max_new_tokens=16), None)
    assert (greedy, samples) == (answerer.answer(pixels(), SAMPLING, None)[0], [])
