"""Every option of a run, as frozen dataclasses; config_files reads and saves them."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise ValueError(f"{key} must be {expected}, got {value!r}.")


@dataclass(frozen=True)
class TinyModelConfig:
    """A Qwen2.5-VL of a few million parameters, made when model.path is None."""

    vocab_size: int = 4096
    """Size of the byte-level BPE vocabulary, special tokens included."""
    hidden_size: int = 256
    """Width of the language model."""
    num_layers: int = 4
    """Decoder layers of the language model."""
    num_heads: int = 4
    """Attention heads of the language model; hidden_size / num_heads must be a multiple of 16."""
    intermediate_size: int = 768
    """Width of the language model's gated MLP."""
    vision_hidden_size: int = 192
    """Width of the vision tower."""
    vision_layers: int = 4
    """Blocks of the vision tower, all with full attention."""
    vision_heads: int = 3
    """Attention heads of the vision tower."""
    vision_intermediate_size: int = 512
    """Width of the vision tower's gated MLP."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            _require(value > 0, f"model.tiny.{name}", value, "positive")
        for width, heads, unit in (("hidden_size", "num_heads", 16), ("vision_hidden_size", "vision_heads", 4)):
            per_head, rest = divmod(getattr(self, width), getattr(self, heads))
            _require(
                rest == 0 and per_head % unit == 0,
                f"model.tiny.{width}",
                getattr(self, width),
                f"{heads} ({getattr(self, heads)}) times a multiple of {unit}",
            )
        _require(self.vocab_size >= 512, "model.tiny.vocab_size", self.vocab_size, "at least 512 (256 bytes, specials)")


@dataclass(frozen=True)
class ModelConfig:
    """Which policy is trained."""

    path: str | None = None
    """Local folder or hub name of a Qwen2.5-VL or Qwen3-VL model. None makes a tiny one (model.tiny) from scratch."""
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)
    """Sizes of the model made when path is None."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Compute dtype of the forward and backward pass. Master weights, gradients and logits are float32."""
    min_pixels: int | None = None
    """Smaller images are enlarged to this many pixels. None keeps the image processor's own value."""
    max_pixels: int | None = None
    """Larger images are reduced to this many pixels. None keeps the image processor's own value."""
    attention: Literal["auto", "padded", "varlen", "flex"] = "auto"
    """How packed rows are computed: padded rectangles (anywhere), variable-length attention (CUDA, bfloat16),
    FlexAttention (CUDA). auto: varlen where it runs, else padded."""
    activation_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again: less memory, a third more work."""
    freeze_vision: bool = False
    """Train the language model alone: vision tower and aligner stay as loaded, whole on every rank, which encodes an
    image once."""
    vision_cache_gib: float = 4.0
    """freeze_vision: host memory per rank for encoded images (4 MB each for 1,000 tokens of a 3B model)."""
    vision_cache_folder: str | None = None
    """freeze_vision: where encoded images are kept for when memory has no room, and for later runs. None: nowhere."""
    vision_cache_folder_gib: float = 100.0
    """freeze_vision: what a rank writes there at most."""

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels"):
            value = getattr(self, name)
            _require(value is None or value > 0, f"model.{name}", value, "positive or None")
        for name in ("vision_cache_gib", "vision_cache_folder_gib"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"model.{name}", value, "0 or more")


@dataclass(frozen=True)
class DataConfig:
    """Where examples come from."""

    name: str = "blue_marble"
    """A key of geogrpo.data.DATASETS: blue_marble, jsonl, photos, table, im2gps3k, yfcc4k, osv5m and others."""
    path: str | None = None
    """JSONL file (jsonl), folder (photos) or table (all others) to train on. Not used by blue_marble."""
    test_path: str | None = None
    """The same for held-out examples. None holds out whole 1-degree cells of `path`."""
    grpo_path: str | None = None
    """The same for stage 2, where it trains on other examples than stage 1, such as the hard ones. None: `path`."""
    test_fraction: float = 0.1
    """Share of 1-degree cells held out, in (0, 1)."""
    num_test: int = 1000
    """Held-out examples to evaluate on; 0 takes all."""
    images: str | None = None
    """Tables: folder, .zip or .tar that the images are in, archives below a folder included. None: the table's."""
    test_images: str | None = None
    """The same for test_path. None: `images`."""
    columns: dict[str, str] = field(default_factory=dict)
    """Tables: what id, image, lat, lon, country, state, city, or a column for rewards, is called in the file."""
    allow_missing: bool = False
    """Tables: leave out and count rows without an image or coordinates. False: they stop the run, listed."""
    needs_images: bool = True
    """False: an image need not be there, as where the predictions of others are scored."""
    swap_coordinates: bool = False
    """Tables: the file calls latitudes longitudes, as one stored copy of im2gps3k_places365.csv does."""
    num_loaders: int | None = None
    """Threads per rank that read and encode images ahead of the step. None: a quarter of the rank's cores, or one."""
    max_image_pixels: int = 89_478_485
    """Larger images count as unreadable. The default is where Pillow begins to warn of decompression bombs."""
    crop_deg: float = 15.0
    """blue_marble: side of a crop in degrees (15 pixels each)."""
    max_shift_deg: float = 0.5
    """blue_marble: a crop's centre lies up to this far from its place, in latitude and in longitude."""
    city_min_population: int = 0
    """blue_marble: an answer's city is the nearest in the country of at least so many people; 0: the place itself."""

    def __post_init__(self) -> None:
        _require(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1")
        _require(self.num_test >= 0, "data.num_test", self.num_test, "0 or more")
        _require(self.num_loaders is None or self.num_loaders > 0, "data.num_loaders", self.num_loaders, "positive")
        _require(self.max_image_pixels > 0, "data.max_image_pixels", self.max_image_pixels, "positive")
        for name, column in self.columns.items():
            _require(bool(name and column), f"data.columns.{name}", column, "the name of a column")
        _require(1 <= self.crop_deg <= 90, "data.crop_deg", self.crop_deg, "between 1 and 90")
        _require(0 <= self.max_shift_deg <= 5, "data.max_shift_deg", self.max_shift_deg, "between 0 and 5")
        _require(self.city_min_population >= 0, "data.city_min_population", self.city_min_population, "0 or more")


@dataclass(frozen=True)
class AnswerConfig:
    """What the model is asked and how it answers."""

    prompt: str = "chain_of_region"
    """A key of geogrpo.prompts.PROMPTS."""
    decimals: int = 1
    """Decimals of the coordinates in supervised answers; 1 is 11 km, 2 is 1.1 km."""

    def __post_init__(self) -> None:
        _require(0 <= self.decimals <= 6, "answer.decimals", self.decimals, "between 0 and 6")


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up, then a linear decay to final_lr_fraction."""

    lr: float = 1e-6
    """Peak learning rate."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    final_lr_fraction: float = 0.0
    """Learning rate that the decay reaches after the last step, as a fraction of the peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """Decay of the gradient's mean."""
    beta2: float = 0.95
    """Decay of the gradient's square."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm. 0 turns clipping off."""

    def check(self, section: str) -> None:
        """Raise ValueError on a value out of range, naming its key below `section`; both stages have an optimizer."""
        for name in ("lr", "warmup_steps", "weight_decay", "max_grad_norm"):
            value = getattr(self, name)
            _require(0 <= value < math.inf, f"{section}.{name}", value, "0 or more")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"{section}.{name}", value, "at least 0 and below 1")
        fraction = self.final_lr_fraction
        _require(0 <= fraction <= 1, f"{section}.final_lr_fraction", fraction, "between 0 and 1")


