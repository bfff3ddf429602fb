"""What a completion earns."""

import math
from dataclasses import dataclass, field
from typing import Literal

from geogrpo.config.checks import require


@dataclass(frozen=True)
class JudgeConfig:
    """The model that judged rewards (`localizability`) ask: behind a server, or in this process."""

    url: str | None = None
    """Base URL of an OpenAI-compatible server that returns log-probs, such as http://localhost:8000/v1."""
    model: str | None = None
    """Its name on the server. None takes the one model served. Not used without url."""
    path: str | None = None
    """Folder or hub name of an image-text-to-text model to load in this process instead of a server."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key; a server without keys needs none."""
    timeout_s: float = 60.0
    """Seconds after which a request counts as failed."""
    max_retries: int = 5
    """Times that a failed request or a useless answer is asked for again, with growing pauses. 0: never."""
    concurrency: int = 32
    """Requests under way at once, per rank."""
    batch_size: int = 8
    """Completions judged together in this process."""
    max_pixels: int = 1_003_520
    """Larger images are reduced to this many pixels before the judge sees them (GLOBE's bound)."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "concurrency", "batch_size", "max_pixels"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"grpo.rewards.judge.{name}", value, "positive")
        require(self.max_retries >= 0, "grpo.rewards.judge.max_retries", self.max_retries, "0 or more")
        if self.url is not None:
            is_http = self.url.startswith(("http://", "https://"))
            require(is_http, "grpo.rewards.judge.url", self.url, "an http:// or https:// address")
            require(self.path is None, "grpo.rewards.judge.path", self.path, "None when a url is given")


@dataclass(frozen=True)
class RewardConfig:
    """Weighted sum of rewards, times gates. By preset, or by weights."""

    preset: str | None = None
    """A key of geogrpo.rewards.PRESETS. None takes `weights`, or multiscale where there are none."""
    weights: dict[str, float] = field(default_factory=dict)
    """Reward name (a key of geogrpo.rewards.REWARDS) to weight. Empty takes the preset's."""
    gates: list[str] | None = None
    """Rewards in [0, 1] that multiply the sum. None: the preset's, and `format` with weights. []: none."""
    aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = "sum_then_normalize"
    """Advantages of the weighted sum, or the weighted sum of each reward's own advantages (GDPO)."""
    on_error: Literal["stop", "missing"] = "stop"
    """A reward that raises or returns no finite number stops the run, or is missing there: it counts as the mean of the
    group's others."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    """The model that judged rewards ask."""

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            require(math.isfinite(weight), f"grpo.rewards.weights.{name}", weight, "finite")
        if self.preset is not None and self.weights:
            raise ValueError(
                f"grpo.rewards.preset is {self.preset!r} and grpo.rewards.weights is {self.weights!r}: give one."
                " `preset: null` or `weights: {}` takes the other back."
            )
