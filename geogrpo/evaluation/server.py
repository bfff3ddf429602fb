"""Answers of any model behind an OpenAI-compatible server, asked as a policy is: greedy and sampled."""

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

from geogrpo.chat_server import (
    ChatServer,
    ServerError,
    ServerOptions,
    UselessAnswer,
    bare_picture,
    beginning,
    jpeg_data_url,
)
from geogrpo.config import EvaluationConfig
from geogrpo.evaluation.answers import held_out_prediction
from geogrpo.evaluation.policy import Answered
from geogrpo.types import Example

MAX_PIXELS = 4_000_000
"""Larger pictures are reduced before they are sent; models reduce them further."""
CONCURRENCY = 16
"""Images asked about at once."""


def answer_by_server(
    options: ServerOptions,
    question: str,
    examples: Sequence[Example],
    config: EvaluationConfig,
    *,
    max_new_tokens: int,
    seed: int,
    start: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Answered]:
    """Answers in batches of config.batch_size images, in order, and a message for each unreadable image.

    Args:
        question: the text beside the picture.
        start: position of the first example to answer.
    Raises:
        ServerError: naming the example, when the server gives no answer after its retries.
    """
    # One loop for all batches: the client's connections belong to it.
    with asyncio.Runner() as runner:
        asker = _Asker(options, question, config, max_new_tokens, seed, max_pixels)
        for begin in range(start, len(examples), config.batch_size):
            positions = range(begin, min(begin + config.batch_size, len(examples)))
            yield runner.run(asker.answer([(position, examples[position]) for position in positions]))


class _Asker:
    def __init__(
        self,
        options: ServerOptions,
        question: str,
        config: EvaluationConfig,
        max_new_tokens: int,
        seed: int,
        max_pixels: int,
    ) -> None:
        self._server = ChatServer(options)
        self._question, self._config, self._seed = question, config, seed
        self._max_new_tokens, self._max_pixels = max_new_tokens, max_pixels
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def answer(self, examples: Sequence[tuple[int, Example]]) -> Answered:
        # The first failure raises; the runner calls the others off.
        found = await asyncio.gather(*(self._texts(position, example) for position, example in examples))
        answered, skipped = [], []
        for (_, example), texts in zip(examples, found, strict=True):
            if isinstance(texts, str):
                skipped.append(texts)
            else:
                answered.append(held_out_prediction(example, texts[0], texts[1:]))
        return answered, skipped

    async def _texts(self, position: int, example: Example) -> list[str] | str:
        """The greedy answer and the samples; a message when the image cannot be read."""
        async with self._slots:
            try:
                url = await asyncio.to_thread(lambda: jpeg_data_url(bare_picture(example, self._max_pixels)))
            except ValueError as error:
                return str(error)
            try:
                greedy = await self._ask(url, 1, temperature=0.0)
                sampled = []
                if self._config.num_samples:
                    seed = self._seed + position
                    sampled = await self._ask(
                        url, self._config.num_samples, temperature=self._config.temperature, seed=seed
                    )
            except ServerError as error:
                raise ServerError(f"example {example.id!r}: {error}") from error
            return greedy + sampled

    async def _ask(self, url: str, num_answers: int, **sampling: Any) -> list[str]:
        return await ask_for_answers(
            self._server, url, self._question, num_answers, max_tokens=self._max_new_tokens, **sampling
        )


async def ask_for_answers(
    server: ChatServer, picture_url: str, question: str, num_answers: int, **sampling: Any
) -> list[str]:
    """So many texts. A server that gives fewer at once, as some do whatever `n` says, is asked for the rest singly.

    Args:
        sampling: max_tokens, temperature, and a seed, which the further requests count on from.
    Raises:
        ServerError: see ChatServer.ask.
    """
    texts = await server.ask(picture_url, question, texts_in, n=num_answers, **sampling)
    while len(texts) < num_answers:
        again = sampling | ({"seed": sampling["seed"] + len(texts)} if "seed" in sampling else {})
        texts += (await server.ask(picture_url, question, texts_in, n=1, **again))[:1]
    return texts[:num_answers]


def texts_in(body: str) -> list[str]:
    """The texts of a chat completion, at least one.

    Raises:
        UselessAnswer: when the body is no JSON or holds no text.
    """
    try:
        # A model that was cut while it reasoned, or refused, has no content: an answer of nothing, a miss.
        texts = [choice["message"]["content"] or "" for choice in json.loads(body)["choices"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UselessAnswer(f"no answer in {beginning(body)}") from error
    if not texts or not all(isinstance(text, str) for text in texts):
        raise UselessAnswer(f"no text in {beginning(body)}")
    return texts
