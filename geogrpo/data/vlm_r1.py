"""Conversations as VLM-R1 and LLaVA have them, and Geo-R's {image, problem, solution}; JSONL, or a JSON list.

{"id": 1, "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>Where?"},
                                               {"from": "gpt", "value": "France, (48.86, 2.35)"}]}

Coordinates are the object's own ("lat", "lon" and their like) or those in the solution, which is the last answer; the
names are the solution's. The problem and the solution are passed to rewards.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from geogrpo.config import DataConfig
from geogrpo.data.holdout import Splits
from geogrpo.data.rows import Chunk
from geogrpo.data.schema import Schema, load_table, read_examples
from geogrpo.parsing import parse_completion
from geogrpo.types import Example

ANSWERERS = ("gpt", "assistant")


def _prepare(chunk: Chunk) -> Chunk:
    rows = range(len(chunk.numbers))
    absent: list[Any] = [None] * len(rows)
    columns = chunk.columns | {field: list(chunk.columns.get(field, absent)) for field in SCHEMA.names}
    columns["image"] = [_image(chunk, row, image) for row, image in enumerate(columns["image"])]
    conversations = columns.pop("conversations")
    for row in rows:
        if conversations[row] is not None:
            problem, solution = _turns(chunk, row, conversations[row])
            columns["problem"][row] = columns["problem"][row] or problem
            columns["solution"][row] = columns["solution"][row] or solution
        answer = parse_completion(columns["solution"][row] if isinstance(columns["solution"][row], str) else "")
        for level in ("country", "state", "city"):
            columns[level][row] = columns[level][row] or getattr(answer, level)
        if columns["lat"][row] is None and columns["lon"][row] is None and answer.latlon_deg is not None:
            columns["lat"][row], columns["lon"][row] = answer.latlon_deg
    return replace(chunk, columns=columns)


def _image(chunk: Chunk, row: int, image: Any) -> Any:
    if isinstance(image, list):
        if len(image) != 1:
            raise ValueError(f"{chunk.where(row)}: an example has one image, got {len(image)}.")
        return image[0]
    return image


def _turns(chunk: Chunk, row: int, conversation: Any) -> tuple[str, str]:
    """The first question and the last answer."""
    try:
        turns = [(turn["from"], turn["value"]) for turn in conversation]
        questions = [value for speaker, value in turns if speaker not in (*ANSWERERS, "system")]
        answers = [value for speaker, value in turns if speaker in ANSWERERS]
        return str(questions[0]).replace("<image>", "").strip(), str(answers[-1])
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(
            f"{chunk.where(row)}: conversations must be [{{'from': 'human', 'value': ...}}, {{'from': 'gpt', ...}}],"
            f" got {conversation!r:.80}."
        ) from error


SCHEMA = Schema(
    names={
        "id": ("id", "sample_id"),
        "image": ("image", "images", "image_path"),
        "lat": ("lat", "latitude", "LAT", "gt_lat"),
        "lon": ("lon", "lng", "longitude", "LON", "gt_lon"),
        "country": ("country",),
        "state": ("state",),
        "city": ("city",),
        "problem": ("problem",),
        "solution": ("solution",),
        "conversations": ("conversations",),
    },
    needed=("image",),
    prepare=_prepare,
)


def read_vlm_r1(path: str | Path, config: DataConfig | None = None) -> Iterator[Example]:
    """The examples of a JSONL file or JSON list, in order."""
    return read_examples(path, SCHEMA, config or DataConfig(name="vlm_r1"))


def load_vlm_r1(config: DataConfig, seed: int) -> Splits:
    """Examples of `path` and `test_path`; without a test_path, 1-degree cells are held out."""
    del seed
    return load_table(config, SCHEMA)
