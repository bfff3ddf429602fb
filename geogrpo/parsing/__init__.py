"""What a completion says: one Prediction per text, whatever the model wrote.

The answer field is found first. JSON, Python literals and XML elements in it are rewritten as labelled lines, so that
names and coordinates are read by one grammar each. Hedging is no answer: two countries or two coordinate pairs count
as none. Time is linear in the text, because in every pattern repeats are bounded or possessive.
"""

import re
from typing import Any

from geogrpo.parsing.coordinates import read_coordinates
from geogrpo.parsing.labels import LEVELS, fields_of, find_names, replace_elements
from geogrpo.parsing.literals import replace_objects
from geogrpo.types import Prediction

_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE)
# `^<think>.*?</think>\s*<answer>.*?</answer>(?![\s\S])` in two: as one pattern it takes quadratic time.
_THINK_TO_ANSWER = re.compile(r"<think>(?=[\s\S]*(</answer>)\Z)")
_THINK_THEN_ANSWER = re.compile(r"</think>\s*+<answer>")


def parse_completion(text: str) -> Prediction:
    """What a completion says, read from its answer field only, never from its reasoning.

    The answer field is the one <answer> element, else what follows </think>, else the whole text. A level named twice
    with different names is None, and so are coordinates unless the field holds exactly one pair and it lies in range
    (the format rule of Geo-R, arXiv 2601.00388). Labels and N/S/E/W letters are obeyed; a pair without is (lat, lon).
    """
    thinking, answer, is_element, problem = _answer_field(text)
    facts: dict[str, Any] = {
        "thinking": thinking,
        "answer": answer,
        "has_think_answer_tags": has_think_answer_tags(text),
    }
    if problem:
        return Prediction(text, problem=problem, **facts)
    lines, unclosed = replace_elements(answer)
    objects_as_lines = replace_objects(lines)
    if objects_as_lines is None:
        return Prediction(text, problem="malformed JSON", **facts)
    fields = fields_of(objects_as_lines)
    names, problems = find_names(fields, answer if is_element else "")
    latlon_deg, num_pairs, problem = read_coordinates(objects_as_lines, fields)
    if unclosed:
        problems += [f"<{tag}> is not closed" for tag in unclosed.values()]
        names = {level: name for level, name in names.items() if level not in unclosed}
        if not unclosed.keys().isdisjoint(("pair", "lat", "lon")):
            latlon_deg, problem = None, None
    if problem:
        problems.append(problem)
    country, state, city = map(names.get, LEVELS)
    problem = "; ".join(problems) or None
    return Prediction(text, country, state, city, latlon_deg, problem, num_coordinate_pairs=num_pairs, **facts)


def has_think_answer_tags(text: str) -> bool:
    """Whether GLOBE's format reward is 1 (MathFormat in its plugin.py, which asks for nothing before and after)."""
    ends = _THINK_TO_ANSWER.match(text)
    return ends is not None and _THINK_THEN_ANSWER.search(text, ends.end(), ends.start(1)) is not None


def _answer_field(text: str) -> tuple[str | None, str, bool, str | None]:
    """(thinking, answer, whether it is an <answer> element, problem). The answer is "" where there is a problem."""
    if "<" not in text:
        return None, text, False, None
    tags = [(m[2].lower(), bool(m[1]), m.start(), m.end()) for m in _TAG.finditer(text)]
    opened = [tag for tag in tags if tag[0] == "think" and not tag[1]]
    closed = [tag for tag in tags if tag[0] == "think" and tag[1]]
    if len(closed) > 1:
        return None, "", False, f"{len(closed)} </think> tags"
    # A chat template may open <think> in the prompt, so that the completion only closes it.
    start, thinking_start = opened[0][2:] if opened else (0, 0)
    thinking_end, end = closed[0][2:] if closed else (len(text), 0)
    thinking = text[thinking_start:thinking_end] if opened or closed else None
    if opened and opened[-1][3] > end:
        return thinking, "", False, "<think> is not closed"
    answers = [tag for tag in tags if tag[0] == "answer" and not start <= tag[2] < end]
    if not answers:
        return thinking, text[end:], False, None
    opened = [tag for tag in answers if not tag[1]]
    closed = [tag for tag in answers if tag[1]]
    if len(opened) > 1 or len(closed) > 1:
        return thinking, "", False, f"{max(len(opened), len(closed))} <answer> elements"
    if not opened or not closed or closed[0][2] < opened[0][3]:
        return thinking, "", False, "<answer> is not closed" if opened else "</answer> without <answer>"
    if end and opened[0][3] <= start < closed[0][2]:
        return thinking, "", False, "<think> inside <answer>"
    return thinking, text[opened[0][3] : closed[0][2]], True, None


__all__ = ["has_think_answer_tags", "parse_completion"]
