"""python -m geogrpo.predict: what the model is shown, what is printed, and what goes wrong."""

import base64
import io
import json
import logging
import math
import pickle
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_stub import ChatStub
from PIL import Image
from prediction.photographs import NAIROBI, SECRET, pixels, save_photograph

from geogrpo import chat_server, predict
from geogrpo.config import AnswerConfig, GRPOConfig, LoraConfig, ModelConfig, RunConfig, SamplingConfig
from geogrpo.config_files import load_config, save_config
from geogrpo.rollout import ENGINES
from geogrpo.rollout.native import NativeEngine

ANSWER = "<think>Red soil.</think>Country: Kenya\nState: Mombasa County\nCity: Mombasa\nCoordinates: (-4.0435, 39.6682)"
HIDDEN = ("Mombasa", "Nairobi", "Red soil", "4.04", "39.66", "1.28", "36.82", SECRET)
"""Whatever is finer than a country in ANSWER and in the photographs' metadata."""

pytestmark = pytest.mark.usefixtures("device", "_shared_group")


@pytest.fixture
def _shared_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process group stays for the other tests."""
    monkeypatch.setattr(predict, "leave_together", lambda: None)


@pytest.fixture(autouse=True)
def _warnings_stay() -> Iterator[None]:
    """A limit silences the server's warnings for its process, which here goes on."""
    yield
    logging.getLogger("geogrpo.chat_server").setLevel(logging.NOTSET)


@pytest.fixture
def run_folder(tmp_path: Path, tiny_folder: Path) -> Path:
    """A finished run: config.yaml beside the model."""
    (tmp_path / "run").mkdir()
    config = RunConfig(
        model=ModelConfig(dtype="float32"),
        answer=AnswerConfig(prompt="short"),
        grpo=GRPOConfig(sampling=SamplingConfig(max_new_tokens=24)),
    )
    save_config(config, tmp_path / "run" / "config.yaml")
    shutil.copytree(tiny_folder, tmp_path / "run" / "model")
    return tmp_path / "run"


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    return save_photograph(tmp_path / "zorblax hill.jpg")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE_S", 0.001)
    with ChatStub(lambda number: [ANSWER] * number) as stub:
        stub.said = ANSWER
        yield stub


def run(*words: object) -> int:
    """The exit code."""
    try:
        predict.main([str(word) for word in words])
    except SystemExit as stopped:
        return int(str(stopped.code))
    return 0


