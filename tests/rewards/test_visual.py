"""Rewards for naming what the picture shows, against values worked out by hand."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geogrpo.rewards.visual import _singular, visual_f1, visual_precision, visual_recall
from geogrpo.rewards.visual_vocabulary import GENERIC, VOCABULARY
from geogrpo.types import Prediction

SHOWN = ["red bus", {"text": "palms"}, "church tower", "sky"]


def earned(reward: Any, thinking: str | None, entities: Any = SHOWN) -> float | None:
    (value,) = reward([], [], prediction=[Prediction("", thinking=thinking)], entities=[entities])
    return value


@pytest.mark.parametrize(
    ("thinking", "recall", "precision", "f1"),
    [
        ("a red bus, palms, a church tower, the sky", 1.0, 1.0, 1.0),
        # bus and tower are words of the vocabulary, but not the entities of the picture
        ("a bus and a tower", 0.0, 0.0, 0.0),
        ("Palm trees", 0.0, 1 / 2, 2 * 1 / (1 + 3)),
        ("palms", 1 / 4, 1.0, 2 * 1 / (1 + 3)),
        # two right, tram and temple wrong
        ("a RED BUS, palms, a tram, temples", 2 / 4, 2 / 4, 2 * 2 / (4 + 3)),
        # sky is generic: it counts in GLOBE's rewards only
        ("the sky", 1 / 4, 1.0, 0.0),
        ("nothing to see", 0.0, 0.0, 0.0),
        ("", 0.0, 0.0, 0.0),
        (None, 0.0, 0.0, 0.0),
    ],
)
def test_recall_precision_and_f1(thinking: str | None, recall: float, precision: float, f1: float) -> None:
    assert earned(visual_recall, thinking) == pytest.approx(recall)
    assert earned(visual_precision, thinking) == pytest.approx(precision)
    assert earned(visual_f1, thinking) == pytest.approx(f1)


def test_globes_recall_puts_only_the_reasoning_into_lower_case() -> None:
    assert earned(visual_recall, "the Eiffel Tower", ["Eiffel Tower"]) == 0.0
    assert earned(visual_f1, "the eiffel tower", ["Eiffel Tower"]) == 1.0


def test_a_list_of_everything_wins_recall_and_loses_the_f1() -> None:
    everything = ", ".join(sorted(VOCABULARY | GENERIC)) + ", red bus, palms, church tower, sky"
    assert earned(visual_recall, everything) == 1.0
    honest = earned(visual_f1, "There is a red bus beside palms; I also take that for a temple.")
    stuffed = earned(visual_f1, everything)
    assert stuffed is not None
    assert honest is not None
    assert stuffed < 0.02 < 0.5 < honest


def test_words_are_whole_in_the_f1_and_parts_of_words_in_globes_recall() -> None:
    assert earned(visual_recall, "a scar", ["car"]) == 1.0
    assert earned(visual_f1, "a palmist", ["palm"]) == 0.0
    assert earned(visual_f1, "palms", ["palm"]) == 1.0


@pytest.mark.parametrize("entities", [None, [], ["", "  "], ["sky", "trees"]])
def test_a_picture_without_telling_entities_has_no_f1(entities: Any) -> None:
    assert earned(visual_f1, "palms", entities) is None
    assert earned(visual_recall, "palms", entities) == 0.0


@pytest.mark.parametrize("entities", ["palm", 7, [3], [{"name": "palm"}]])
def test_entities_of_another_kind_are_refused(entities: Any) -> None:
    for reward in (visual_recall, visual_precision, visual_f1):
        with pytest.raises(ValueError, match="column 'entities' must"):
            earned(reward, "palms", entities)


@given(
    words=st.lists(st.sampled_from(sorted(VOCABULARY)), max_size=30),
    shown=st.sets(st.sampled_from(sorted(VOCABULARY)), min_size=1, max_size=8),
)
def test_naming_one_more_thing_that_is_not_there_never_pays(words: list[str], shown: set[str]) -> None:
    text = " and ".join(words)
    for extra in sorted(VOCABULARY - shown)[:5]:
        for reward in (visual_f1, visual_precision):
            assert earned(reward, f"{text}, {extra}", sorted(shown)) <= (earned(reward, text, sorted(shown)) or 0.0)


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("palms", "palm"),
        ("churches", "church"),
        ("boxes", "box"),
        ("berries", "berry"),
        ("glass", "glass"),
        ("bus", "bus"),
        ("buses", "bus"),
        ("houses", "house"),
        ("leaves", "leaf"),
        ("women", "woman"),
    ],
)
def test_plurals_are_compared_by_their_singular(plural: str, singular: str) -> None:
    assert _singular(plural) == singular


def test_the_vocabulary_is_in_the_form_that_texts_are_brought_into() -> None:
    assert all(_singular(word) == word and word.isalpha() and word == word.lower() for word in VOCABULARY | GENERIC)
    assert not VOCABULARY & GENERIC
