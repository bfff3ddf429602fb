"""GRPO for image geolocalization in plain PyTorch FSDP2: the names a library user needs."""

from geogrpo.checkpoint import export_model
from geogrpo.config import (
    GRPOConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RewardConfig,
    RunConfig,
    SamplingConfig,
    SupervisedConfig,
)
from geogrpo.config_files import load_config
from geogrpo.distributed import load_sharded
from geogrpo.regions.index import RegionIndex
from geogrpo.trainer import StepRecord, train_grpo
from geogrpo.types import Example, Prediction

__all__ = [
    "Example",
    "GRPOConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Prediction",
    "RegionIndex",
    "RewardConfig",
    "RunConfig",
    "SamplingConfig",
    "StepRecord",
    "SupervisedConfig",
    "export_model",
    "load_config",
    "load_sharded",
    "train_grpo",
]