@dataclass(frozen=True)
class SupervisedConfig:
    """Stage 1: Chain of Region supervision."""

    steps: int = 500
    """Optimizer steps. 0 skips the stage."""
    examples_per_step: int = 64
    """Examples per step, over all ranks."""
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-3))
    """Optimizer of this stage."""

    def __post_init__(self) -> None:
        _require(self.steps >= 0, "supervised.steps", self.steps, "0 or more")
        _require(self.examples_per_step > 0, "supervised.examples_per_step", self.examples_per_step, "positive")
        self.optimizer.check("supervised.optimizer")


@dataclass(frozen=True)
class SamplingConfig:
    """How completions are sampled."""

    engine: str = "native"
    """A key of geogrpo.rollout.ENGINES."""
    temperature: float = 1.0
    """Softmax temperature of sampling and of the log-probs in training. Greedy decoding is the evaluation's own."""
    max_new_tokens: int = 48
    """Longest completion, end token included."""
    max_rows: int = 1024
    """Completions decoded at once on a rank, the memory of their cache; further prompts join as others end."""

    def __post_init__(self) -> None:
        _require(0 < self.temperature < math.inf, "grpo.sampling.temperature", self.temperature, "above 0")
        _require(self.max_new_tokens > 0, "grpo.sampling.max_new_tokens", self.max_new_tokens, "positive")
        _require(self.max_rows > 0, "grpo.sampling.max_rows", self.max_rows, "positive")


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
            _require(0 < value < math.inf, f"grpo.rewards.judge.{name}", value, "positive")
        _require(self.max_retries >= 0, "grpo.rewards.judge.max_retries", self.max_retries, "0 or more")
        if self.url is not None:
            is_http = self.url.startswith(("http://", "https://"))
            _require(is_http, "grpo.rewards.judge.url", self.url, "an http:// or https:// address")
            _require(self.path is None, "grpo.rewards.judge.path", self.path, "None when a url is given")


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
            _require(math.isfinite(weight), f"grpo.rewards.weights.{name}", weight, "finite")
        if self.preset is not None and self.weights:
            raise ValueError(
                f"grpo.rewards.preset is {self.preset!r} and grpo.rewards.weights is {self.weights!r}: give one."
                " `preset: null` or `weights: {}` takes the other back."
            )


