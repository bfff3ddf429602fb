"""Run by torchrun from test_optimization.py and test_distributed.py: one update over four groups, gradients saved by
rank 0.

Arguments: model folder, output file, token budget of a row, how groups go to ranks ("shared" or "all_on_rank_0"),
how often ranks communicate ("every_row" or "once"), what trains ("all", "language",
"adapter", or "aligner" for language model and aligner), how the policy is sharded ("all" or "node") and, after a "+"
each, what else: "offload", "compiled", "bfloat16".
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from PIL import Image

from geogrpo.clock import Clock
from geogrpo.config import LoraConfig, LossConfig, ModelConfig, ParallelConfig
from geogrpo.distributed import init_distributed, is_main, shard_policy, shard_slice
from geogrpo.grpo.token_scores import score_tokens
from geogrpo.losses import LossInputs, grpo_loss
from geogrpo.optimization import Passes, update
from geogrpo.policy.compiled import compile_blocks
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.lora import adapter_parameters
from geogrpo.policy.packing import Group
from geogrpo.types import Example

folder, output, budget = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
spread, communication, trained, sharded = sys.argv[4:8]
shard_within, *options = sharded.split("+")
parallel = ParallelConfig(shard_within=shard_within, cpu_offload="offload" in options)
dtype = torch.bfloat16 if "bfloat16" in options else torch.float32
device = init_distributed()
lora = LoraConfig(rank=3 if trained == "adapter" else 0)
config = ModelConfig(
    path=str(folder),
    dtype="float32",
    freeze_vision=trained != "all",
    freeze_aligner=False if trained == "aligner" else None,
    lora=lora,
)
processor = load_processor(config, "short")
policy = load_policy(config, processor.tokenizer)
with torch.no_grad():
    for name, parameter in adapter_parameters(policy).items():
        if ".lora_B." in name:
            # At 0, the other factor would have no gradient.
            parameter.copy_(torch.linspace(-9, 9, parameter.numel()).sin().view_as(parameter) / 100)
if "compiled" in options:
    compile_blocks(policy, "aot_eager")
policy = shard_policy(policy, device, dtype, parallel)
reference = load_policy(config, processor.tokenizer).requires_grad_(False)
reference.model.lm_head.weight.mul_(0.9)
reference = shard_policy(reference, device, dtype, parallel)
colors = ("red", "green", "navy", "orange")
sizes = ((112, 112), (112, 56), (56, 56), (140, 56))
groups = [
    Group(
        processor.encode_prompt(Example(color, Image.new("RGB", size, color), (0.0, 0.0))),
        [processor.encode_answer("Country: Japan " * (1 + (i + g) % 3)) for g in range(2 + i % 2)],
    )
    for i, (color, size) in enumerate(zip(colors, sizes, strict=True))
]
num_tokens = sum(len(completion) for group in groups for completion in group.completions)
mine = shard_slice(len(groups)) if spread == "shared" else slice(0, len(groups) if is_main() else 0)


passes = Passes(
    dummy=processor.dummy_group(),
    tokens_per_microbatch=budget,
    clock=Clock(device),
    temperature=0.8,
    communicate_once=communication == "once",
)
ref_logprobs = score_tokens(reference, groups[mine], passes, "reference").logprobs


def objective(indices, batch):
    """GRPO with a KL and with advantages that differ by completion length."""
    lengths = torch.bincount(batch.target_completion)
    advantages = (lengths.float() - 4.0)[batch.target_completion]
    weights = torch.full_like(advantages, 1 / num_tokens)
    ref = torch.cat([ref_logprobs[k] for k in indices])
    inputs = LossInputs(advantages, weights, batch.target_completion, lengths, None, ref)
    return grpo_loss(inputs, LossConfig(name="grpo", beta=0.1))


def metrics(indices, batch, loss):
    return {"entropy": loss.entropy, "kl": loss.kl}


calls = {"all_gather_single": 0, "reduce_scatter_single": 0, "all_reduce": 0}
dtypes = {name: set() for name in calls}


def counted(name):
    """FSDP2 calls the module's function by name: counting it there counts what goes over the wire."""
    original = getattr(dist, name)

    def call(*args, **kwargs):
        calls[name] += 1
        dtypes[name] |= {str(value.dtype) for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)}
        return original(*args, **kwargs)

    return call


for name in calls:
    setattr(dist, name, counted(name))
result = update(
    policy,
    torch.optim.SGD(policy.parameters(), lr=0.0),
    groups[mine],
    objective,
    metrics,
    passes=passes,
    max_grad_norm=0.0,
)
gradients = {name: p.grad.full_tensor() for name, p in policy.named_parameters() if p.grad is not None}
if is_main():
    torch.save(
        {
            "gradients": gradients,
            "means": {"loss": result.loss, **result.token_means},
            "norm": result.grad_norm,
            "calls": calls,
            "dtypes": {name: sorted(found) for name, found in dtypes.items()},
        },
        output,
    )
dist.barrier()
dist.destroy_process_group()
# On busy cores a rank now and then aborts at Python's end ("terminate called without an active exception"), presumably
# because a gloo thread still holds tensors. Everything is done: leave without it.
sys.stdout.flush()
os._exit(0)
