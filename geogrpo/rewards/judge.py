"""Models that answer yes or no about a picture and a text, as the probability of yes.

`ServerJudge` asks an OpenAI-compatible server, many things at once; `ModelJudge` holds a model in this process. Both
read the first token of the answer: p(yes) / (p(yes) + p(no)), each summed over SPELLINGS, after GLOBE (arXiv
2506.14674). A server shows its NUM_TOP_LOGPROBS likeliest tokens only. A spelling that is not among them counts as
probability 0, which is too little by no more than the last probability shown.

GLOBE's code turns any failure into 0. Here a failure is asked for again, and then stops the run: a completion that
was not judged has no value.
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
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from geogrpo.config import JudgeConfig
from geogrpo.images import open_image
from geogrpo.types import Example

T = TypeVar("T")
logger = logging.getLogger(__name__)

SPELLINGS: dict[str, frozenset[str]] = {
    word: frozenset(space + case for space in ("", " ") for case in (word, word.capitalize(), word.upper()))
    for word in ("yes", "no")
}
"""The tokens that count as each answer."""
NUM_TOP_LOGPROBS = 20
"""As many as the OpenAI API allows and vLLM gives by default (--max-logprobs)."""
JPEG_QUALITY = 95
RETRIED_STATUS = frozenset({408, 409, 429})
"""HTTP statuses that a second attempt may turn into an answer, besides those from 500."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before the second attempt; doubled for every further one, up to the longest. Each is shortened at random to between
half and all of it, so that many requests that failed together do not come back together."""
WARN_EVERY_S = 10.0
"""Failed attempts are logged at most this often: when a server is down, every request fails."""


class JudgeError(ValueError):
    """A judge that cannot answer. Nothing was scored."""


class _UselessAnswer(Exception):
    """An answer without the probability that was asked for."""


def judge_picture(example: Example, max_pixels: int) -> Image.Image:
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


class ServerJudge:
    """A judge behind an OpenAI-compatible server, to be used in one event loop. Cancelling a call ends its request.

    Args:
        config: with a url.
    Raises:
        ValueError: when the openai package is missing.
    """

    def __init__(self, config: JudgeConfig) -> None:
        try:
            # Here, because it takes a second and only this class needs it.
            import openai
        except ModuleNotFoundError as error:
            raise ValueError(
                "a judge behind a server needs the openai package. Install it: pip install 'geogrpo[judge]'"
            ) from error
        self._config, self._openai = config, openai
        # No retries of its own: useless answers are to be retried, too, and all of them counted.
        self._client = openai.AsyncOpenAI(
            base_url=config.url,
            api_key=os.environ.get(config.api_key_env) or "none",
            timeout=config.timeout_s,
            max_retries=0,
        )
        self._model = config.model
        self._model_lock = asyncio.Lock()
        self._jitter = random.Random()
        self._warned_at_s = -math.inf

    def __str__(self) -> str:
        return f"judge {self._model or '(its one model)'} at {self._config.url}"

    async def probability_of_yes(self, picture_url: str, text: str) -> float:
        """The probability that the answer to `text`, asked about the picture, is yes.

        Args:
            picture_url: from jpeg_data_url.
        Raises:
            JudgeError: after config.max_retries further attempts, or at once where another one cannot help.
        """
        model = await self._model_name()
        image = {"type": "image_url", "image_url": {"url": picture_url}}
        messages: Any = [{"role": "user", "content": [image, {"type": "text", "text": text}]}]

        async def ask() -> float:
            # The raw body: the client's own parsing would let any JSON pass.
            response = await self._client.chat.completions.with_raw_response.create(
                model=model,
                messages=messages,
                temperature=0,
                max_tokens=1,
                logprobs=True,
                top_logprobs=NUM_TOP_LOGPROBS,
            )
            return probability_in_answer(response.text)

        return await self._with_retries(ask)

    async def _model_name(self) -> str:
        """The configured model, or the only one served."""
        async with self._model_lock:
            if self._model is None:
                names = await self._with_retries(self._served_models)
                if len(names) != 1:
                    raise JudgeError(
                        f"{self._config.url} serves {len(names)} models ({', '.join(names)}): set"
                        " grpo.rewards.judge.model to one of them."
                    )
                self._model = names[0]
            return self._model

    async def _served_models(self) -> list[str]:
        body = (await self._client.models.with_raw_response.list()).text
        try:
            return [str(model["id"]) for model in json.loads(body)["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _UselessAnswer(f"no list of models in {_beginning(body)}") from error

    async def _with_retries(self, call: Callable[[], Awaitable[T]]) -> T:
        num_attempts = self._config.max_retries + 1
        reason = ""
        for attempt in range(num_attempts):
            if attempt:
                await self._pause(attempt, reason)
            try:
                # The client's own timeout is for each read: a server that trickles would go on for ever.
                async with asyncio.timeout(self._config.timeout_s):
                    return await call()
            except self._openai.APIStatusError as error:
                reason = f"HTTP {error.status_code}: {_beginning(error.response.text, 400)}"
                if error.status_code < 500 and error.status_code not in RETRIED_STATUS:
                    message = f"{self} refused after {attempt + 1} attempt(s): {reason}{_advice(reason)}"
                    raise JudgeError(message) from error
            except (TimeoutError, self._openai.APITimeoutError):
                reason = f"no answer within grpo.rewards.judge.timeout_s ({self._config.timeout_s:g} s)"
            except self._openai.APIConnectionError as error:
                reason = f"{error} {error.__cause__ or ''}".strip()
            except _UselessAnswer as error:
                reason = f"useless answer: {error}"
        raise JudgeError(
            f"{self} did not answer in {num_attempts} attempt(s); the last: {reason}. No completion is scored 0 for"
            " that: repair the server and resume, or raise grpo.rewards.judge.max_retries or .timeout_s."
        )

    async def _pause(self, attempt: int, reason: str) -> None:
        pause_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S) * self._jitter.uniform(0.5, 1.0)
        if time.monotonic() - self._warned_at_s > WARN_EVERY_S:
            self._warned_at_s = time.monotonic()
            logger.warning("%s: attempt %d failed (%s); again in %.1f s.", self, attempt, reason, pause_s)
        await asyncio.sleep(pause_s)


def probability_in_answer(body: str) -> float:
    """p(yes) / (p(yes) + p(no)) from the body of a chat completion with log-probs.

    Raises:
        _UselessAnswer: when the body is no JSON, or has no log-probs, or neither word is among them.
    """
    try:
        tokens = json.loads(body)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        logprobs = [(str(token["token"]), float(token["logprob"])) for token in tokens]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise _UselessAnswer(f"no log-probs in {_beginning(body)}") from error
    shares = {
        word: sum(math.exp(min(logprob, 0.0)) for token, logprob in logprobs if token in spellings)
        for word, spellings in SPELLINGS.items()
    }
    total = sum(shares.values())
    # Not `total == 0`: a NaN is useless, too.
    if not total > 0:
        shown = ", ".join(repr(token) for token, _ in logprobs)
        raise _UselessAnswer(f"neither yes nor no among the likeliest tokens ({shown})")
    return shares["yes"] / total


def _advice(reason: str) -> str:
    if "logprobs" in reason:
        return (
            f". The judge asks for {NUM_TOP_LOGPROBS} top_logprobs: start vLLM with --max-logprobs {NUM_TOP_LOGPROBS}"
            " or more, or take a server that returns log-probs."
        )
    return "."


def _beginning(text: str, num_characters: int = 200) -> str:
    """The text's beginning, for a message."""
    text = " ".join(text.split())
    return repr(text if len(text) <= num_characters else text[:num_characters] + "...")


