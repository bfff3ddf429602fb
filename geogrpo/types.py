"""The data that passes between stages: frozen dataclasses of plain values and tensors.

Shapes: P prompts, G group, L longest completion, T packed tokens, S scored tokens, I images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from torch import Tensor


class ImageSource(Protocol):
    """Something that yields a picture when asked; str() names it in messages."""

    def open(self) -> Image.Image:
        """The picture, any mode. Raises OSError or ValueError when it cannot be read."""


@dataclass(frozen=True)
class Example:
    """One image and where it was taken.

    Raises:
        ValueError: when latlon_deg is not a finite (lat, lon) with lat in [-90, 90] and lon in [-180, 180].
    """

    id: str
    image: str | Path | Image.Image | ImageSource
    """File, picture in memory, or anything with `open()`."""
    latlon_deg: tuple[float, float]
    """(lat, lon), WGS84 degrees."""
    country: str | None = None
    """Country name. `regions.chain.fill_regions` fills what is None from the region index."""
    state: str | None = None
    """First-level division (state, province); filled unless `country` is another than the index's."""
    city: str | None = None
    """City or place; filled like the state."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else rewards need; passed to them by name."""

    def __post_init__(self) -> None:
        check_latlon(self.latlon_deg, f"example {self.id!r}")


def check_latlon(latlon_deg: tuple[float, float], where: str) -> None:
    """Raise ValueError, naming `where`, unless latlon_deg is a valid (lat, lon) in degrees."""
    lat_deg, lon_deg = latlon_deg
    if not -90 <= lat_deg <= 90:
        swapped = " Are latitude and longitude swapped?" if -90 <= lon_deg <= 90 and -180 <= lat_deg <= 180 else ""
        raise ValueError(f"{where}: latitude must be a number in [-90, 90], got {lat_deg}.{swapped}")
    if not -180 <= lon_deg <= 180:
        raise ValueError(f"{where}: longitude must be a number in [-180, 180], got {lon_deg}.")


@dataclass(frozen=True)
class Prediction:
    """What a completion says. A field is None where it says nothing usable.

    The fields after `problem` follow from the text, so two predictions are compared without them.
    """

    text: str
    country: str | None = None
    state: str | None = None
    city: str | None = None
    latlon_deg: tuple[float, float] | None = None
    """(lat, lon), in range."""
    problem: str | None = None
    """What is malformed or missing, joined by "; ": always set where latlon_deg is None or a level is ambiguous."""
    thinking: str | None = field(default=None, compare=False)
    """What stands before </think>, as written; None without that tag and without <think>."""
    answer: str = field(default="", compare=False)
    """The text that the fields were read from; "" where none could be told from the rest."""
    has_think_answer_tags: bool = field(default=False, compare=False)
    """Whether the whole text is <think>...</think><answer>...</answer>, as GLOBE's format reward asks."""
    num_coordinate_pairs: int = field(default=0, compare=False)
    """How many coordinate pairs the answer holds, in range or not."""


@dataclass(frozen=True)
class EncodedPrompt:
    """An example as the model reads it.

    Shapes: N patches of D values (or tiles of 3 x H x W where the model sees such), K prompt tokens.
    """

    example: Example
    token_ids: Tensor
    """(K,) int64, image placeholders included."""
    position_ids: Tensor
    """(3, K) int64 rotary positions: time, height, width; three times the same where they have one dimension."""
    pixel_values: Tensor
    """(N, D) or (N, 3, H, W) float32."""
    image_grid_thw: Tensor
    """(I, 3) int64 patches per image: time (or tiles), height, width."""
    question: str
    """The text of the prompt."""
    image_key: str | None = None
    """Names the image by its pixels, where features of a frozen vision tower are cached."""

    @property
    def next_position(self) -> int:
        """Rotary position of the first completion token."""
        return int(self.position_ids.max()) + 1


@dataclass(frozen=True)
class Rollouts:
    """P groups of G completions."""

    prompts: list[EncodedPrompt]
    token_ids: list[list[Tensor]]
    """P lists of G tensors (length,) int64; the end token is included where it was sampled."""
    logprobs: list[list[Tensor]]
    """The sampler's log-probability of every token, nats, shaped like token_ids."""
    texts: list[list[str]]
    """Decoded completions without special tokens."""
    is_finished: list[list[bool]]
    """True where the end token was sampled before the length limit."""

    def chosen(self, indices: Sequence[int]) -> "Rollouts":
        """The groups at some indices, in their order."""
        return Rollouts(**{name: [values[i] for i in indices] for name, values in vars(self).items()})

    def __add__(self, other: "Rollouts") -> "Rollouts":
        """These groups, then the other's."""
        return Rollouts(**{name: [*values, *getattr(other, name)] for name, values in vars(self).items()})


@dataclass(frozen=True)
class PackedBatch:
    """Whole groups in one row: [prompt | completion 1 | ... | completion G | next prompt | ...].

    The last token of a completion is a target but never an input. Shapes: C completions.
    """

    input_ids: Tensor
    """(T,) int64."""
    position_ids: Tensor
    """(3, T) int64."""
    pixel_values: Tensor
    """(N, D) or (N, 3, H, W) float32, every image once."""
    image_grid_thw: Tensor
    """(I, 3) int64."""
    prompt_lengths: Tensor
    """(P,) int64, host."""
    completion_lengths: Tensor
    """(C,) int64 input tokens of each completion, host."""
    completion_prompt: Tensor
    """(C,) int64: which prompt of this row a completion belongs to, host."""
    score_index: Tensor
    """(S,) int64: position in the row whose hidden state predicts the target."""
    target_ids: Tensor
    """(S,) int64."""
    target_completion: Tensor
    """(S,) int64: which completion of this row a target belongs to."""
    image_keys: tuple[str, ...] = ()
    """EncodedPrompt.image_key of each image, where all have one."""
