"""Judges against a real tiny model: behind HTTP, in this process, and behind a server that misbehaves."""

import asyncio
import io
import json
import math
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from judge_server import MISBEHAVIOUR, MODEL_NAME, YES_AND_NO, JudgeServer, TinyModel, save_tiny_judge
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save_file

from geogrpo import chat_server
from geogrpo.chat_server import bare_picture, jpeg_data_url
from geogrpo.config import JudgeConfig
from geogrpo.rewards.judge import (
    JudgeError,
    ModelJudge,
    ServerJudge,
    probability_in_answer,
)
from geogrpo.types import Example

TEXTS = ["Is it France?", "yes or no?", "A tower, red soil and palm trees. Can you tell?", ""]
SIZES = [(112, 112), (112, 56), (56, 56), (140, 56)]
GPS_IFD, GPS_LATITUDE, USER_COMMENT = 0x8825, 2, 0x9286


def photograph(seed: int, size: tuple[int, int] = (112, 112)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE_S", 0.01)


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    save_tiny_judge(folder)
    return folder


@pytest.fixture
def server(judge_folder: Path) -> Iterator[JudgeServer]:
    with JudgeServer(judge_folder) as server:
        yield server


def ask(server: JudgeServer, text: str = TEXTS[0], **options: object) -> float:
    """The probability of yes for one picture."""
    return asyncio.run(judge_all(server, [photograph(0)], [text], **options))[0]


async def judge_all(
    server: JudgeServer, pictures: list[Image.Image], texts: list[str], **options: object
) -> list[float]:
    """The probability of yes for each picture and text, one after another."""
    judge = ServerJudge(JudgeConfig(url=server.url, **options))
    return [
        await judge.probability_of_yes(jpeg_data_url(picture), text)
        for picture, text in zip(pictures, texts, strict=True)
    ]


def test_server_and_model_in_this_process_agree(server: JudgeServer, judge_folder: Path) -> None:
    pictures = [photograph(i, size) for i, size in enumerate(SIZES) for _ in TEXTS]
    over_http = asyncio.run(judge_all(server, pictures, TEXTS * len(SIZES)))
    # The pictures as they arrived: JPEG changes them a little.
    pictures = [Image.open(io.BytesIO(request.jpeg)) for request in server.received]
    in_process = ModelJudge(str(judge_folder), batch_size=3).probabilities_of_yes(pictures, TEXTS * len(SIZES))
    assert over_http == pytest.approx(in_process, abs=2e-6)
    # Neither picture nor text goes unseen.
    by_picture = np.reshape(over_http, (len(SIZES), len(TEXTS)))
    assert np.ptp(by_picture, axis=0).min() > 1e-3
    assert np.ptp(by_picture, axis=1).min() > 1e-2


def test_the_probability_is_that_of_all_spellings(judge_folder: Path) -> None:
    top = TinyModel(judge_folder).top_logprobs(photograph(0), TEXTS[0], 640)
    share = {token["token"]: math.exp(token["logprob"]) for token in top}
    expected = sum(share[word] for word in ("yes", "Yes", "YES")) / sum(share[word] for word in YES_AND_NO)
    (actual,) = ModelJudge(str(judge_folder), batch_size=1).probabilities_of_yes([photograph(0)], TEXTS[:1])
    assert actual == pytest.approx(expected, abs=1e-6)


def test_a_judgement_does_not_depend_on_what_it_is_batched_with(judge_folder: Path) -> None:
    pictures = [photograph(i, size) for i, size in enumerate(SIZES)]
    judged = [
        ModelJudge(str(judge_folder), batch_size=batch_size).probabilities_of_yes(pictures, TEXTS)
        for batch_size in (1, 3, 8)
    ]
    assert judged[1] == pytest.approx(judged[0], abs=2e-6)
    assert judged[2] == pytest.approx(judged[0], abs=2e-6)


def test_a_model_in_this_process_is_frozen_and_leaves_the_random_numbers_alone(judge_folder: Path) -> None:
    before = torch.get_rng_state()
    judge = ModelJudge(str(judge_folder), batch_size=2)
    first = judge.probabilities_of_yes([photograph(0)] * 3, TEXTS[:3])
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(parameter.requires_grad for parameter in judge._model.parameters())
    assert not judge._model.training
    torch.manual_seed(1)
    assert judge.probabilities_of_yes([photograph(0)] * 3, TEXTS[:3]) == first


@pytest.fixture
def damaged_folder(tmp_path: Path, judge_folder: Path) -> Path:
    """A copy of the judge that a test may change."""
    return Path(shutil.copytree(judge_folder, tmp_path / "judge"))


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="grpo.rewards.judge.path /no/such/folder: no such folder"):
        ModelJudge("/no/such/folder", batch_size=1)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"grpo.rewards.judge.path {tmp_path}: cannot load it"):
        ModelJudge(str(tmp_path), batch_size=1)


