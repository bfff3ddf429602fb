"""Processes, FSDP2 and the few collectives the trainer uses. One process is the same code with a world of one.

Every rank calls the same collectives in the same order, also with an empty batch.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from geogrpo.config import ModelConfig
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.lora import store_base
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor

T = TypeVar("T")


def init_distributed() -> torch.device:
    """Join the process group that torchrun describes (or make one of a single process) and return this rank's device.

    Also gives each local rank its share of the cores: torchrun sets OMP_NUM_THREADS to 1 otherwise.
    """
    local_rank, local_world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // local_world))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if "RANK" in os.environ:
            dist.init_process_group(backend)
        else:
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    return device


def leave_together() -> None:
    """Leave the process group, all ranks together: one that leaves early makes gloo abort another."""
    if dist.is_initialized():
        if sys.exc_info()[0] is None:
            dist.barrier()
        dist.destroy_process_group()


def rank() -> int:
    """This process's number; 0 where no process group was made."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and draws the display."""
    return rank() == 0


def all_sum(values: Tensor) -> Tensor:
    """Sum over ranks of a CPU tensor."""
    values = values.clone()
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def all_max(value: int) -> int:
    """Largest of one integer over ranks."""
    values = torch.tensor(value)
    if world_size() > 1:
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values)


def all_gather_list(items: list[T]) -> list[T]:
    """Every rank's items, in rank order, on every rank."""
    if world_size() == 1:
        return list(items)
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]


def shard_slice(num_items: int) -> slice:
    """This rank's contiguous part of `num_items`; parts differ by at most one item."""
    this, ranks = rank(), world_size()
    return slice(num_items * this // ranks, num_items * (this + 1) // ranks)


def load_sharded(config: ModelConfig, prompt: str = "chain_of_region") -> tuple[Policy, Processor]:
    """The policy of config.path, sharded over all ranks, and its processor; joins the process group if need be.

    Args:
        config: with a path.
        prompt: a key of geogrpo.prompts.PROMPTS.
    Raises:
        ValueError: naming the folder, when it holds no model that takes images.
    """
    device = init_distributed()
    processor = load_processor(config, prompt)
    policy = load_policy(config, processor.tokenizer)
    return shard_policy(policy, device, getattr(torch, config.dtype)), processor


def shard_policy(policy: Policy, device: torch.device, dtype: torch.dtype) -> Policy:
    """Shard the policy over all ranks with FSDP2, block by block: float32 master weights, compute in `dtype`,
    gradients summed (not averaged) in float32.

    A vision tower whose features are cached is not sharded: a rank must be able to encode an image that another has in
    its cache. What is frozen beside adapters has no master weights: it is kept in `dtype`.
    """
    mesh = init_device_mesh(device.type, (world_size(),))
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    whole = set(policy.vision_parameters()) if policy.vision_cache is not None else set()
    store_base(policy, dtype, but=whole)
    policy.to(device)
    policy.dtype = dtype
    for block in [*(() if whole else policy.vision_blocks), *policy.language_model.layers]:
        fully_shard(block, mesh=mesh, mp_policy=precision)
    fully_shard(policy, mesh=mesh, mp_policy=precision, ignored_params=whole)
    for module in _fsdp_modules(policy):
        # The loss is already divided by a token count over all ranks: gradients are added up, nothing else.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    for method in ("loss", "hidden_states", "exact_kl", "prefill", "decode"):
        register_fsdp_forward_method(policy, method)
    return policy


@contextmanager
def gathered_parameters(policy: Policy) -> Iterator[None]:
    """Gather every parameter once, at its first use, and free them all at the end: for a whole sampling phase."""
    modules = _fsdp_modules(policy)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
            module.set_reshard_after_forward(module is not policy, recurse=False)


@contextmanager
def communicate_after(policy: Policy, *, is_last: bool) -> Iterator[None]:
    """A forward and backward pass; unless it is the step's last, its parameters stay gathered for the next one and its
    gradients are not yet added up over ranks.
    """
    modules = _fsdp_modules(policy)
    for module in modules:
        module.set_requires_gradient_sync(is_last, recurse=False)
        module.set_reshard_after_backward(is_last, recurse=False)
        if not is_last:
            module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        if is_last:
            for module in modules:
                module.set_reshard_after_forward(module is not policy, recurse=False)


def reshard(policy: Policy) -> None:
    """Free what is gathered: the policy's parameters are this rank's shards again."""
    for module in _fsdp_modules(policy):
        module.reshard()


def _fsdp_modules(policy: nn.Module) -> list[FSDPModule]:
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]
