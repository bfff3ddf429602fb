"""Models that answer yes or no about a picture and a text, as the probability of yes.

`ServerJudge` asks an OpenAI-compatible server, many things at once; `ModelJudge` holds a model in this process. Both
read the first token of the answer: p(yes) / (p(yes) + p(no)), each summed over SPELLINGS, after GLOBE (arXiv
2506.14674). A server shows its NUM_TOP_LOGPROBS likeliest tokens only. A spelling that is not among them counts as
probability 0, which is too little by no more than the last probability shown.

GLOBE's code turns any failure into 0. Here a failure is asked for again, and then stops the run: a completion that
was not judged has no value.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

from geogrpo.chat_server import ChatServer, ServerError, ServerOptions, UselessAnswer, beginning
from geogrpo.config import JudgeConfig

SPELLINGS: dict[str, frozenset[str]] = {
    word: frozenset(space + case for space in ("", " ") for case in (word, word.capitalize(), word.upper()))
    for word in ("yes", "no")
}
"""The tokens that count as each answer."""
NUM_TOP_LOGPROBS = 20
"""As many as the OpenAI API allows and vLLM gives by default (--max-logprobs)."""


class JudgeError(ValueError):
    """A judge that cannot answer. Nothing was scored."""


class ServerJudge:
    """A judge behind an OpenAI-compatible server, to be used in one event loop. Cancelling a call ends its request.

    Args:
        config: with a url.
    Raises:
        ValueError: when the openai package is missing.
    """

    def __init__(self, config: JudgeConfig) -> None:
        assert config.url is not None
        self._server = ChatServer(
            ServerOptions(
                config.url,
                model=config.model,
                api_key_env=config.api_key_env,
                timeout_s=config.timeout_s,
                max_retries=config.max_retries,
                who="judge",
                model_option="grpo.rewards.judge.model",
                advice="No completion is scored 0 for that: repair the server and resume, or raise"
                " grpo.rewards.judge.max_retries or .timeout_s.",
            )
        )

    def __str__(self) -> str:
        return str(self._server)

    async def check(self) -> None:
        """Raise JudgeError unless the server answers and it is clear which model is to be asked."""
        try:
            await self._server.served_models()
            await self._server.model_name()
        except ServerError as error:
            raise JudgeError(f"reward 'localizability': {error}") from error

    async def probability_of_yes(self, picture_url: str, text: str) -> float:
        """The probability that the answer to `text`, asked about the picture, is yes.

        Args:
            picture_url: from chat_server.jpeg_data_url.
        Raises:
            JudgeError: after config.max_retries further attempts, or at once where another one cannot help.
        """
        sampling = {"temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": NUM_TOP_LOGPROBS}
        try:
            return await self._server.ask(picture_url, text, probability_in_answer, **sampling)
        except ServerError as error:
            raise JudgeError(f"{error}{_advice(str(error))}") from error


def probability_in_answer(body: str) -> float:
    """p(yes) / (p(yes) + p(no)) from the body of a chat completion with log-probs.

    Raises:
        UselessAnswer: when the body is no JSON, or has no log-probs, or neither word is among them.
    """
    try:
        tokens = json.loads(body)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        logprobs = [(str(token["token"]), float(token["logprob"])) for token in tokens]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UselessAnswer(f"no log-probs in {beginning(body)}") from error
    shares = {
        word: sum(math.exp(min(logprob, 0.0)) for token, logprob in logprobs if token in spellings)
        for word, spellings in SPELLINGS.items()
    }
    total = sum(shares.values())
    # Not `total == 0`: a NaN is useless, too.
    if not total > 0:
        shown = ", ".join(repr(token) for token, _ in logprobs)
        raise UselessAnswer(f"neither yes nor no among the likeliest tokens ({shown})")
    return shares["yes"] / total


def _advice(reason: str) -> str:
    if "HTTP 4" in reason and "logprobs" in reason:
        return (
            f". The judge asks for {NUM_TOP_LOGPROBS} top_logprobs: start vLLM with --max-logprobs {NUM_TOP_LOGPROBS}"
            " or more, or take a server that returns log-probs."
        )
    return ""


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


def check_judge_folder(path: str) -> Any:
    """The configuration of the model in `path`.

    Raises:
        ValueError: when there is none, or the model reads no images.
    """
    folder = str(Path(path).expanduser())
    if path.startswith((".", "/", "~")) and not Path(folder).is_dir():
        raise ValueError(f"{_key(path)}: no such folder. Give an existing folder or a hub name (owner/model).")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _not_loaded(path, error) from error
    if type(config) not in PROCESSOR_MAPPING:
        raise _not_loaded(path, ValueError(f"models of type {config.model_type!r} read no images"))
    return config


def _key(path: str) -> str:
    return f"grpo.rewards.judge.path {path}"


def _not_loaded(path: str, error: Exception) -> ValueError:
    reason = str(error).rstrip(".")
    return ValueError(
        f"{_key(path)}: cannot load it: {reason}. Expected an image-text-to-text model in the Hugging Face layout, with"
        " safetensors, tokenizer and image processor."
    )


def _load(path: str, device: torch.device) -> tuple[Any, Any]:
    """The processor and the frozen model in `path`."""
    folder = str(Path(path).expanduser())
    key = _key(path)
    config = check_judge_folder(path)
    try:
        processor = _without_video(PROCESSOR_MAPPING[type(config)]).from_pretrained(folder, trust_remote_code=False)
        # Typed as if it returned the model alone.
        auto_class: Any = AutoModelForImageTextToText
        model, loaded = auto_class.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype="auto", output_loading_info=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise _not_loaded(path, error) from error
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


__all__ = ["JudgeError", "ModelJudge", "ServerJudge", "check_judge_folder"]
