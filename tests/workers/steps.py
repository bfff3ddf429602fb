"""Run by torchrun from grpo/test_ranks.py: gradients of every loss, and steps with little signal; saved by rank 0.

Arguments: model folder, output file.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import model_config, picture
from grpo_steps import BASE, gradients, learn, lengths_of, sampled_step, whole, with_options

from geogrpo.config import OptimizerConfig
from geogrpo.distributed import is_main, load_sharded, shard_slice
from geogrpo.grpo.reference import CopyReference
from geogrpo.losses import LOSSES
from geogrpo.trainer import train_grpo
from geogrpo.types import Example

folder, output = Path(sys.argv[1]), Path(sys.argv[2])
policy, processor = load_sharded(model_config(folder), "short")
other, _ = load_sharded(model_config(folder), "short")
with torch.no_grad():
    for parameter in other.parameters():
        parameter.mul_(0.97)
reference = CopyReference(other.requires_grad_(False).eval())
start = [parameter.detach().clone() for parameter in policy.parameters()]


def put_back():
    with torch.no_grad():
        for parameter, value in zip(policy.parameters(), start, strict=True):
            parameter.copy_(value)


examples = [Example(f"place-{i}", picture(i, (56, 56 + 28 * (i % 2))), (10.0 * i, 20.0)) for i in range(5)]
everything = sampled_step(policy, processor, examples[:3])
# Of three groups the second rank has two.
mine = everything.chosen(range(3)[shard_slice(3)])
result = {}
for name in LOSSES:
    config = with_options(
        loss__name=name,
        loss__clip_low=0.1,
        loss__clip_high=0.1,
        loss__beta=0.05,
        updates_per_sample=2,
        advantage_scale="batch",
    )
    learned = learn(policy, processor, mine, lengths_of(mine), config, reference=reference, lr=0.01)
    result[name] = (gradients(policy), learned.updates[1].token_means, learned.updates[1].grad_norm)
    put_back()


def train(reward, **options):
    """Metrics, completions and weights after each step."""
    steps = []
    train_grpo(
        policy,
        processor,
        examples,
        with_options(BASE, prompts_per_step=3, optimizer=OptimizerConfig(lr=1e-3), **options),
        rewards={"custom": reward},
        num_loaders=1,
        on_step=lambda record: steps.append(
            (record.metrics, record.completions, [whole(parameter) for parameter in policy.parameters()])
        ),
    )
    put_back()
    return steps


calls = []


def fading(prompts, completions, *, example_id, **_):
    """In the first step a group's completions differ; later all earn the same."""
    calls.append(example_id)
    return [float(i % 4) if len(calls) == 1 else 0.5 for i in range(len(completions))]


def of_one_place(prompts, completions, *, example_id, **_):
    """Differs within the groups of one example alone."""
    return [float(i % 4) if name == "place-2" else 0.5 for i, name in enumerate(example_id)]


fading_steps = train(fading, steps=2)
resampled_steps = train(of_one_place, steps=2, max_resampling_rounds=2)
if is_main():
    torch.save(
        {
            "losses": result,
            "fading": [(metrics, weights) for metrics, _, weights in fading_steps],
            "resampled": [
                (metrics, [(c["id"], c["text"], c["advantage"]) for c in completions])
                for metrics, completions, _ in resampled_steps
            ],
        },
        output,
    )
dist.barrier()
dist.destroy_process_group()
# See gradients.py.
sys.stdout.flush()
os._exit(0)
