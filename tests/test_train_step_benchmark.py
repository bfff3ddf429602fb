"""What benchmarks/bench_train_step.py rests on: the dense path, the clock, the memory, the work given to everybody."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from benchmarks import train_step_work
from benchmarks.train_step_dense import load_dense_policy, unpack
from benchmarks.train_step_models import never_sampled, save_demo_model
from benchmarks.train_step_results import markdown
from benchmarks.train_step_work import (
    PeakMemory,
    StepTimes,
    Work,
    given_completions,
    pictures,
    reset_peak_resident_bytes,
)
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor

WORK = Work(
    model="",
    prompt="short",
    question="Where is this?",
    never_sampled=[0, 3, 4],
    vocab_size=7,
    image_size=(56, 28),
    num_prompts=3,
    group_size=2,
    new_tokens=50,
    warmup=2,
    repeats=3,
)


def test_a_packed_row_gives_its_prompts_and_completions_back(groups: list[Group]) -> None:
    prompts, completions = unpack(pack(groups))
    assert [row.tolist() for row in prompts] == [group.prompt.token_ids.tolist() for group in groups]
    assert [row.tolist() for row in completions] == [row.tolist() for group in groups for row in group.completions]


def test_the_dense_path_computes_what_the_shared_one_does(
    tiny_folder: Path, policy: Policy, processor: Processor, groups: list[Group]
) -> None:
    dense = load_dense_policy(str(tiny_folder), processor.tokenizer)
    with torch.no_grad():
        expected, _ = dense(pack(groups))
        actual, _ = policy(pack(groups))
    assert (actual - expected).norm() < 1e-5 * expected.norm()


def test_a_step_lasts_from_the_end_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([0.0, 50.0, 52.0, 55.0, 61.0])
    monkeypatch.setattr(train_step_work.time, "perf_counter", lambda: next(ends))
    times = StepTimes()
    for sampling in ([30.0], [20.0], [1.0], [0.5, 0.5], [2.0]):
        for part in sampling:
            times.sampled(part)
        times.end()
    assert times.summary(WORK) == {
        "step_s": 3.0,
        "step_s_min": 2.0,
        "step_s_max": 6.0,
        "sampling_s": 1.0,
        "sampling_s_min": 1.0,
        "sampling_s_max": 2.0,
        "update_s": 2.0,
        "update_s_min": 1.0,
        "update_s_max": 4.0,
        "completions_per_s": 2.0,
    }


def test_a_peak_is_seen_though_the_mark_is_reset() -> None:
    with PeakMemory() as memory:
        before = memory.bytes
        block = np.ones(200_000_000, dtype=np.uint8)
        # As long as the watching thread may sleep, and more
        train_step_work.time.sleep(20 * train_step_work.POLL_S)
        del block
        reset_peak_resident_bytes()
    assert memory.bytes >= before + 150_000_000


def test_everybody_is_given_the_same_tokens_and_pictures() -> None:
    completions = given_completions(WORK)
    assert completions == given_completions(WORK)
    assert np.shape(completions) == (3, 2, 50)
    assert set(np.ravel(completions)) == {1, 2, 5, 6}
    images = [np.asarray(picture) for picture in pictures(WORK)]
    assert np.shape(images) == (15, 28, 56, 3)
    assert len({image.tobytes() for image in images}) == 15


def test_the_demo_model_has_a_word_for_every_id_and_samples_no_special_one(tmp_path: Path) -> None:
    save_demo_model(tmp_path, max_pixels=56 * 56)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == json.loads((tmp_path / "config.json").read_text())["text_config"]["vocab_size"]
    assert tokenizer.decode(tokenizer.encode("Where is this?")) == "Where is this?"
    assert all(tokenizer.decode([i]) for i in range(len(tokenizer) - 100, len(tokenizer)))
    assert set(never_sampled(tmp_path)) == set(tokenizer.all_special_ids)


def test_results_are_printed_with_what_was_left_out() -> None:
    spread = {f"{name}_s{end}": 2.0 for name in ("step", "sampling", "update") for end in ("", "_min", "_max")}
    row = {
        "contender": "geogrpo",
        "dtype": "float32",
        "note": "",
        "problem": "448 px",
        "image_size": [448, 448],
        "num_prompts": 2,
        "num_prompt_tokens": 1268,
        "group_size": 8,
        "new_tokens": 32,
        "completions_per_s": 8.0,
        "process_mb": 1037.0,
        "process_before_mb": 531.5,
        "device_mb": 0.0,
        "versions": {},
        **spread,
    }
    machine = {"device": "a CPU", "threads": 2, "versions": {"torch": "2.13.0"}}
    text = markdown({"steps": {"machine": machine, "rows": [row], "skipped": {"TRL": "there is none"}}})
    assert "448 px: 2 prompts of 1,268 tokens (448 x 448 pixels), G = 8, 32 new tokens" in text
    assert "| **geogrpo**, float32 | 2 s (2 to 2) |" in text
    assert "GPU" not in text
    assert "Not measured: TRL (there is none)." in text
