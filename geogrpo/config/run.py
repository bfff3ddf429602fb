"""A whole run."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from geogrpo.config.checks import require
from geogrpo.config.data import AnswerConfig, DataConfig
from geogrpo.config.grpo import GRPOConfig
from geogrpo.config.model import ModelConfig
from geogrpo.config.optimizer import SupervisedConfig

TRACKERS = ("wandb", "trackio")
"""Experiment trackers that logging.trackers can name."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation, after each stage and, where asked for, while stage 2 trains."""

    num_samples: int = 4
    """Sampled completions per image, besides the greedy one. 0 samples none."""
    temperature: float = 1.0
    """Temperature of the sampled completions."""
    batch_size: int = 256
    """Images decoded together on a rank."""
    bootstrap_samples: int = 2000
    """Resamples behind each 95 % interval."""
    every_steps: int = 0
    """Steps of stage 2 between evaluations. 0: none by steps."""
    every_minutes: float = 0.0
    """Minutes of stage 2 between evaluations. 0: none by time."""
    num_images: int = 0
    """Held-out images of an evaluation while training, the first ones. 0: all."""
    best_metric: str = "greedy_reward"
    """What decides which evaluation was the best: a key of evaluation.during.METRICS. The best checkpoint is kept."""
    patience: int = 0
    """Evaluations without a better one after which stage 2 ends early. 0: it never does."""

    def __post_init__(self) -> None:
        require(self.num_samples >= 0, "evaluation.num_samples", self.num_samples, "0 or more")
        require(0 < self.temperature < math.inf, "evaluation.temperature", self.temperature, "above 0")
        require(self.batch_size > 0, "evaluation.batch_size", self.batch_size, "positive")
        for name in ("every_steps", "every_minutes", "num_images", "patience"):
            require(0 <= getattr(self, name) < math.inf, f"evaluation.{name}", getattr(self, name), "0 or more")
        require(
            not self.patience or self.every_steps > 0 or self.every_minutes > 0,
            "evaluation.patience",
            self.patience,
            "0 unless evaluation.every_steps or evaluation.every_minutes is above 0: nothing would be compared",
        )
        require(self.bootstrap_samples >= 100, "evaluation.bootstrap_samples", self.bootstrap_samples, "at least 100")


@dataclass(frozen=True)
class ParallelConfig:
    """How parameters, gradients and optimizer state are spread over ranks."""

    shard_within: Literal["all", "node"] = "all"
    """all: sharded over all ranks (FSDP2). node: sharded over a node's ranks, a copy on every node (HSDP): gathering
    parameters then stays within a node, and only gradients travel between nodes."""
    cpu_offload: bool = False
    """Keep them in host memory between their uses, where the optimizer then runs: a larger model on the same GPUs."""


@dataclass(frozen=True)
class LoggingConfig:
    """Who gets the metrics, besides metrics.jsonl and TensorBoard, and what is worth a warning."""

    trackers: list[str] = field(default_factory=list)
    """Any of wandb, trackio; each needs the extra of its name."""
    project: str = "geogrpo"
    """What the runs are filed under there."""
    alert_window: int = 20
    """Steps that an alert looks back over, at least 4. 0: no alerts."""
    alert_parse_rate: float = 0.5
    """Alert when fewer answers than this share can be read."""
    alert_country_share: float = 0.5
    """Alert when more of the answers than this share lie in one country, and twice as many as of the true places."""
    alert_entropy: float = 0.02
    """Alert when the entropy of a token, in nats, falls below."""

    def __post_init__(self) -> None:
        for name in self.trackers:
            require(name in TRACKERS, "logging.trackers", name, f"one of {', '.join(TRACKERS)}")
        is_window = self.alert_window == 0 or self.alert_window >= 4
        require(is_window, "logging.alert_window", self.alert_window, "0 or at least 4")
        for name in ("alert_parse_rate", "alert_country_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"logging.{name}", value, "between 0 and 1")
        require(self.alert_entropy >= 0, "logging.alert_entropy", self.alert_entropy, "0 or more")


@dataclass(frozen=True)
class RunConfig:
    """One run of `torchrun -m geogrpo.train`."""

    name: str = "demo"
    """Folder of the run below output_dir."""
    output_dir: str = "runs"
    """Where runs are kept."""
    seed: int = 0
    """Seeds the model, the order of the data and every sample."""
    tokens_per_microbatch: int = 16384
    """Budget of one packed row, in unique tokens. A larger group is split, its prompt computed once in each part."""
    communicate_once: bool = False
    """Several rows per step: gather parameters and add up gradients once per step and not for every row. Every rank
    then holds all parameters and gradients meanwhile."""
    checkpoint_every: int = 0
    """Steps between checkpoints, besides the one after each stage. 0 writes no others."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    """How the model is spread over ranks."""
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    """Where metrics go."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The policy."""
    data: DataConfig = field(default_factory=DataConfig)
    """The examples."""
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    """The prompt and the answer's format."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """Stage 1."""
    grpo: GRPOConfig = field(default_factory=GRPOConfig)
    """Stage 2."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """Held-out evaluation."""

    def __post_init__(self) -> None:
        is_folder_name = Path(self.name).name == self.name and self.name not in ("", ".", "..")
        require(is_folder_name, "name", self.name, "a folder name")
        require(self.seed >= 0, "seed", self.seed, "0 or more")
        require(self.tokens_per_microbatch > 0, "tokens_per_microbatch", self.tokens_per_microbatch, "positive")
        require(self.checkpoint_every >= 0, "checkpoint_every", self.checkpoint_every, "0 or more")
        require(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "at least 1")
        require(
            self.grpo.reference.kind != "adapter_off" or self.model.lora.rank > 0,
            "grpo.reference.kind",
            self.grpo.reference.kind,
            "auto or copy unless model.lora.rank is above 0: without an adapter there is none to turn off",
        )
