"""Stage 2: GRPO."""

import math
import sys
from dataclasses import dataclass, field
from typing import Literal

from geogrpo.config.checks import require
from geogrpo.config.optimizer import OptimizerConfig
from geogrpo.config.rewards import RewardConfig

LARGEST = sys.float_info.max


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
    correction: Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = "none"
    """For an engine that is not the policy itself: weigh each token, or each completion, by policy / sampler
    probability, cut off at correction_cap (truncate) or 0 above it (mask)."""
    correction_cap: float = 3.0
    """Largest such weight."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "grpo.sampling.temperature", self.temperature, "above 0")
        require(self.max_new_tokens > 0, "grpo.sampling.max_new_tokens", self.max_new_tokens, "positive")
        require(self.max_rows > 0, "grpo.sampling.max_rows", self.max_rows, "positive")
        require(self.correction_cap > 0, "grpo.sampling.correction_cap", self.correction_cap, "above 0")


@dataclass(frozen=True)
class LossConfig:
    """The objective; docs/losses.md has each loss's formula."""

    name: str = "dapo"
    """A key of geogrpo.losses.LOSSES."""
    clip_low: float | None = None
    """The ratio is clipped below 1 - clip_low. None: as the loss was published (losses.LOSSES)."""
    clip_high: float | None = None
    """The ratio is clipped above 1 + clip_high. None: as the loss was published."""
    delta: float | None = None
    """Upper bound of the ratio where the advantage is negative (two-sided or dual clip), above 1 + clip_high. None:
    none."""
    tau_positive: float = 1.0
    """sapo: temperature of its gate where the advantage is positive."""
    tau_negative: float = 1.05
    """sapo: the same where it is negative; the larger, the faster the gate closes."""
    beta: float = 0.0
    """Weight of the KL to the reference. 0 loads no reference."""
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k3"
    """How that KL is estimated from the sampled tokens, or exact over the vocabulary at each of their positions."""
    kl_in: Literal["loss", "reward"] = "loss"
    """loss: added to every token's loss. reward: beta times a completion's sum is taken off its reward."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    top_entropy_share: float = 1.0
    """Only this share of the step's tokens, those of highest entropy, gets a policy gradient; 1: all."""

    def __post_init__(self) -> None:
        for name, highest, expected in (("clip_low", 1.0, "between 0 and 1"), ("clip_high", LARGEST, "0 or more")):
            value = getattr(self, name)
            is_given_well = value is None or 0 <= value <= highest
            require(is_given_well, f"grpo.loss.{name}", value, f"{expected}, or null for the loss's own")
        for name in ("delta", "tau_positive", "tau_negative"):
            value = getattr(self, name)
            require(value is None or 0 < value < math.inf, f"grpo.loss.{name}", value, "above 0")
        require(0 <= self.beta < math.inf, "grpo.loss.beta", self.beta, "0 or more")
        require(math.isfinite(self.entropy_coef), "grpo.loss.entropy_coef", self.entropy_coef, "finite")
        require(0 < self.top_entropy_share <= 1, "grpo.loss.top_entropy_share", self.top_entropy_share, "in (0, 1]")

    @property
    def has_kl_in_loss(self) -> bool:
        """Whether every token's loss holds a KL."""
        return self.beta > 0 and self.kl_in == "loss"


@dataclass(frozen=True)
class ReferenceConfig:
    """What the KL is measured from. It exists where grpo.loss.beta is above 0."""

    kind: Literal["auto", "copy", "adapter_off"] = "auto"
    """copy: the policy as stage 2 began, a second model. adapter_off: the policy with its LoRA adapter as stage 2 found
    it (off, where nothing had trained it), which takes no memory. auto: adapter_off with LoRA, else copy."""
    sync_every: int = 0
    """Steps after which the copy follows the policy. 0: it never moves."""
    sync_mix: float = 1.0
    """It then becomes sync_mix * policy + (1 - sync_mix) * itself: 1 replaces it, less is a moving average."""

    def __post_init__(self) -> None:
        require(self.sync_every >= 0, "grpo.reference.sync_every", self.sync_every, "0 or more")
        require(0 < self.sync_mix <= 1, "grpo.reference.sync_mix", self.sync_mix, "in (0, 1]")
        require(
            not self.sync_every or self.kind != "adapter_off",
            "grpo.reference.sync_every",
            self.sync_every,
            "0 with kind adapter_off, which cannot move: take kind copy",
        )


