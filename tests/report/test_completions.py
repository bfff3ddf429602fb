"""The completions of a run's report: which are shown, and as harmless text."""

import base64
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from geogrpo.grpo.metrics import completion_records
from geogrpo.report.completions import NUM_COMPLETIONS, NUM_GROUPS, NUM_STEPS, sampled_groups
from geogrpo.report.page.completions import completions_section
from geogrpo.report.page.content import SampledCompletion, SampledGroup
from geogrpo.report.page.pieces import MAX_TEXT_BYTES, THUMBNAIL_BYTES
from geogrpo.report.run_log import RunLog
from geogrpo.rewards import Scores
from geogrpo.types import EncodedPrompt, Example, Prediction, Rollouts

PARIS = (48.86, 2.35)
HOSTILE = "</pre></td><script>alert(1)</script> \" ' & {{script}} \x00 <img src=x onerror=alert(1)>"


def record(step: int, id: str, sample: int, **changes: Any) -> dict[str, Any]:
    """As grpo.metrics.completion_records has them."""
    values = {
        "true_latlon_deg": list(PARIS),
        "predicted_latlon_deg": [48.0, 2.0],
        "distance_km": 99.1,
        "reward": 0.25,
        "rewards": {"multiscale": 0.25},
        "advantage": -0.5,
        "num_tokens": 3,
        "is_finished": True,
        "text": f"answer {step}/{id}/{sample}",
    }
    return {"step": step, "id": id, "sample": sample} | values | changes


def step_records(
    step: int, ids: Sequence[str] = ("a", "b"), group_size: int = 2, **changes: Any
) -> list[dict[str, Any]]:
    return [record(step, id, sample, **changes) for id in ids for sample in range(group_size)]


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path)


def examples(*ids: str) -> list[Example]:
    return [Example(id, Image.effect_noise((200, 156), 90).convert("RGB"), PARIS) for id in ids]


def groups_of(log: RunLog, *ids: str) -> list[SampledGroup]:
    return sampled_groups(log.folder / "completions.jsonl", examples(*ids))


def test_steps_from_the_first_to_the_last_and_of_each_the_first_groups(log: RunLog) -> None:
    names = [f"image {i}" for i in range(NUM_GROUPS + 2)]
    for step in range(1, 8):
        log.log_completions(step_records(step, names, group_size=NUM_COMPLETIONS + 3))
    groups = groups_of(log, *names)
    assert [group.step for group in groups] == [1] * NUM_GROUPS + [3] * NUM_GROUPS + [5] * NUM_GROUPS + [7] * NUM_GROUPS
    assert len({group.step for group in groups}) == NUM_STEPS
    assert [group.id for group in groups[:NUM_GROUPS]] == names[:NUM_GROUPS]
    assert {len(group.completions) for group in groups} == {NUM_COMPLETIONS}
    assert {group.num_completions for group in groups} == {NUM_COMPLETIONS + 3}
    assert groups[3].completions[1].text == "answer 3/image 0/1"
    assert groups[3].completions[1].predicted_latlon_deg == (48.0, 2.0)
    section = completions_section(groups)
    assert f"{NUM_COMPLETIONS} of {NUM_COMPLETIONS + 3} completions" in section
    assert section.count("<details") == NUM_STEPS
    assert section.count("<details open") == 1
    assert section.index("<details open") > section.index("Step 5<")


def test_one_prompt_twice_in_a_step_is_two_groups(log: RunLog) -> None:
    log.log_completions(step_records(1, ["a", "b", "b"]))
    assert [(group.id, len(group.completions)) for group in groups_of(log, "a", "b")] == [("a", 2), ("b", 2), ("b", 2)]


def test_of_a_step_killed_twice_only_the_last_attempt_is_shown(log: RunLog) -> None:
    path = log.folder / "completions.jsonl"
    for attempt, cut_bytes in (("killed", 0), ("killed while it wrote", 20), ("resumed", 0)):
        log.log_completions(step_records(2, text=attempt))
        path.write_bytes(path.read_bytes()[: path.stat().st_size - cut_bytes])
    groups = groups_of(log, "a", "b")
    assert [group.id for group in groups] == ["a", "b"]
    assert {completion.text for group in groups for completion in group.completions} == {"resumed"}


