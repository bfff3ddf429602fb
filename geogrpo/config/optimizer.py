"""The optimizer of either stage, and stage 1."""

import math
from dataclasses import dataclass, field

from geogrpo.config.checks import require


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
            require(0 <= value < math.inf, f"{section}.{name}", value, "0 or more")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{section}.{name}", value, "at least 0 and below 1")
        fraction = self.final_lr_fraction
        require(0 <= fraction <= 1, f"{section}.final_lr_fraction", fraction, "between 0 and 1")


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
        require(self.steps >= 0, "supervised.steps", self.steps, "0 or more")
        require(self.examples_per_step > 0, "supervised.examples_per_step", self.examples_per_step, "positive")
        self.optimizer.check("supervised.optimizer")
