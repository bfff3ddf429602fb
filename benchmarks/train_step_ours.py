"""Our whole GRPO step: geogrpo.trainer.train_grpo on given work. See train_step_work.py."""

import statistics
import time
from typing import Any

import torch
import transformers

from benchmarks.train_step_work import (
    BETA2,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    STATE_BYTES,
    PeakMemory,
    StepTimes,
    Work,
    megabytes,
    num_threads,
    pictures,
    resident_bytes,
    reward,
    run_contender,
    significant,
)
from geogrpo.config import GRPOConfig, ModelConfig, OptimizerConfig, RewardConfig, SamplingConfig
from geogrpo.distributed import leave_together, load_sharded
from geogrpo.rollout import ENGINES
from geogrpo.trainer import StepRecord, train_grpo
from geogrpo.types import Example

VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__}


class TimedEngine:
    """The native engine, its time taken."""

    def __init__(self, times: StepTimes, *args: Any, **options: Any) -> None:
        self._engine, self._times = ENGINES["native"](*args, **options), times

    def sample(self, *args: Any, **options: Any) -> Any:
        """As NativeEngine.sample, which ends by copying from the device."""
        started = time.perf_counter()
        rollouts = self._engine.sample(*args, **options)
        self._times.sampled(time.perf_counter() - started)
        return rollouts


def grpo_config(work: Work) -> GRPOConfig:
    """What train_grpo is told."""
    return GRPOConfig(
        steps=work.num_steps,
        prompts_per_step=work.num_prompts,
        group_size=work.group_size,
        sampling=SamplingConfig(engine="timed", max_new_tokens=work.new_tokens),
        rewards=RewardConfig(weights={"characters": 1.0}, gates=[]),
        optimizer=OptimizerConfig(lr=LEARNING_RATE, beta2=BETA2, max_grad_norm=MAX_GRAD_NORM),
    )


def characters(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """As TRL's, without what costs."""
    return reward(completions)


def take_steps(work: Work) -> dict[str, Any]:
    """The seconds, memory and lengths of the steps that count."""
    policy, processor = load_sharded(ModelConfig(path=work.model, dtype=work.dtype), work.prompt)
    # A completion ends at the end token, and this token is never sampled.
    processor.eos_token_id = processor.image_token_id
    examples = [Example(str(i), picture, (0.0, 0.0)) for i, picture in enumerate(pictures(work))]
    num_prompt_tokens = len(processor.encode_prompt(examples[0]).token_ids)
    times, records = StepTimes(), []
    ENGINES["timed"] = lambda *args, **options: TimedEngine(times, *args, **options)

    def on_step(record: StepRecord) -> None:
        times.end()
        records.append(record)

    before = resident_bytes()
    with PeakMemory() as process, PeakMemory(device_bytes) as device:
        train_grpo(
            policy,
            processor,
            examples,
            grpo_config(work),
            rewards={"characters": characters},
            tokens_per_microbatch=work.tokens_per_microbatch,
            on_step=on_step,
        )
    return times.summary(work) | {
        "process_mb": megabytes(process.bytes),
        "process_before_mb": megabytes(before),
        "device_mb": megabytes(device.bytes),
        "state_mb": megabytes(STATE_BYTES * sum(parameter.numel() for parameter in policy.parameters())),
        "num_prompt_tokens": num_prompt_tokens,
        "completion_lengths": sorted({row["num_tokens"] for record in records for row in record.completions}),
        "num_skipped_groups": sum(record.metrics["frac_reward_zero_std"] > 0 for record in records),
        "phases_s": phases([record.metrics for record in records[-work.repeats :]]),
        "threads": torch.get_num_threads(),
        "versions": VERSIONS,
    }


def device_bytes() -> int:
    """Most memory allocated on the GPU; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def phases(metrics: list[dict[str, float]]) -> dict[str, float]:
    """Median seconds of the phases that the trainer counts itself."""
    prefix = "timing_s/"
    names = [name for name in metrics[0] if name.startswith(prefix)]
    return {name.removeprefix(prefix): significant(statistics.median(step[name] for step in metrics)) for name in names}


def main(works: list[Work]) -> list[dict[str, Any]]:
    """Of one work alone: the next one's memory would hide behind the first's."""
    (work,) = works
    result = take_steps(work)
    assert result["threads"] == num_threads()
    leave_together()
    return [result]


if __name__ == "__main__":
    run_contender(main)