@dataclass(frozen=True)
class OverlongConfig:
    """Completions that reach, or nearly reach, sampling.max_new_tokens."""

    mask_truncated: bool = False
    """A completion cut off at the limit counts in its group's mean and is not trained on (DAPO's overlong filter)."""
    buffer_tokens: int = 0
    """Within so many tokens of the limit, a completion loses up to `penalty` of its reward, linearly; one cut off loses
    all of it (DAPO's soft punishment). 0: no penalty."""
    penalty: float = 1.0
    """The largest loss."""

    def __post_init__(self) -> None:
        require(self.buffer_tokens >= 0, "grpo.overlong.buffer_tokens", self.buffer_tokens, "0 or more")
        require(0 < self.penalty < math.inf, "grpo.overlong.penalty", self.penalty, "above 0")


@dataclass(frozen=True)
class GRPOConfig:
    """Stage 2."""

    steps: int = 100
    """Times that completions are sampled. 0 skips the stage."""
    prompts_per_step: int = 16
    """Groups per step, over all ranks."""
    group_size: int = 8
    """Completions per prompt."""
    updates_per_sample: int = 1
    """Optimizer steps on the same completions (mu). From the second on, ratios are to the policy of the first."""
    old_logprobs: Literal["policy", "sampler"] = "policy"
    """What ratios compare with: the policy's own log-probs of the first update, or those that the engine reported."""
    max_resampling_rounds: int = 0
    """Rounds per step in which groups without signal are replaced by groups of fresh prompts (DAPO's dynamic sampling).
    0: none; such groups then have advantage 0."""
    advantage_baseline: Literal["group", "leave_one_out", "batch"] = "group"
    """What a reward is compared with: the mean of its group, of the others of its group (RLOO), or of the step."""
    advantage_scale: Literal["group", "batch", "none"] = "group"
    """Advantages are divided by the group's or the whole step's standard deviation, or not at all."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How completions are sampled."""
    rewards: RewardConfig = field(default_factory=RewardConfig)
    """What a completion earns."""
    overlong: OverlongConfig = field(default_factory=OverlongConfig)
    """What happens to long ones."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The objective."""
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    """What the KL is measured from."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimizer of this stage."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, "grpo.steps", self.steps, "0 or more")
        require(self.max_resampling_rounds >= 0, "grpo.max_resampling_rounds", self.max_resampling_rounds, "0 or more")
        for name in ("prompts_per_step", "group_size", "updates_per_sample"):
            require(getattr(self, name) > 0, f"grpo.{name}", getattr(self, name), "positive")
        self._check_comparisons()
        buffer, limit = self.overlong.buffer_tokens, self.sampling.max_new_tokens
        require(
            buffer < limit,
            "grpo.overlong.buffer_tokens",
            buffer,
            f"less than grpo.sampling.max_new_tokens ({limit})",
        )
        require(
            self.reference.sync_every == 0 or self.loss.beta > 0,
            "grpo.reference.sync_every",
            self.reference.sync_every,
            "0 unless grpo.loss.beta is above 0: without a KL there is no reference to move",
        )
        require(
            self.old_logprobs == "policy" or self.sampling.correction == "none",
            "grpo.sampling.correction",
            self.sampling.correction,
            "none with old_logprobs: sampler, whose ratios are to the sampler already",
        )
        if self.rewards.aggregation == "normalize_then_sum":
            for key, is_used in (
                ("grpo.loss.kl_in: reward", self.loss.beta > 0 and self.loss.kl_in == "reward"),
                ("grpo.overlong.buffer_tokens", buffer > 0),
            ):
                if is_used:
                    raise ValueError(
                        f"{key} changes the sum of the rewards, and grpo.rewards.aggregation: normalize_then_sum takes"
                        " no sum. Use sum_then_normalize, or leave it out."
                    )
        self.optimizer.check("grpo.optimizer")

    def _check_comparisons(self) -> None:
        """A mean and a deviation must be of the same completions, and of more than one."""
        require(
            self.advantage_baseline != "batch" or self.advantage_scale != "group",
            "grpo.advantage_scale",
            self.advantage_scale,
            "batch or none with advantage_baseline: batch, which compares across groups",
        )
        if self.group_size > 1:
            return
        needs_groups = {
            "grpo.advantage_baseline": self.advantage_baseline != "batch",
            "grpo.max_resampling_rounds": self.max_resampling_rounds > 0,
        }
        keys = ", ".join(key for key, is_needing in needs_groups.items() if is_needing)
        expected = f"at least 2 (an advantage compares the completions of one prompt, as {keys} has it)"
        require(not keys, "grpo.group_size", self.group_size, expected)