def test_of_steps_done_again_after_a_kill_the_last_lines_count(log: RunLog) -> None:
    for step in (1, 2, 3):
        log.log_completions(step_records(step, text="killed"))
    path = log.folder / "completions.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    for step in (2, 3):
        log.log_completions(step_records(step, text="resumed"))
    groups = groups_of(log, "a", "b")
    texts = [(group.step, {completion.text for completion in group.completions}) for group in groups]
    assert texts == [(1, {"killed"})] * 2 + [(2, {"resumed"})] * 2 + [(3, {"resumed"})] * 2
    # The first line of the second attempt stands behind the one that was cut short.
    assert [len(group.completions) for group in groups] == [2, 2, 1, 2, 2, 2]


def test_what_training_writes_is_read(log: RunLog) -> None:
    (example,) = examples("a")
    nothing = torch.empty(0)
    prompt = EncodedPrompt(example, nothing, nothing, nothing, nothing, question="")
    values = torch.tensor([[0.25, math.nan]], dtype=torch.float64)
    texts = ["(48.86, 2.35)", "nowhere"]
    rollouts = Rollouts([prompt], [[nothing] * 2], [[nothing] * 2], [texts], [[True] * 2])
    predictions = [[Prediction(texts[0], latlon_deg=PARIS), Prediction(texts[1])]]
    scores = Scores(values, {"judge": values}, values[None], torch.ones(1), predictions, values * 4)
    log.log_completions(completion_records(1, rollouts, scores, -values))
    (group,) = groups_of(log, "a")
    assert (group.step, group.id, group.true_latlon_deg, group.num_completions) == (1, "a", PARIS, 2)
    assert group.completions == [
        SampledCompletion(texts[0], PARIS, 1.0, 0.25, {"judge": 0.25}, -0.25),
        SampledCompletion(texts[1], None, None, None, {"judge": None}, None),
    ]


def test_what_is_missing_is_shown_as_missing(log: RunLog) -> None:
    nothing = {"predicted_latlon_deg": None, "distance_km": None, "reward": None, "advantage": None}
    log.log_completions(step_records(1, ["gone"], 1, rewards={"judge": None}, **nothing))
    (group,) = groups_of(log, "a")
    assert group.image is None
    section = completions_section([group])
    assert "not at hand any more" in section
    assert '<td class="point">–</td>' in section
    assert section.count('<td class="number">–</td>') == 3
    assert "judge –" in section
    assert "None" not in section
    assert "nan" not in section


def test_an_image_that_cannot_be_read_says_why(log: RunLog, tmp_path: Path) -> None:
    log.log_completions(step_records(1, ["a"], 1))
    (tmp_path / "a.png").write_bytes(b"no picture")
    groups = sampled_groups(log.folder / "completions.jsonl", [Example("a", tmp_path / "a.png", PARIS)])
    assert "a.png" in completions_section(groups)


def test_hostile_text_is_text(log: RunLog) -> None:
    log.log_completions([record(1, HOSTILE, 0, text=HOSTILE, rewards={HOSTILE: 1.0})])
    section = completions_section(groups_of(log, HOSTILE))
    assert "<script" not in section
    assert "onerror=alert(1)&gt;" in section
    assert section.count("<img") == section.count('<img src="data:image/jpeg;base64,') == 1
    assert section.count("</pre>") == 1


def test_a_picture_is_a_small_jpeg_without_anything_else_of_the_file(log: RunLog, tmp_path: Path) -> None:
    log.log_completions(step_records(1, ["a"], 1))
    exif = Image.Exif()
    exif[0x010E] = "SECRET PLACE"
    examples("a")[0].image.save(tmp_path / "a.jpg", exif=exif)
    groups = sampled_groups(log.folder / "completions.jsonl", [Example("a", tmp_path / "a.jpg", PARIS)])
    encoded = completions_section(groups).split("base64,")[1].split('"')[0]
    content = base64.b64decode(encoded)
    assert len(content) <= THUMBNAIL_BYTES
    assert b"SECRET" not in content
    with Image.open(io.BytesIO(content)) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", picture.size[0])
        assert max(picture.size) <= 160


def test_the_section_is_small_however_long_the_texts(log: RunLog) -> None:
    names = [f"image {i}" for i in range(NUM_GROUPS)]
    for step in range(1, 9):
        log.log_completions(step_records(step, names, NUM_COMPLETIONS, text="x" * 10 * MAX_TEXT_BYTES))
    assert len(completions_section(groups_of(log, *names))) < 400_000


def test_without_completions_there_is_no_section(tmp_path: Path) -> None:
    assert sampled_groups(tmp_path / "completions.jsonl", []) == []
    assert completions_section([]) == ""
    (tmp_path / "completions.jsonl").write_text(json.dumps({"step": 1})[:-3])
    assert sampled_groups(tmp_path / "completions.jsonl", []) == []
