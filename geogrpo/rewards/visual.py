"""Rewards for naming what the picture shows (GLOBE, arXiv 2506.14674).

The examples' column `entities` lists what a segmentation model or a verified teacher found in the picture, as texts or
as objects with a "text", in English. Only reasoning is searched: types.Prediction.thinking.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

from geogrpo.rewards.visual_vocabulary import GENERIC, VOCABULARY
from geogrpo.types import Prediction

_WORD = re.compile(r"[^\W_]+")
_IRREGULAR = {
    "leaves": "leaf",
    "men": "man",
    "women": "woman",
    "children": "child",
    "knives": "knife",
    "shelves": "shelf",
    "wolves": "wolf",
    "geese": "goose",
    "oxen": "ox",
    "sheaves": "sheaf",
}


class Mentions(NamedTuple):
    """What reasoning names."""

    matched: frozenset[str]
    """Entities of the picture, in the singular."""
    others: frozenset[str]
    """Words of the vocabulary that are part of no matched entity."""


def visual_recall(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], entities: list, **_: Any
) -> list[float]:
    """GLOBE as its code computes it: share of the picture's entities whose text occurs in the reasoning.

    A list of everything earns 1, "car" occurs in "scar", and "Eiffel Tower" nowhere, as only the reasoning is put into
    lower case; see visual_f1.
    """
    earned = []
    for p, given in zip(prediction, entities, strict=True):
        thinking = (p.thinking or "").lower()
        texts = _texts(given)
        earned.append(sum(text in thinking for text in texts) / len(texts) if texts else 0.0)
    return earned


def visual_precision(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], entities: list, **_: Any
) -> list[float]:
    """GLOBE as printed: share of the entities that the reasoning names which are in the picture; 0 if it names none.

    How the paper finds entities in a text is not published. Here they are the picture's own and the nouns of
    VOCABULARY and GENERIC, as whole words in singular or plural.
    """
    earned = []
    for p, given in zip(prediction, entities, strict=True):
        matched, others = mentions(p.thinking or "", _normalized(given), VOCABULARY | GENERIC)
        named = len(matched) + len(others)
        earned.append(len(matched) / named if named else 0.0)
    return earned


def visual_f1(
    prompts: list[str], completions: list[str], *, prediction: list[Prediction], entities: list, **_: Any
) -> list[float | None]:
    """Harmonic mean of precision and recall over what tells places apart: GENERIC words count for nothing, so a list
    of everything has no precision and a cautious word or two no recall. None where the picture has no such entities.
    """
    earned: list[float | None] = []
    for p, given in zip(prediction, entities, strict=True):
        telling = frozenset(phrase for phrase in _normalized(given) if not GENERIC.issuperset(phrase.split()))
        if not telling:
            earned.append(None)
            continue
        matched, others = mentions(p.thinking or "", telling, VOCABULARY)
        # 2 PR / (P + R), which is 0 / 0 when nothing matches
        earned.append(2 * len(matched) / (len(matched) + len(others) + len(telling)))
    return earned


def mentions(thinking: str, entities: frozenset[str], vocabulary: frozenset[str]) -> Mentions:
    """Which of a picture's entities a text names, and which other things.

    Args:
        entities: in the singular, as _normalized returns them.
        vocabulary: words that count as things.
    """
    words = _singular_words(thinking)
    text = f" {' '.join(words)} "
    matched = frozenset(phrase for phrase in entities if f" {phrase} " in text)
    explained = {word for phrase in matched for word in phrase.split()}
    return Mentions(matched, (vocabulary & set(words)) - explained)


def _texts(given: Any) -> list[str]:
    """The entities as texts, without empty ones.

    Raises:
        ValueError: when they are not a list of texts or of objects with a "text".
    """
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(f"column 'entities' must be a list of texts, got {given!r}.")
    texts: list[str] = []
    for entity in given:
        text = entity.get("text") if isinstance(entity, dict) else entity
        if not isinstance(text, str):
            raise ValueError(f"column 'entities' must hold texts, or objects with a 'text', got {entity!r}.")
        if text.strip():
            texts.append(text)
    return texts


def _normalized(given: Any) -> frozenset[str]:
    return frozenset(filter(None, (" ".join(_singular_words(text)) for text in _texts(given))))


def _singular_words(text: str) -> list[str]:
    return [_singular(word) for word in _WORD.findall(text.lower())]


@lru_cache(maxsize=2**16)
def _singular(word: str) -> str:
    """The singular by English spelling: good enough to compare words that go through it alike."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    is_bus = word.endswith("uses") and not word.endswith(("ouses", "auses"))
    if is_bus or word.endswith(("shes", "ches", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1]


__all__ = ["Mentions", "mentions", "visual_f1", "visual_precision", "visual_recall"]
