"""Who answers: a policy in this process, or a model behind an OpenAI-compatible server.

Both are handed a picture and nothing else of the photograph: not its name, and not its metadata.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from geogrpo.chat_server import ChatServer, ServerOptions, bare_picture, jpeg_data_url
from geogrpo.config import RunConfig
from geogrpo.distributed import load_sharded
from geogrpo.evaluation.server import MAX_PIXELS, ask_for_answers
from geogrpo.prompts import PROMPTS
from geogrpo.rollout import make_engine
from geogrpo.seeds import Stream, stream_seed
from geogrpo.types import Example

OnText = Callable[[str], None]
"""Receives the greedy answer so far."""
NOWHERE = (0.0, 0.0)
"""An Example must have coordinates. What prompts and pictures are made of holds none of them."""


@dataclass(frozen=True)
class Sampling:
    """How answers are decoded, besides the greedy one."""

    num_samples: int = 8
    """0 samples none."""
    temperature: float = 1.0
    max_new_tokens: int = 512
    """Longest answer, end token included."""
    seed: int = 0
    """The same seed, model and picture give the same samples, whatever else was asked before."""

    def __post_init__(self) -> None:
        if self.num_samples != 0 and self.num_samples < 2:
            raise ValueError(f"--samples must be 0 or at least 2, got {self.num_samples}.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"--temperature must be above 0, got {self.temperature:g}.")
        for name, least in (("max_new_tokens", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, got {getattr(self, name)}.")


class Answerer(Protocol):
    """Whoever can be shown a picture."""

    def answer(self, picture: Image.Image, sampling: Sampling, on_text: OnText | None) -> tuple[str, list[str]]:
        """The greedy answer and the samples."""


class ModelAnswerer:
    """The model of config.model.path, asked config.answer.prompt, in this process. The text comes token by token.

    Raises:
        ValueError: naming the folder, when it holds no model that takes images.
    """

    def __init__(self, config: RunConfig) -> None:
        self._policy, self._processor = load_sharded(config.model, config.answer.prompt, config.parallel)
        self._engine = make_engine(config.grpo.sampling.engine, self._processor)

    def answer(self, picture: Image.Image, sampling: Sampling, on_text: OnText | None) -> tuple[str, list[str]]:
        try:
            prompts = [self._processor.encode_prompt(_example(picture))]
        except ValueError as error:
            # Its own message names an example, of which there is none here.
            raise ValueError(f"cannot be encoded for the model: {error.__cause__ or error}") from error
        options: dict[str, Any] = {
            "max_new_tokens": sampling.max_new_tokens,
            "seeds": [stream_seed(sampling.seed, Stream.EVALUATION)],
        }
        receive = None if on_text is None else lambda _, text: on_text(text)
        greedy = self._engine.sample(
            self._policy, prompts, group_size=1, temperature=0.0, on_text=receive, **options
        ).texts[0][0]
        if not sampling.num_samples:
            return greedy, []
        sampled = self._engine.sample(
            self._policy, prompts, group_size=sampling.num_samples, temperature=sampling.temperature, **options
        )
        return greedy, sampled.texts[0]


class ServerAnswerer:
    """A model behind a server. The greedy text comes at once, when it is whole.

    Args:
        prompt: a key of PROMPTS.
    Raises:
        ServerError: when the server does not say which model it serves.
    """

    def __init__(self, options: ServerOptions, prompt: str) -> None:
        # Asked before any picture is read, so that a wrong address is told at once.
        self._options = replace(options, model=asyncio.run(ChatServer(options).model_name()))
        self._question = PROMPTS[prompt]

    def answer(self, picture: Image.Image, sampling: Sampling, on_text: OnText | None) -> tuple[str, list[str]]:
        return asyncio.run(self._answer(picture, sampling, on_text))

    async def _answer(self, picture: Image.Image, sampling: Sampling, on_text: OnText | None) -> tuple[str, list[str]]:
        # A connection belongs to one event loop: a new one for each picture.
        server = ChatServer(self._options)
        url = jpeg_data_url(bare_picture(_example(picture), MAX_PIXELS))

        async def ask(num_answers: int, **options: float) -> list[str]:
            options |= {"max_tokens": sampling.max_new_tokens}
            return await ask_for_answers(server, url, self._question, num_answers, **options)

        (greedy,) = await ask(1, temperature=0.0)
        if on_text is not None:
            on_text(greedy)
        if not sampling.num_samples:
            return greedy, []
        return greedy, await ask(sampling.num_samples, temperature=sampling.temperature, seed=sampling.seed)


def _example(picture: Image.Image) -> Example:
    return Example("photograph", picture, NOWHERE)
