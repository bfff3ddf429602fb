"""Our update alone on given tokens, by the shared or the dense path, and the log-probs of those tokens.

Several works share one process, so memory is what an update needs beyond weights and optimizer state. Runs under
torchrun, too. See train_step_work.py.
"""

import ctypes
import gc
from collections.abc import Callable
from typing import Any

import torch
from geogrpo_kernels import PolicyLoss
from torch import Tensor

from benchmarks.head_measure import seconds_of
from benchmarks.train_step_dense import load_dense_policy
from benchmarks.train_step_ours import VERSIONS, device_bytes
from benchmarks.train_step_work import (
    BETA2,
    LEARNING_RATE,
    MAX_GRAD_NORM,
    PeakMemory,
    Work,
    given_completions,
    megabytes,
    pictures,
    reset_peak_resident_bytes,
    resident_bytes,
    run_contender,
    significant,
    spread,
)
from geogrpo.clock import Clock
from geogrpo.config import LossConfig, ModelConfig, OptimizerConfig
from geogrpo.distributed import (
    all_gather_list,
    init_distributed,
    leave_together,
    load_sharded,
    shard_policy,
    shard_slice,
    world_size,
)
from geogrpo.losses import LossInputs, Objective, find_loss
from geogrpo.optimization import Passes, RowObjective, make_optimizer, update
from geogrpo.policy.load import load_processor
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group, pack
from geogrpo.policy.processing import Processor
from geogrpo.types import Example, PackedBatch

OPTIMIZER = OptimizerConfig(lr=LEARNING_RATE, beta2=BETA2, max_grad_norm=MAX_GRAD_NORM)


def load(work: Work) -> tuple[Policy, Processor]:
    """The policy of work.path, sharded."""
    config = ModelConfig(path=work.model, dtype=work.dtype)
    if work.path == "shared":
        return load_sharded(config, work.prompt)
    device, processor = init_distributed(), load_processor(config, work.prompt)
    policy = load_dense_policy(work.model, processor.tokenizer)
    return shard_policy(policy, device, getattr(torch, work.dtype)), processor


def given_groups(work: Work, processor: Processor) -> list[Group]:
    """This rank's groups."""
    examples = [Example(str(i), picture, (0.0, 0.0)) for i, picture in enumerate(pictures(work)[: work.num_prompts])]
    completions = given_completions(work)
    return [
        Group(processor.encode_prompt(examples[i]), [torch.tensor(tokens) for tokens in completions[i]])
        for i in range(work.num_prompts)[shard_slice(work.num_prompts)]
    ]


def row_objective(work: Work, device: torch.device) -> RowObjective:
    """GRPO's, half of the completions better than the others."""
    config = LossConfig()

    def objective(_: list[int], batch: PackedBatch) -> Objective:
        completion, lengths = batch.target_completion.to(device), batch.completion_lengths + 1
        advantages = 1.0 - 2.0 * (completion % 2)
        weights = torch.full_like(advantages, 1 / (work.num_completions * work.new_tokens))
        return find_loss(config).function(LossInputs(advantages, weights, completion, lengths), config)

    return objective


def metrics(_: list[int], __: PackedBatch, loss: PolicyLoss) -> dict[str, Tensor]:
    """What a trainer reports at least."""
    return {"entropy": loss.entropy}


def measure_update(
    policy: Policy, optimizer: torch.optim.Optimizer, processor: Processor, work: Work
) -> dict[str, Any]:
    """Seconds of one update, memory beyond what it finds, and both per completion."""
    groups, objective = given_groups(work, processor), row_objective(work, policy.device)
    passes = Passes(
        dummy=processor.dummy_group(),
        tokens_per_microbatch=work.tokens_per_microbatch or max(group.num_unique_tokens for group in groups),
        clock=Clock(policy.device),
    )

    def run() -> None:
        update(policy, optimizer, groups, objective, metrics, passes=passes, max_grad_norm=MAX_GRAD_NORM)

    for _ in range(work.warmup):
        run()
    optimizer.zero_grad(set_to_none=True)
    extra_bytes = max(all_gather_list([peak_beyond(run)]))
    seconds = spread("update_s", [seconds_of(run) for _ in range(work.repeats)])
    unique = sum(all_gather_list([sum(group.num_unique_tokens for group in groups)]))
    return seconds | {
        "ms_per_completion": significant(1e3 * seconds["update_s"] / work.num_completions),
        "extra_mb": megabytes(extra_bytes),
        "mb_per_completion": significant(extra_bytes / 1e6 / work.num_completions),
        "unique_tokens": unique,
        "num_ranks": world_size(),
        "threads": torch.get_num_threads(),
        "versions": VERSIONS,
    }


def peak_beyond(run: Callable[[], None]) -> int:
    """Bytes at the peak of one call beyond those before it: of the GPU, or of the process on a CPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before, memory = torch.cuda.memory_allocated(), PeakMemory(device_bytes)
    else:
        # Memory that malloc keeps would hide what the call needs.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        reset_peak_resident_bytes()
        before, memory = resident_bytes(), PeakMemory()
    with memory:
        run()
    return max(0, memory.bytes - before)


def given_logprobs(policy: Policy, processor: Processor, work: Work) -> dict[str, Any]:
    """Log-probs of given tokens among those that can be sampled, as we train them, and among all, as TRL does."""
    batch = pack(given_groups(work, processor))
    with torch.no_grad():
        ours, _ = policy(batch)
        policy.forbidden_ids = policy.forbidden_ids[:0]
        among_all, _ = policy(batch)
    return {"logprobs": among_all.tolist(), "logprobs_of_sampled": ours.tolist()}


def main(works: list[Work]) -> list[dict[str, Any]]:
    """All works, on one model, by one path in one dtype."""
    assert len({(work.model, work.prompt, work.path, work.dtype) for work in works}) == 1
    policy, processor = load(works[0])
    policy.train()
    optimizer = make_optimizer(policy, OPTIMIZER)
    results = []
    for work in works:
        if work.task == "logprobs":
            results.append(given_logprobs(policy, processor, work))
        else:
            results.append(measure_update(policy, optimizer, processor, work))
    leave_together()
    return results


if __name__ == "__main__":
    run_contender(main)
