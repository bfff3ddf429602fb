"""A small OpenAI-compatible server for the tests of judges: a real model behind HTTP, which can be told to misbehave.

It reads requests by itself, with none of the code under test.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from geogrpo.config import TinyModelConfig
from geogrpo.policy.tiny import save_tiny_model

MODEL_NAME = "tiny-judge"
IMAGE_PAD = "<|image_pad|>"
TINY_JUDGE = TinyModelConfig(
    vocab_size=640,
    hidden_size=64,
    num_layers=2,
    num_heads=2,
    intermediate_size=96,
    vision_hidden_size=32,
    vision_layers=2,
    vision_heads=2,
    vision_intermediate_size=48,
)
COMMON_SHARE, NOISE_SHARE = 2.0, 0.7
YES_AND_NO = ("yes", "Yes", "YES", "no", "No", "NO")


def save_tiny_judge(folder: Path) -> None:
    """A Qwen2.5-VL with random weights that knows yes and no as tokens and is inclined to say them. Its weights are
    larger than at initialisation, so that picture and text matter.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    save_tiny_model(folder, TINY_JUDGE, YES_AND_NO * 50, [Image.fromarray(pixels)], seed=0)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0 if "embed" not in name else 10.0)
        _incline(model, tokenizer)
    model.save_pretrained(folder)


def _incline(model: Qwen2_5_VLForConditionalGeneration, tokenizer: Any) -> None:
    """Turn the embeddings of yes and no, which are tied to the head, towards what the model has in mind when it is to
    answer, each a little differently.
    """
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
        for text in ("yes or no?", "no idea", "Is it near the sea? Answer yes or no.", "one two three")
    ]
    ends = [model.model(torch.tensor([tokenizer.encode(prompt)])).last_hidden_state[0, -1] for prompt in prompts]
    common = torch.stack(ends).mean(0)
    weight = model.get_input_embeddings().weight
    noise = torch.randn(len(YES_AND_NO), len(common), generator=torch.Generator().manual_seed(0))
    ids = tokenizer.convert_tokens_to_ids(list(YES_AND_NO))
    weight[ids] = (COMMON_SHARE * common / common.norm() + NOISE_SHARE * noise / noise.norm(dim=-1, keepdim=True)) * (
        weight.norm(dim=-1).mean()
    )


class TinyModel:
    """Answers chat completions with the log-probs of one token."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._image_processor = AutoImageProcessor.from_pretrained(folder)
        self._model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self._lock = threading.Lock()

    def top_logprobs(self, picture: Image.Image, text: str, count: int) -> list[dict[str, Any]]:
        """The `count` likeliest first tokens of the answer, likeliest first."""
        features = self._image_processor(images=[picture], return_tensors="pt")
        num_placeholders = int(features["image_grid_thw"].prod()) // self._image_processor.merge_size**2
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
        prompt = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        prompt = prompt.replace(IMAGE_PAD, IMAGE_PAD * num_placeholders)
        token_ids = torch.tensor([self._tokenizer.encode(prompt, add_special_tokens=False)])
        is_image = (token_ids == self._tokenizer.convert_tokens_to_ids(IMAGE_PAD)).int()
        with self._lock, torch.no_grad():
            logits = self._model(input_ids=token_ids, mm_token_type_ids=is_image, **features).logits[0, -1]
        top = logits.log_softmax(-1).topk(count)
        return [
            {"token": self._tokenizer.decode([token_id]), "logprob": logprob, "bytes": None}
            for token_id, logprob in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    body: dict[str, Any]
    text: str
    jpeg: bytes
    at_s: float


class JudgeServer:
    """Serves the model in `folder` on a free port while the `with` block lasts.

    Attributes:
        received: chat requests so far, misbehaved-to ones included.
        script: how to misbehave at the next chat requests: keys of MISBEHAVIOUR, taken from the front.
        always: how to misbehave once the script is used up; None answers.
        models: the names served.
        delay_s: seconds to wait before answering a text.
        gate: answers wait for it; set at first.
    """

    def __init__(self, folder: Path) -> None:
        self._model = TinyModel(folder)
        self.received: list[Received] = []
        self.script: list[str] = []
        self.always: str | None = None
        self.models = [MODEL_NAME]
        self.delay_s: Callable[[str], float] = lambda text: 0.0
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()

    def __enter__(self) -> "JudgeServer":
        self._http = _QuietServer(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self.gate.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def chat(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | str:
        """Status and answer to a chat request, or how to misbehave."""
        (message,) = body["messages"]
        image, text = message["content"]
        jpeg = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        with self._lock:
            self.received.append(Received(body, text["text"], jpeg, time.monotonic()))
            misbehaviour = self.script.pop(0) if self.script else self.always
        self.gate.wait(30)
        if misbehaviour is not None:
            return misbehaviour
        time.sleep(self.delay_s(text["text"]))
        assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0, True)
        top = self._model.top_logprobs(Image.open(io.BytesIO(jpeg)), text["text"], body["top_logprobs"])
        return 200, _completion(top)


def _completion(top: list[dict[str, Any]] | None) -> dict[str, Any]:
    logprobs = None if top is None else {"content": [{**top[0], "top_logprobs": top}]}
    message = {"role": "assistant", "content": "maybe" if top is None else top[0]["token"]}
    choice = {"index": 0, "message": message, "finish_reason": "length", "logprobs": logprobs}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": MODEL_NAME, "choices": [choice]}


def _error(message: str) -> dict[str, Any]:
    return {"error": {"message": message}}


MISBEHAVIOUR: dict[str, tuple[int, bytes]] = {
    name: (status, json.dumps(body).encode())
    for name, status, body in (
        ("500", 500, _error("out of memory")),
        ("429", 429, _error("slow down")),
        ("401", 401, _error("wrong key")),
        ("400", 400, _error("top_logprobs must be at most 5")),
        ("no logprobs", 200, _completion(None)),
        ("no choices", 200, {"choices": []}),
        ("neither", 200, _completion([{"token": "maybe", "logprob": -0.1}, {"token": "yesterday", "logprob": -2.5}])),
        ("nan", 200, _completion([{"token": "yes", "logprob": float("nan")}])),
        ("a list", 200, [1, 2]),
    )
} | {
    "no json": (200, b"<html>Gateway</html>"),
    "truncated json": (200, json.dumps(_completion(None)).encode()[:50]),
}
"""Status and body by name. Besides: "hang" answers nothing for five seconds, "trickle" takes them to send spaces one by
one, and "reset" closes the connection."""


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    # The default of 5 refuses some of many connections at once.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""


def _handler_of(server: JudgeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            models = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in server.models]
            self._send(200, json.dumps({"object": "list", "data": models}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = server.chat(body)
            if isinstance(answer, tuple):
                self._send(answer[0], json.dumps(answer[1]).encode())
            elif answer in MISBEHAVIOUR:
                self._send(*MISBEHAVIOUR[answer])
            else:
                assert answer in ("hang", "trickle", "reset")
                if answer == "trickle":
                    self._send(200, b" ", num_announced=100)
                for _ in range(0 if answer == "reset" else 100):
                    time.sleep(0.05)
                    if answer == "trickle":
                        self.wfile.write(b" ")
                self.close_connection = True

        def _send(self, status: int, body: bytes, num_announced: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(num_announced or len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    return Handler