@dataclass(frozen=True)
class LossConfig:
    """The GRPO objective."""

    name: str = "grpo"
    """A key of geogrpo.losses.LOSSES."""
    clip_low: float = 0.2
    """The ratio is clipped below 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped above 1 + clip_high."""
    beta: float = 0.0
    """Weight of the k3 KL to the frozen reference. 0 loads no reference."""

    def __post_init__(self) -> None:
        _require(0 <= self.clip_low <= 1, "grpo.loss.clip_low", self.clip_low, "between 0 and 1")
        _require(0 <= self.clip_high < math.inf, "grpo.loss.clip_high", self.clip_high, "0 or more")
        _require(0 <= self.beta < math.inf, "grpo.loss.beta", self.beta, "0 or more")


@dataclass(frozen=True)
class GRPOConfig:
    """Stage 2: GRPO with one update per sample."""

    steps: int = 100
    """Optimizer steps. 0 skips the stage."""
    prompts_per_step: int = 16
    """Groups per step, over all ranks."""
    group_size: int = 8
    """Completions per prompt, at least 2."""
    advantage_scale: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the group's or the whole step's standard deviation, or not at all."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How completions are sampled."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    """What a completion earns."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The objective."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of this stage."""

    def __post_init__(self) -> None:
        _require(self.steps >= 0, "grpo.steps", self.steps, "0 or more")
        _require(self.prompts_per_step > 0, "grpo.prompts_per_step", self.prompts_per_step, "positive")
        _require(
            self.group_size >= 2,
            "grpo.group_size",
            self.group_size,
            "at least 2 (an advantage compares the completions of one prompt)",
        )
        self.optimizer.check("grpo.optimizer")


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation after each stage."""

    num_samples: int = 4
    """Sampled completions per image, besides the greedy one. 0 samples none."""
    temperature: float = 1.0
    """Temperature of the sampled completions."""
    batch_size: int = 256
    """Images decoded together on a rank."""
    bootstrap_samples: int = 2000
    """Resamples behind each 95 % interval."""

    def __post_init__(self) -> None:
        _require(self.num_samples >= 0, "evaluation.num_samples", self.num_samples, "0 or more")
        _require(0 < self.temperature < math.inf, "evaluation.temperature", self.temperature, "above 0")
        _require(self.batch_size > 0, "evaluation.batch_size", self.batch_size, "positive")
        _require(self.bootstrap_samples >= 100, "evaluation.bootstrap_samples", self.bootstrap_samples, "at least 100")


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
        _require(is_folder_name, "name", self.name, "a folder name")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.tokens_per_microbatch > 0, "tokens_per_microbatch", self.tokens_per_microbatch, "positive")
        _require(self.checkpoint_every >= 0, "checkpoint_every", self.checkpoint_every, "0 or more")
        _require(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "at least 1")