def test_a_model_of_text_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="models of type 'llama' read no images"):
        ModelJudge(str(tmp_path), batch_size=1)


def test_a_checkpoint_that_lacks_weights_is_refused(damaged_folder: Path) -> None:
    weights = load_file(damaged_folder / "model.safetensors")
    (norm,) = (name for name in weights if name.endswith(".norm.weight") and "layers" not in name)
    del weights[norm]
    save_file(weights, damaged_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="lacks weights: .*norm.weight"):
        ModelJudge(str(damaged_folder), batch_size=1)


def test_a_model_without_a_chat_template_is_refused(damaged_folder: Path) -> None:
    (damaged_folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        ModelJudge(str(damaged_folder), batch_size=1)


def test_a_tokenizer_without_yes_is_refused(damaged_folder: Path) -> None:
    tokenizer = json.loads((damaged_folder / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = []
    (damaged_folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match="no single token for 'yes'"):
        ModelJudge(str(damaged_folder), batch_size=1)


def test_a_server_that_recovers_is_asked_again(server: JudgeServer) -> None:
    expected = ask(server)
    for trouble in [*MISBEHAVIOUR, "reset"]:
        if trouble in ("401", "400"):
            continue
        server.received.clear()
        server.script = [trouble, trouble]
        assert ask(server) == expected, trouble
        assert len(server.received) == 3, trouble


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("500", "HTTP 500: .*out of memory"),
        ("429", "HTTP 429: .*slow down"),
        ("reset", "Connection error. Server disconnected"),
        ("no json", "no log-probs in '<html>Gateway"),
        ("truncated json", "no log-probs in '{.id"),
        ("no logprobs", "no log-probs in '{.id"),
        ("no choices", "no log-probs in '{.choices"),
        ("a list", r"no log-probs in '\[1, 2\]'"),
        ("nan", r"neither yes nor no among the likeliest tokens \('yes'\)"),
        ("neither", r"neither yes nor no among the likeliest tokens \('maybe', 'yesterday'\)"),
    ],
)
def test_a_server_that_keeps_failing_stops_with_its_last_reason(server: JudgeServer, trouble: str, reason: str) -> None:
    server.always = trouble
    with pytest.raises(JudgeError, match=f"{MODEL_NAME} at {server.url} did not answer in 3 attempt.*{reason}"):
        ask(server, max_retries=2)
    assert len(server.received) == 3


@pytest.mark.parametrize("trouble", ["hang", "trickle"])
def test_a_server_that_hangs_is_given_up_after_the_timeout(server: JudgeServer, trouble: str) -> None:
    server.always = trouble
    started = time.monotonic()
    with pytest.raises(JudgeError, match="in 2 attempt.*no answer within 0.2 s"):
        ask(server, max_retries=1, timeout_s=0.2)
    # Much less than the five seconds it hangs
    assert time.monotonic() - started < 4
    server.always, server.script = None, [trouble]
    assert 0 < ask(server, timeout_s=1.0) < 1


@pytest.mark.parametrize(
    ("trouble", "reason"), [("401", "HTTP 401: .*wrong key"), ("400", "vLLM with --max-logprobs 20")]
)
def test_what_no_second_attempt_can_mend_stops_at_once(server: JudgeServer, trouble: str, reason: str) -> None:
    server.always = trouble
    with pytest.raises(JudgeError, match=reason):
        ask(server)
    assert len(server.received) == 1


def test_no_server_at_all_is_an_error(server: JudgeServer) -> None:
    server.stop()
    with pytest.raises(JudgeError, match="its one model.*in 2 attempt.*Connection error. All connection"):
        ask(server, max_retries=1)


def test_pauses_double(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(chat_server.random.Random, "uniform", lambda self, low, high: high)
    server.always = "500"
    with pytest.raises(JudgeError):
        ask(server, max_retries=3)
    pauses_s = np.diff([request.at_s for request in server.received])
    assert (pauses_s >= [0.2, 0.4, 0.8]).all()


def test_the_only_model_served_is_found_and_one_of_many_must_be_named(server: JudgeServer) -> None:
    ask(server)
    assert server.received[-1].body["model"] == MODEL_NAME
    server.models = ["judge", "adapter"]
    with pytest.raises(JudgeError, match=r"serves 2 models \(judge, adapter\): set grpo.rewards.judge.model"):
        ask(server)
    ask(server, model="adapter")
    assert server.received[-1].body["model"] == "adapter"
    server.models = []
    with pytest.raises(JudgeError, match="serves 0 models"):
        ask(server)


def test_the_key_comes_from_the_environment(server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    judge = ServerJudge(JudgeConfig(url=server.url, api_key_env="JUDGE_KEY"))
    assert judge._server._client.api_key == "secret"
    monkeypatch.delenv("JUDGE_KEY")
    assert 0 < ask(server, api_key_env="JUDGE_KEY") < 1


def test_a_missing_openai_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ValueError, match=r"pip install 'geogrpo\[judge\]'"):
        ServerJudge(JudgeConfig(url="http://localhost:1/v1"))


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ({"yes": math.log(0.6), "no": math.log(0.2), "maybe": math.log(0.2)}, 0.75),
        ({" Yes": math.log(0.3), "YES": math.log(0.3), " NO": math.log(0.2)}, 0.75),
        ({"yes": -9999.0, "no": -0.1}, 0.0),
        ({"Yes": -3.0, "yesterday": -0.1, "No!": -0.1}, 1.0),
    ],
)
def test_probabilities_by_hand(logprobs: dict[str, float], expected: float) -> None:
    top = [{"token": token, "logprob": logprob} for token, logprob in logprobs.items()]
    body = json.dumps({"choices": [{"logprobs": {"content": [{"top_logprobs": top}]}}]})
    assert probability_in_answer(body) == pytest.approx(expected)


