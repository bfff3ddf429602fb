"""One update over four groups, made in several ways, each time from the model's own weights.

Tests import it to make updates on one rank. Run by torchrun, it makes those of several ranks one after another, and
rank 0 saves what they gave.

Arguments: model folder, output file, JSON of names and the ways.
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor
from torch.distributed.tensor import DTensor

from geogrpo.clock import Clock
from geogrpo.config import LoraConfig, LossConfig, ModelConfig, ParallelConfig
from geogrpo.distributed import init_distributed, is_main, shard_policy, shard_slice
from geogrpo.grpo.token_scores import score_tokens
from geogrpo.losses import LossInputs, grpo_loss
from geogrpo.optimization import Passes, update
from geogrpo.policy.compiled import compile_blocks
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.lora import adapter_parameters
from geogrpo.policy.model import Policy
from geogrpo.policy.packing import Group
from geogrpo.policy.processing import Processor
from geogrpo.types import Example

SIZES = {"red": (112, 112), "green": (112, 56), "navy": (56, 56), "orange": (140, 56)}
COUNTED = ("all_gather_single", "reduce_scatter_single", "all_reduce")


def update_of(
    folder: Path,
    *,
    budget: int = 100_000,
    all_on_rank_0: bool = False,
    communicate_once: bool = False,
    trained: str = "all",
    compiled: bool = False,
    dtype: str = "float32",
    **parallel: Any,
) -> dict[str, Any]:
    """What an update over the four groups gave, on every rank.

    Args:
        folder: of the model.
        budget: tokens of a row.
        all_on_rank_0: the other ranks have no groups. False: shared.
        communicate_once: as the run's key.
        trained: all, language, aligner (language model and aligner) or adapter.
        parallel: as of ParallelConfig.
    """
    config = ModelConfig(
        path=str(folder),
        dtype="float32",
        freeze_vision=trained != "all",
        freeze_aligner=False if trained == "aligner" else None,
        lora=LoraConfig(rank=3 if trained == "adapter" else 0),
    )
    processor = load_processor(config, "short")
    policy, reference = (load_policy(config, processor.tokenizer) for _ in range(2))
    _perturb(policy, reference)
    if compiled:
        # Traced alone, a third of the time; policy/test_compiled.py traces its backward pass, too.
        compile_blocks(policy, "eager")
    device = init_distributed()
    for each in (policy, reference):
        shard_policy(each, device, getattr(torch, dtype), ParallelConfig(**parallel))
    passes = Passes(
        dummy=processor.dummy_group(),
        tokens_per_microbatch=budget,
        clock=Clock(device),
        temperature=0.8,
        communicate_once=communicate_once,
    )
    groups = _groups(processor)
    mine = slice(0, len(groups) if is_main() else 0) if all_on_rank_0 else shard_slice(len(groups))
    num_tokens = sum(len(completion) for group in groups for completion in group.completions)
    ref_logprobs = score_tokens(reference, groups[mine], passes, "reference").logprobs

    def objective(indices, batch):
        """GRPO with a KL and with advantages that differ by completion length."""
        lengths = torch.bincount(batch.target_completion)
        advantages = (lengths.float() - 4.0)[batch.target_completion]
        weights = torch.full_like(advantages, 1 / num_tokens)
        ref = torch.cat([ref_logprobs[k] for k in indices])
        inputs = LossInputs(advantages, weights, batch.target_completion, lengths, None, ref)
        return grpo_loss(inputs, LossConfig(name="grpo", beta=0.1))

    with _counted_calls() as (calls, dtypes):
        result = update(
            policy,
            torch.optim.SGD(policy.parameters(), lr=0.0),
            groups[mine],
            objective,
            lambda indices, batch, loss: {"entropy": loss.entropy, "kl": loss.kl},
            passes=passes,
            max_grad_norm=0.0,
        )
    gradients = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    return {
        "gradients": {n: (g.full_tensor() if isinstance(g, DTensor) else g).cpu() for n, g in gradients.items()},
        "means": {"loss": result.loss, **result.token_means},
        "norm": result.grad_norm,
        "calls": calls,
        "dtypes": {name: sorted(found) for name, found in dtypes.items()},
    }


def assert_same_update(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for the order in which float32 is added up: to 1e-5 of each gradient's own size."""
    assert_same_gradients(actual["gradients"], expected["gradients"])
    assert actual["means"] == pytest.approx(expected["means"], rel=1e-5)
    assert actual["norm"] == pytest.approx(expected["norm"], rel=1e-5)


def assert_same_gradients(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Of the same parameters, none 0, to 1e-5 of each one's own size."""
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient.norm() > 0, name
        assert (actual[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def _perturb(policy: Policy, reference: Policy) -> None:
    """Neither a KL nor an adapter's first factor has a gradient in the beginning."""
    with torch.no_grad():
        reference.requires_grad_(False).model.lm_head.weight.mul_(0.9)
        for name, parameter in adapter_parameters(policy).items():
            if ".lora_B." in name:
                parameter.copy_(torch.linspace(-9, 9, parameter.numel()).sin().view_as(parameter) / 100)


def _groups(processor: Processor) -> list[Group]:
    return [
        Group(
            processor.encode_prompt(Example(color, Image.new("RGB", size, color), (0.0, 0.0))),
            [processor.encode_answer("Country: Japan " * (1 + (i + g) % 3)) for g in range(2 + i % 2)],
        )
        for i, (color, size) in enumerate(SIZES.items())
    ]


@contextmanager
def _counted_calls() -> Iterator[tuple[dict[str, int], dict[str, set[str]]]]:
    """Calls of each collective and the types of its tensors. FSDP2 calls the module's function by name: what is counted
    there goes over the wire.
    """
    calls = dict.fromkeys(COUNTED, 0)
    dtypes: dict[str, set[str]] = {name: set() for name in COUNTED}

    def counted(name):
        original = getattr(dist, name)

        def call(*args, **kwargs):
            calls[name] += 1
            dtypes[name] |= {str(value.dtype) for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)}
            return original(*args, **kwargs)

        return call

    with mock.patch.multiple(dist, **{name: counted(name) for name in COUNTED}):
        yield calls, dtypes


def main(folder: str, output: str, ways: str) -> None:
    """See above."""
    init_distributed()
    results = {name: update_of(Path(folder), **way) for name, way in json.loads(ways).items()}
    if is_main():
        torch.save(results, output)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
    # On busy cores a rank now and then aborts at Python's end ("terminate called without an active exception"),
    # presumably because a gloo thread still holds tensors. Everything is done: leave without it.
    sys.stdout.flush()
    os._exit(0)
