"""Which of a run's sampled completions its report shows."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from geogrpo.report.page.content import SampledCompletion, SampledGroup
from geogrpo.types import Example

NUM_STEPS, NUM_GROUPS, NUM_COMPLETIONS = 4, 3, 8
"""Steps, spread from the first to the last; groups of each, and completions of each group: 0.4 MB of page at most with
texts of ordinary characters."""


def sampled_groups(path: Path, examples: Iterable[Example]) -> list[SampledGroup]:
    """The groups to show, in order of steps; empty where nothing was sampled.

    Args:
        path: completions.jsonl. Of steps done again after a resume the last lines count; a line that a kill cut short
            is left out.
        examples: that were trained on; read until those shown are found.
    """
    if not path.exists():
        return []
    with path.open("rb") as file:
        begins = _begins(file)
        steps = sorted(begins)
        chosen = np.unique(np.linspace(0, len(steps) - 1, min(NUM_STEPS, len(steps))).round().astype(int))
        groups = [group for i in chosen for group in _groups_at(file, begins[steps[i]])]
    return _with_images(groups, examples)


def _begins(file: BinaryIO) -> dict[int, int]:
    """Step -> where its last run of lines begins."""
    begins: dict[int, int] = {}
    last = None
    for offset, record in _records(file, 0):
        if record["step"] != last:
            last = record["step"]
            begins[last] = offset
    return begins


def _records(file: BinaryIO, offset: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset, record) of every whole line from an offset."""
    file.seek(offset)
    for line in file:
        # Cut short by a kill: what a resumed run appended may stand behind it in the same line.
        with suppress(ValueError):
            yield offset, json.loads(line)
        offset += len(line)


def _groups_at(file: BinaryIO, offset: int) -> list[list[dict[str, Any]]]:
    """The records of a step's first groups."""
    groups: list[list[dict[str, Any]]] = []
    for _, record in _records(file, offset):
        last = groups[-1][-1] if groups else record
        if record["step"] != last["step"]:
            break
        # Not at sample 0 alone: its line may be the one that was cut short.
        if not groups or record["id"] != last["id"] or record["sample"] <= last["sample"]:
            groups.append([])
        groups[-1].append(record)
    return _last_attempt(groups)[:NUM_GROUPS]


def _last_attempt(groups: list[list[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The groups without earlier attempts at the step: a resumed run draws the same images in the same order."""
    ids = [records[0]["id"] for records in groups]
    for num_earlier in range(1, len(ids) // 2 + 1):
        if ids[:num_earlier] == ids[num_earlier : 2 * num_earlier]:
            return _last_attempt(groups[num_earlier:])
    return groups


def _with_images(groups: list[list[dict[str, Any]]], examples: Iterable[Example]) -> list[SampledGroup]:
    wanted = {records[0]["id"] for records in groups}
    found: dict[str, Example] = {}
    for example in examples if wanted else ():
        if example.id in wanted:
            found[example.id] = example
            if len(found) == len(wanted):
                break
    return [_group(records, found) for records in groups]


def _group(records: list[dict[str, Any]], examples: Mapping[str, Example]) -> SampledGroup:
    first = records[0]
    example = examples.get(first["id"])
    return SampledGroup(
        step=first["step"],
        id=first["id"],
        true_latlon_deg=tuple(first["true_latlon_deg"]),
        image=None if example is None else example.image,
        completions=[_completion(record) for record in records[:NUM_COMPLETIONS]],
        num_completions=len(records),
    )


def _completion(record: Mapping[str, Any]) -> SampledCompletion:
    point = record["predicted_latlon_deg"]
    return SampledCompletion(
        text=record["text"],
        predicted_latlon_deg=None if point is None else (point[0], point[1]),
        distance_km=record["distance_km"],
        reward=record["reward"],
        rewards=record["rewards"],
        advantage=record["advantage"],
    )


__all__ = ["sampled_groups"]