class ModelJudge:
    """A frozen image-text-to-text model of transformers in this process, on the current GPU where there is one.

    Args:
        path: folder or hub name, in safetensors. No code of the checkpoint is run.
        batch_size: questions answered together.
    Raises:
        ValueError: naming grpo.rewards.judge.path, when it cannot be loaded or has no tokens for yes and no.
    """

    def __init__(self, path: str, *, batch_size: int) -> None:
        self._path, self._batch_size = path, batch_size
        has_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda", torch.cuda.current_device()) if has_gpu else torch.device("cpu")
        self._processor, self._model = _load(path, self._device)
        self._token_ids = {
            word: torch.tensor(_single_tokens(self._processor.tokenizer, word, path), device=self._device)
            for word in SPELLINGS
        }

    def __str__(self) -> str:
        return f"judge {self._path}"

    def probabilities_of_yes(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
        """For every picture and text, the probability that the answer to the text is yes; NaN where the model gives
        NaN.
        """
        values: list[float] = []
        for start in range(0, len(texts), self._batch_size):
            rows = slice(start, start + self._batch_size)
            logits = self._first_token_logits(pictures[rows], texts[rows]).double()
            yes, no = (logits[:, self._token_ids[word]].logsumexp(-1) for word in ("yes", "no"))
            values += torch.sigmoid(yes - no).tolist()
        return values

    @torch.no_grad()
    def _first_token_logits(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        """(B, V) logits of the answers' first tokens."""
        conversations = [
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}] for text in texts
        ]
        prompts = self._processor.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
        inputs = self._processor(
            text=prompts,
            images=[[picture] for picture in pictures],
            padding=True,
            padding_side="left",
            # They are in the chat template.
            add_special_tokens=False,
            return_tensors="pt",
        ).to(self._device, dtype=self._model.dtype)
        # `generate` rather than a call: each family's positions for padded rows are its own business.
        output = self._model.generate(
            **inputs,
            max_new_tokens=1,
            num_beams=1,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return output.logits[0]


def _load(path: str, device: torch.device) -> tuple[Any, Any]:
    """The processor and the frozen model in `path`."""
    folder = str(Path(path).expanduser())
    key = f"grpo.rewards.judge.path {path}"
    if path.startswith((".", "/", "~")) and not Path(folder).is_dir():
        raise ValueError(f"{key}: no such folder. Give an existing folder or a hub name (owner/model).")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        if type(config) not in PROCESSOR_MAPPING:
            raise ValueError(f"models of type {config.model_type!r} read no images")
        processor = _without_video(PROCESSOR_MAPPING[type(config)]).from_pretrained(folder, trust_remote_code=False)
        # Typed as if it returned the model alone.
        auto_class: Any = AutoModelForImageTextToText
        model, loaded = auto_class.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype="auto", output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"{key}: cannot load it: {reason}. Expected an image-text-to-text model in the Hugging Face layout, with"
            " safetensors, tokenizer and image processor."
        ) from error
    if loaded["missing_keys"]:
        # transformers makes up what is missing, at random.
        raise ValueError(f"{key}: its checkpoint lacks weights: {', '.join(sorted(loaded['missing_keys'])[:3])}.")
    tokenizer = processor.tokenizer
    processor.chat_template = processor.chat_template or tokenizer.chat_template
    if processor.chat_template is None:
        raise ValueError(f"{key}: it has no chat template. Take the model's instruct version.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return processor, model.to(device).eval().requires_grad_(False)


def _without_video(processor_class: Any) -> Any:
    """The processor class without the parts for video and sound, which would need torchvision and others."""

    class ImageTextProcessor(processor_class):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name in ("image_processor", "tokenizer")]

    return ImageTextProcessor


def _single_tokens(tokenizer: Any, word: str, path: str) -> list[int]:
    """The ids of the word's spellings that are one token."""
    encoded = (tokenizer.encode(spelling, add_special_tokens=False) for spelling in sorted(SPELLINGS[word]))
    ids = {token_ids[0] for token_ids in encoded if len(token_ids) == 1} - {tokenizer.unk_token_id}
    if not ids:
        raise ValueError(f"grpo.rewards.judge.path {path}: its tokenizer has no single token for {word!r}.")
    return sorted(ids)


__all__ = ["JudgeError", "ModelJudge", "ServerJudge", "jpeg_data_url", "judge_picture"]
