"""Which model is trained."""

import math
from dataclasses import dataclass, field
from typing import Literal

from geogrpo.config.checks import require


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
            require(value > 0, f"model.tiny.{name}", value, "positive")
        for width, heads, unit in (("hidden_size", "num_heads", 16), ("vision_hidden_size", "vision_heads", 4)):
            per_head, rest = divmod(getattr(self, width), getattr(self, heads))
            require(
                rest == 0 and per_head % unit == 0,
                f"model.tiny.{width}",
                getattr(self, width),
                f"{heads} ({getattr(self, heads)}) times a multiple of {unit}",
            )
        require(self.vocab_size >= 512, "model.tiny.vocab_size", self.vocab_size, "at least 512 (256 bytes, specials)")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters on the language model (arXiv 2106.09685), through peft; everything else stays as loaded."""

    rank: int = 0
    """Rank of the adapters. 0: none, all parameters train."""
    alpha: float = 32.0
    """The adapters' product is scaled by alpha / rank."""
    targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Names of the language model's linear layers that get one."""

    def __post_init__(self) -> None:
        require(self.rank >= 0, "model.lora.rank", self.rank, "0 or more")
        require(0 < self.alpha < math.inf, "model.lora.alpha", self.alpha, "above 0")
        require(len(self.targets) > 0, "model.lora.targets", self.targets, "at least one name")


@dataclass(frozen=True)
class ModelConfig:
    """Which policy is trained."""

    path: str | None = None
    """Local folder or hub name of a Qwen2-VL, Qwen2.5-VL, Qwen3-VL or InternVL model. None makes a tiny one
    (model.tiny) from scratch."""
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)
    """Sizes of the model made when path is None."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Compute dtype of the forward and backward pass. Master weights, gradients and logits are float32."""
    min_pixels: int | None = None
    """Smaller images are enlarged to this many pixels. None keeps the image processor's own value. InternVL: to so many
    tiles (of 448 x 448 pixels) as hold them."""
    max_pixels: int | None = None
    """Larger images are reduced to this many pixels. None keeps the image processor's own value. InternVL: to whole
    tiles; where there are several, the whole picture is one more."""
    attention: Literal["auto", "padded", "varlen", "flex"] = "auto"
    """How packed rows are computed: padded rectangles (anywhere), variable-length attention (CUDA, bfloat16),
    FlexAttention (CUDA). auto: varlen where it runs, else padded."""
    activation_checkpointing: bool = False
    """Keep only each block's input for the backward pass and compute the rest again: less memory, a third more work."""
    compile: bool = False
    """torch.compile each block of the language model, its attention left out. The first steps compile."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Train adapters instead of the language model's own parameters."""
    freeze_vision: bool = False
    """The vision tower stays as loaded; with its aligner frozen, too, it is whole on every rank, which encodes an image
    once."""
    freeze_aligner: bool | None = None
    """What leads from the tower to the language model stays as loaded. None: as freeze_vision."""
    vision_cache_gib: float = 4.0
    """freeze_vision: host memory per rank for encoded images (4 MB each for 1,000 tokens of a 3B model)."""
    vision_cache_folder: str | None = None
    """freeze_vision: where encoded images are kept for when memory has no room, and for later runs. None: nowhere."""
    vision_cache_folder_gib: float = 100.0
    """freeze_vision: what a rank writes there at most."""

    def __post_init__(self) -> None:
        for name in ("min_pixels", "max_pixels"):
            value = getattr(self, name)
            require(value is None or value > 0, f"model.{name}", value, "positive or None")
        require(
            not self.lora.rank or self.caches_vision,
            "model.lora.rank",
            self.lora.rank,
            "0 unless model.freeze_vision is true and model.freeze_aligner is not false: the adapters are the language"
            " model's",
        )
        for name in ("vision_cache_gib", "vision_cache_folder_gib"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"model.{name}", value, "0 or more")

    @property
    def is_aligner_frozen(self) -> bool:
        """Whether the aligner stays as loaded."""
        return self.freeze_vision if self.freeze_aligner is None else self.freeze_aligner

    @property
    def caches_vision(self) -> bool:
        """Whether an image's features never change, so that they are computed once."""
        return self.freeze_vision and self.is_aligner_frozen
