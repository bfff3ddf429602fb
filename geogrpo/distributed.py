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
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)

from geogrpo.config import ModelConfig, ParallelConfig
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


def load_sharded(
    config: ModelConfig, prompt: str = "chain_of_region", parallel: ParallelConfig | None = None
) -> tuple[Policy, Processor]:
    """The policy of config.path, sharded over ranks, and its processor; joins the process group if need be.

    Args:
        config: with a path.
        prompt: a key of geogrpo.prompts.PROMPTS.
        parallel: how it is sharded; None: over all ranks.
    Raises:
        ValueError: naming the folder, when it holds no model that takes images; as shard_policy.
    """
    device = init_distributed()
    processor = load_processor(config, prompt)
    policy = load_policy(config, processor.tokenizer)
    return shard_policy(policy, device, getattr(torch, config.dtype), parallel), processor


def shard_policy(
    policy: Policy, device: torch.device, dtype: torch.dtype, parallel: ParallelConfig | None = None
) -> Policy:
    """Shard the policy with FSDP2, block by block: float32 master weights, compute in `dtype`, gradients summed (not
    averaged) over all ranks in float32.

    A vision tower whose features are cached is not sharded: a rank must be able to encode an image that another has in
    its cache. It stays on the device, and so do buffers. What is frozen beside adapters has no master weights: it is
    kept in `dtype`.

    With parallel.cpu_offload, shards, their gradients and so the optimizer are in host memory; the device never holds
    more of the model than what is gathered.

    Args:
        parallel: how it is spread; None: over all ranks, on the device.
    Raises:
        ValueError: naming parallel.shard_within, when nodes have different numbers of ranks.
    """
    parallel = parallel or ParallelConfig()
    mesh = _mesh(device, parallel)
    precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    whole = set(policy.vision_parameters()) if policy.vision_cache is not None else set()
    store_base(policy, dtype, but=whole)
    # What is sharded goes to the device block by block: all of it at once may not fit there.
    for tensor in (*policy.buffers(), *(whole if parallel.cpu_offload else policy.parameters())):
        tensor.data = tensor.data.to(device)
    policy.dtype = dtype
    options: dict[str, Any] = {"mesh": mesh, "mp_policy": precision, "offload_policy": _offload(device, parallel)}
    for block in [*(() if whole else policy.vision_blocks), *policy.language_model.layers]:
        fully_shard(block, **options)
    fully_shard(policy, ignored_params=whole, **options)
    for module in _fsdp_modules(policy):
        # The loss is already divided by a token count over all ranks: gradients are added up, nothing else.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    for method in ("loss", "hidden_states", "exact_kl", "prefill", "decode"):
        register_fsdp_forward_method(policy, method)
    return policy


def _mesh(device: torch.device, parallel: ParallelConfig) -> DeviceMesh:
    """(ranks,), or (nodes, ranks of a node) where each node has a copy: FSDP2 shards over the last dimension."""
    if parallel.shard_within == "all":
        return init_device_mesh(device.type, (world_size(),))
    per_node = _ranks_per_node()
    return init_device_mesh(device.type, (world_size() // per_node, per_node), mesh_dim_names=("node", "rank"))


def _ranks_per_node() -> int:
    """The same on every node, and a node's ranks follow one another; every rank must call this."""
    local_rank, per_node = (int(os.environ.get(name, -1)) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if world_size() == 1:
        return 1
    found = all_gather_list([(local_rank, per_node)])
    if found != [(i % max(1, per_node), per_node) for i in range(world_size())]:
        raise ValueError(
            "parallel.shard_within: node needs as many ranks on every node, numbered node by node, as torchrun makes"
            " them with the same --nproc-per-node everywhere; (LOCAL_RANK, LOCAL_WORLD_SIZE) of the ranks here are"
            f" {found}. Launch it so, or take parallel.shard_within: all."
        )
    return per_node


def _offload(device: torch.device, parallel: ParallelConfig) -> OffloadPolicy:
    """Pinned host memory is copied from and to a CUDA device while that computes; without one it cannot be had."""
    return CPUOffloadPolicy(pin_memory=device.type == "cuda") if parallel.cpu_offload else OffloadPolicy()


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
def communicate_after(policy: Policy, *, is_last: bool, once: bool = False) -> Iterator[None]:
    """The forward and backward pass of one of a step's rows.

    Nodes that have a copy each (parallel.shard_within: node) add up their gradients after the last row only: until
    then a rank keeps the sum over its node.

    Args:
        is_last: whether this row is the step's last.
        once: until the last row parameters stay gathered and gradients are not added up over any ranks; every rank
            holds all of both meanwhile. False: both are communicated for every row.
    """
    modules = _fsdp_modules(policy)
    waits = once and not is_last
    for module in modules:
        module.set_requires_gradient_sync(not waits, recurse=False)
        module.set_requires_all_reduce(is_last, recurse=False)
        module.set_reshard_after_backward(not waits, recurse=False)
        if waits:
            module.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        if not waits:
            for module in modules:
                module.set_reshard_after_forward(module is not policy, recurse=False)


def reshard(policy: Policy) -> None:
    """Free what is gathered: the policy's parameters are this rank's shards again."""
    for module in _fsdp_modules(policy):
        module.reshard()


def _fsdp_modules(policy: nn.Module) -> list[FSDPModule]:
    return [module for module in policy.modules() if isinstance(module, FSDPModule)]
