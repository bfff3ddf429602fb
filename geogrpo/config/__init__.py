"""Every option of a run, as frozen dataclasses: run.py holds the whole, the other files its sections.

config_files reads and saves them.
"""

from geogrpo.config.data import AnswerConfig, DataConfig
from geogrpo.config.grpo import GRPOConfig, LossConfig, OverlongConfig, ReferenceConfig, SamplingConfig
from geogrpo.config.model import LoraConfig, ModelConfig, TinyModelConfig
from geogrpo.config.optimizer import OptimizerConfig, SupervisedConfig
from geogrpo.config.rewards import JudgeConfig, RewardConfig
from geogrpo.config.run import EvaluationConfig, LoggingConfig, ParallelConfig, RunConfig

__all__ = [
    "AnswerConfig",
    "DataConfig",
    "EvaluationConfig",
    "GRPOConfig",
    "JudgeConfig",
    "LoggingConfig",
    "LoraConfig",
    "LossConfig",
    "ModelConfig",
    "OptimizerConfig",
    "OverlongConfig",
    "ParallelConfig",
    "ReferenceConfig",
    "RewardConfig",
    "RunConfig",
    "SamplingConfig",
    "SupervisedConfig",
    "TinyModelConfig",
]