def test_the_engine_receives_the_same_prompt_whatever_metadata_and_name_say(
    run_folder: Path, photograph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared is all that NativeEngine.sample is given: pixels, tokens and the example they are of."""
    received: list[tuple[Any, ...]] = []

    class Spy(NativeEngine):
        def sample(self, policy: Any, prompts: Any, **options: Any) -> Any:
            received.append((prompts, {name: value for name, value in options.items() if name != "on_text"}))
            return super().sample(policy, prompts, **options)

    monkeypatch.setitem(ENGINES, "native", Spy)
    with Image.open(photograph) as opened:
        bare = opened.convert("RGB")
    bare.info = {}
    bare.save(tmp_path / "a.png")
    assert run(photograph, tmp_path / "a.png", "--model", run_folder / "model") == 0
    assert len(received) == 4
    for ((with_gps,), options), ((without,), same_options) in zip(received[:2], received[2:], strict=True):
        assert options == same_options
        for name in ("token_ids", "position_ids", "pixel_values", "image_grid_thw"):
            assert torch.equal(getattr(with_gps, name), getattr(without, name))
        assert pickle.dumps(with_gps.example) == pickle.dumps(without.example)
        everything = pickle.dumps((with_gps, options)) + repr((with_gps, vars(with_gps.example.image))).encode()
        assert not [word for word in ("zorblax", SECRET, "36.82") if word.encode() in everything]
        assert (with_gps.example.image.info, dict(with_gps.example.image.getexif())) == ({}, {})


def test_the_server_receives_the_same_request_whatever_metadata_and_name_say(
    server: ChatStub, photograph: Path, tmp_path: Path
) -> None:
    with Image.open(photograph) as opened:
        bare = opened.convert("RGB")
    bare.info = {}
    bare.save(tmp_path / "a.png")
    assert run(photograph, tmp_path / "a.png", "--server", server.url, "--samples", 2, "--seed", 5) == 0
    greedy, sampled, *again = server.requests
    assert [greedy, sampled] == again
    (message,) = json.loads(greedy)["messages"]
    jpeg = base64.b64decode(message["content"][0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    for content in (greedy, sampled, jpeg.decode("latin-1")):
        assert not [word for word in ("zorblax", SECRET, "36.82", "Exif", "xmp") if word in content]
    shown = Image.open(io.BytesIO(jpeg))
    assert (shown.size, dict(shown.getexif())) == ((56, 56), {})
    options = [{key: json.loads(body).get(key) for key in ("n", "temperature", "seed")} for body in (greedy, sampled)]
    assert options == [{"n": 1, "temperature": 0.0, "seed": None}, {"n": 2, "temperature": 1.0, "seed": 5}]


def test_prompt_and_decoding_are_the_runs_unless_given(
    run_folder: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []

    class Spy(NativeEngine):
        def sample(self, policy: Any, prompts: Any, **options: Any) -> Any:
            received.append((prompts[0].question, options))
            return super().sample(policy, prompts, **options)

    monkeypatch.setitem(ENGINES, "native", Spy)
    words = (photograph, "--model", run_folder / "model")
    run(*words)
    given = ("--prompt", "globe", "--samples", 3, "--temperature", 0.5, "--max-new-tokens", 7, "--seed", 4)
    run(*words, *given)
    names = ("group_size", "temperature", "max_new_tokens", "seeds")
    asked = [(question[:12], *(options[name] for name in names)) for question, options in received]
    assert asked == [
        ("Where is thi", 1, 0.0, 24, [(0, 3, 0, 0)]),
        ("Where is thi", 8, 1.0, 24, [(0, 3, 0, 0)]),
        ("In which cou", 1, 0.0, 7, [(4, 3, 0, 0)]),
        ("In which cou", 3, 0.5, 7, [(4, 3, 0, 0)]),
    ]


def test_a_model_keeps_nothing_of_a_photograph_even_if_its_run_did(
    run_folder: Path, photograph: Path, tmp_path: Path
) -> None:
    config = load_config(str(run_folder / "config.yaml"))
    cache = {"freeze_vision": True, "vision_cache_gib": 0.0, "vision_cache_folder": str(tmp_path / "cache")}
    save_config(replace(config, model=replace(config.model, **cache)), run_folder / "config.yaml")
    # The second pushes the first out of memory.
    second = save_photograph(tmp_path / "b.jpg", picture=pixels(1))
    assert run(photograph, second, "--model", run_folder / "model", "--samples", 0) == 0
    assert not list(tmp_path.glob("cache/**/*"))


def test_a_model_trained_with_adapters_and_compiled_answers_without(
    run_folder: Path, photograph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(str(run_folder / "config.yaml"))
    trained = replace(config.model, lora=LoraConfig(rank=2), freeze_vision=True, compile=True)
    save_config(replace(config, model=trained), run_folder / "config.yaml")
    # They are merged into the exported weights.
    monkeypatch.setattr("geogrpo.policy.load.add_adapters", lambda *_: pytest.fail("adapters were added"))
    monkeypatch.setattr("geogrpo.policy.load.compile_blocks", lambda *_: pytest.fail("a prompt was compiled"))
    assert run(photograph, "--model", run_folder / "model", "--samples", 0) == 0


def test_an_answer_does_not_depend_on_the_other_images(
    run_folder: Path, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_photograph(photograph.with_name("b.png"), "PNG", pixels(1))
    words = ("--model", run_folder / "model", "--format", "json")
    run(photograph, other, *words)
    together = capsys.readouterr().out
    run(photograph, *words)
    run(other, *words)
    assert capsys.readouterr().out == together


def test_text_says_everything_and_how_far_it_is_from_the_own_position(
    server: ChatStub, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(photograph, "--server", server.url, "--samples", 4)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:7] == [
        "Country Kenya",
        "State Mombasa County",
        "City Mombasa",
        "Coordinates -4.0435, 39.6682",
        "Radius 50 % within 0.0 km, 90 % within 0.0 km (4 samples)",
        "Agreement 100% of the samples in Kenya, 100% in Mombasa County, 100% in Mombasa",
    ]
    assert "100% Mombasa, Mombasa County, Kenya (-4.0435, 39.6682) <- the answer" in "\n".join(lines)
    assert "Own GPS -1.283333, 36.82, Nairobi, Nairobi County, Kenya: 441 km from the answer" in lines
    assert lines[-1] == "Reasoning Red soil."


def test_json_is_one_object_a_line_and_geojson_one_collection(
    server: ChatStub, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_photograph(tmp_path / "b.png", "PNG", has_gps=False)
    words = (photograph, other, "--server", server.url, "--samples", 2)
    run(*words, "--format", "json")
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["image"], second["image"]) == (str(photograph), str(other))
    assert first["truth"]["latlon_deg"] == pytest.approx(NAIROBI, abs=1e-5)
    # The spherical law of cosines
    (lat, lon), (own_lat, own_lon) = (map(math.radians, point) for point in (first["latlon_deg"], NAIROBI))
    cosine = math.sin(lat) * math.sin(own_lat) + math.cos(lat) * math.cos(own_lat) * math.cos(lon - own_lon)
    assert first["truth"]["distance_km"] == pytest.approx(6371.0088 * math.acos(cosine), abs=0.01)
    assert second["truth"] is None
    run(*words, "--format", "geojson", "-o", tmp_path / "out.geojson")
    assert capsys.readouterr().out == ""
    collection = json.loads((tmp_path / "out.geojson").read_text())
    roles = [feature["properties"]["role"] for feature in collection["features"]]
    assert roles == ["alternative", "own_gps", "answer", "alternative", "answer"]


@pytest.mark.parametrize("format", predict.FORMATS)
def test_a_limit_hides_what_is_finer_from_the_output_and_from_errors(
    server: ChatStub, photograph: Path, format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    words = (photograph, "--server", server.url, "--samples", 2, "--granularity", "country")
    plain = tmp_path / "plain.jpg"
    plain.write_bytes(photograph.read_bytes())
    assert run(plain, *words[1:], "--format", format) == 0
    # A server that answers uselessly: its words are quoted to no one.
    server.answer = lambda number: []
    assert run(plain, *words[1:], "--format", format) == 2
    captured = capsys.readouterr()
    assert "Kenya" in captured.out
    assert "the server gave no usable answer" in captured.err
    said = captured.out + captured.err + caplog.text
    assert not [word for word in HIDDEN if word in said]


def test_without_a_limit_a_useless_answer_is_quoted(
    server: ChatStub, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda number: []
    assert run(photograph, "--server", server.url, "--samples", 2) == 2
    assert "no text in" in capsys.readouterr().err


def test_a_server_that_gives_one_answer_at_a_time_is_asked_for_each(
    server: ChatStub, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = lambda number: [ANSWER]
    assert run(photograph, "--server", server.url, "--samples", 3) == 0
    assert "3 samples" in capsys.readouterr().out


def test_an_image_that_cannot_be_read_is_named_and_the_others_answered(
    server: ChatStub, photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    other = save_photograph(tmp_path / "b.png", "PNG")
    words = (photograph, bad, tmp_path / "gone.jpg", other, "--server", server.url, "--format", "json")
    assert run(*words, "--samples", 0) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["image"] for line in captured.out.splitlines()] == [str(photograph), str(other)]
    assert captured.err.splitlines() == [
        f"geogrpo.predict: {bad}: not a JPEG, PNG, WebP, TIFF or HEIC image",
        f"geogrpo.predict: {tmp_path}/gone.jpg: No such file or directory",
    ]


def test_a_picture_the_model_cannot_take_is_one_that_cannot_be_answered(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (1000, 2)).save(tmp_path / "thin.png")
    assert run(tmp_path / "thin.png", "--model", run_folder / "model") == 1
    assert f"{tmp_path}/thin.png: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "/no/such/folder"], "--model /no/such/folder: no such folder."),
        (["--model", "/tmp"], "model /tmp: cannot load its model configuration"),
        (["--server", "localhost:8000"], "--server must be an http:// or https:// address, got 'localhost:8000'."),
        (["--server", "http://127.0.0.1:9/v1"], "did not answer in 6 attempt(s)"),
        (["--model", ".", "--server-model", "m"], "--server-model names a model on a server: give --server."),
        (["--model", ".", "--prompt", "riddle"], "--prompt 'riddle' is unknown. Known: chain_of_region"),
        (["--model", ".", "--samples", "1"], "--samples must be 0 or at least 2, got 1."),
        (["--model", ".", "--temperature", "0"], "--temperature must be above 0, got 0."),
        (["--model", ".", "--max-new-tokens", "0"], "--max-new-tokens must be at least 1, got 0."),
        (["--model", ".", "--seed", "-1"], "--seed must be at least 0, got -1."),
        (["--model", ".", "-o", "/no/such/folder/out"], "-o /no/such/folder/out: there is no folder /no/such/folder."),
        (["--model", ".", "-o", "a.jpg"], "-o a.jpg: that is one of the images."),
    ],
)
def test_bad_options_end_with_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE_S", 0.001)
    assert run("a.jpg", *words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"geogrpo.predict: error: {message}") or message in line