def place_marked_files(folder: Path) -> list[Path]:
    """The same picture as JPEG and PNG, with its place in EXIF, XMP and comments."""
    exif = Image.Exif()
    exif.get_ifd(GPS_IFD)[GPS_LATITUDE] = (48.0, 51.0, 30.0)
    exif[USER_COMMENT] = "secret place"
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">secret place</x:xmpmeta>'
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "secret place")
    photograph(0).save(folder / "a.jpg", exif=exif, xmp=xmp, comment=b"secret place", quality=95)
    photograph(0).save(folder / "a.png", exif=exif, pnginfo=text)
    return [folder / "a.jpg", folder / "a.png"]


def test_the_picture_that_is_sent_says_nothing_but_its_pixels(server: JudgeServer, tmp_path: Path) -> None:
    for file in place_marked_files(tmp_path):
        assert b"secret place" in file.read_bytes()
        picture = bare_picture(Example("a", file, (0.0, 0.0)), max_pixels=10**6)
        asyncio.run(judge_all(server, [picture], ["?"]))
        jpeg = server.received[-1].jpeg
        sent = Image.open(io.BytesIO(jpeg))
        assert (sent.format, sent.mode, sent.size) == ("JPEG", "RGB", (112, 112))
        assert len(sent.getexif()) == 0
        assert b"secret place" not in jpeg
        assert b"Exif" not in jpeg


def test_large_pictures_are_reduced_in_shape_and_small_ones_are_not() -> None:
    for size, max_pixels in (((2000, 1000), 20_000), ((1000, 2000), 19_999), ((2000, 1000), 1_003_520)):
        picture = bare_picture(Example("a", photograph(0, size), (0.0, 0.0)), max_pixels)
        assert 0.95 * max_pixels < picture.width * picture.height <= max_pixels
        assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.02)
    assert bare_picture(Example("a", photograph(0, (30, 20)), (0.0, 0.0)), 600).size == (30, 20)


def test_the_example_keeps_what_its_picture_says() -> None:
    picture = photograph(0)
    picture.info["comment"] = b"kept"
    assert bare_picture(Example("a", picture, (0.0, 0.0)), 10**6).info == {}
    assert picture.info == {"comment": b"kept"}
