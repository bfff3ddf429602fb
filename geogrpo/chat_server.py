"""A model behind an OpenAI-compatible server: requests with pictures, asked again when they fail.

What does not answer after its retries is an error: nothing is made up because a server was down.
"""

import asyncio
import base64
import io
import json
import logging
import math
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from PIL import Image

from geogrpo.images import open_image
from geogrpo.types import Example

T = TypeVar("T")
logger = logging.getLogger(__name__)

JPEG_QUALITY = 95
RETRIED_STATUS = frozenset({408, 409, 429})
"""HTTP statuses that a second attempt may turn into an answer, besides those from 500."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before the second attempt; doubled for every further one, up to the longest. Each is shortened at random to between
half and all of it, so that many requests that failed together do not come back together."""
WARN_EVERY_S = 10.0
"""Failed attempts are logged at most this often: when a server is down, every request fails."""


class ServerError(ValueError):
    """A server that gives no answer."""


class UselessAnswer(Exception):
    """An answer without what was asked for."""


@dataclass(frozen=True)
class ServerOptions:
    """Which server, and how patiently it is asked."""

    url: str
    """Base URL such as http://localhost:8000/v1."""
    model: str | None = None
    """Its name there; None takes the one model served."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key."""
    timeout_s: float = 60.0
    max_retries: int = 5
    who: str = "server"
    """What messages call it."""
    model_option: str = "model"
    """The option that chooses the model, for a message."""
    advice: str = ""
    """What to do when it does not answer, for a message."""
    extra: str = "judge"
    """The extra of geogrpo that installs the client, for a message."""


class ChatServer:
    """A server, to be used in one event loop. Cancelling a call ends its request.

    Raises:
        ValueError: when the openai package is missing.
    """

    def __init__(self, options: ServerOptions) -> None:
        try:
            # Here, because it takes a second and only this class needs it.
            import openai
        except ModuleNotFoundError as error:
            raise ValueError(
                f"a {options.who} behind a server needs the openai package. Install it:"
                f" pip install 'geogrpo[{options.extra}]'"
            ) from error
        self._options, self._openai = options, openai
        # No retries of its own: useless answers are to be retried, too, and all of them counted.
        self._client = openai.AsyncOpenAI(
            base_url=options.url,
            api_key=os.environ.get(options.api_key_env) or "none",
            timeout=options.timeout_s,
            max_retries=0,
        )
        self._model = options.model
        self._model_lock = asyncio.Lock()
        self._jitter = random.Random()
        self._warned_at_s = -math.inf

    def __str__(self) -> str:
        return f"{self._options.who} {self._model or '(its one model)'} at {self._options.url}"

    async def ask(self, picture_url: str, text: str, read: Callable[[str], T], **sampling: Any) -> T:
        """What `read` makes of the answer to a text about a picture.

        Args:
            picture_url: from jpeg_data_url.
            read: the body of the chat completion -> what is wanted of it; raises UselessAnswer to have it asked again.
            sampling: temperature, max_tokens and so on.
        Raises:
            ServerError: after max_retries further attempts, or at once where another one cannot help.
        """
        model = await self.model_name()
        image = {"type": "image_url", "image_url": {"url": picture_url}}
        messages: Any = [{"role": "user", "content": [image, {"type": "text", "text": text}]}]

        async def ask_once() -> T:
            # The raw body: the client's own parsing would let any JSON pass.
            create = self._client.chat.completions.with_raw_response.create
            return read((await create(model=model, messages=messages, **sampling)).text)

        return await self._with_retries(ask_once)

    async def model_name(self) -> str:
        """The configured model, or the only one served.

        Raises:
            ServerError: when it must be asked for and there is no answer, or not exactly one model.
        """
        async with self._model_lock:
            if self._model is None:
                names = await self.served_models()
                if len(names) != 1:
                    raise ServerError(
                        f"{self._options.url} serves {len(names)} models ({', '.join(names)}): set"
                        f" {self._options.model_option} to one of them."
                    )
                self._model = names[0]
            return self._model

    async def served_models(self) -> list[str]:
        """The names of its models. Raises ServerError when it does not answer."""
        return await self._with_retries(self._list_models)

    async def _list_models(self) -> list[str]:
        body = (await self._client.models.with_raw_response.list()).text
        try:
            return [str(model["id"]) for model in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise UselessAnswer(f"no list of models in {beginning(body)}") from error

    async def _with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        num_attempts = self._options.max_retries + 1
        reason = ""
        for attempt in range(num_attempts):
            if attempt:
                await self._pause(attempt, reason)
            try:
                # The client's own timeout is for each read: a server that trickles would go on for ever.
                async with asyncio.timeout(self._options.timeout_s):
                    return await call()
            except self._openai.APIStatusError as error:
                reason = f"HTTP {error.status_code}: {beginning(error.response.text, 400)}"
                if error.status_code < 500 and error.status_code not in RETRIED_STATUS:
                    raise ServerError(f"{self} refused after {attempt + 1} attempt(s): {reason}") from error
            except (TimeoutError, self._openai.APITimeoutError):
                reason = f"no answer within {self._options.timeout_s:g} s"
            except self._openai.APIConnectionError as error:
                reason = f"{error} {error.__cause__ or ''}".strip()
            except UselessAnswer as error:
                reason = f"useless answer: {error}"
        advice = f" {self._options.advice}" if self._options.advice else ""
        raise ServerError(f"{self} did not answer in {num_attempts} attempt(s); the last: {reason}.{advice}")

    async def _pause(self, attempt: int, reason: str) -> None:
        pause_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S) * self._jitter.uniform(0.5, 1.0)
        if time.monotonic() - self._warned_at_s > WARN_EVERY_S:
            self._warned_at_s = time.monotonic()
            logger.warning("%s: attempt %d failed (%s); again in %.1f s.", self, attempt, reason, pause_s)
        await asyncio.sleep(pause_s)


def bare_picture(example: Example, max_pixels: int) -> Image.Image:
    """The example's picture, upright, in RGB, of at most max_pixels, and nothing but its pixels.

    Raises:
        ValueError: naming the example, when its image cannot be read.
    """
    picture = open_image(example)
    scale = math.sqrt(max_pixels / (picture.width * picture.height))
    if scale < 1:
        picture = picture.resize(
            (max(1, int(picture.width * scale)), max(1, int(picture.height * scale))), Image.Resampling.BICUBIC
        )
    # EXIF, XMP and comments hold where a photograph was taken; PIL would write some of them into a new file.
    picture.info = {}
    return picture


def jpeg_data_url(picture: Image.Image) -> str:
    """The RGB picture as a base64 `data:` URL, which is how the OpenAI API takes images."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def beginning(text: str, num_characters: int = 200) -> str:
    """The text's beginning, for a message."""
    text = " ".join(text.split())
    return repr(text if len(text) <= num_characters else text[:num_characters] + "...")
