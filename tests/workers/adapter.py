"""Run by torchrun from test_checkpoint.py: an adapter's checkpoint on these ranks, as a snapshot and as the policy.

Arguments: model folder, checkpoint folder, output folder.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from geogrpo.checkpoint import Progress, export_model, load_checkpoint, save_checkpoint
from geogrpo.config import LoraConfig, ModelConfig, OptimizerConfig
from geogrpo.distributed import is_main, load_sharded
from geogrpo.optimization import make_optimizer
from geogrpo.policy.adapters import AdapterSnapshot
from geogrpo.policy.packing import pack

folder, checkpoint, output = (Path(argument) for argument in sys.argv[1:])
lora = LoraConfig(rank=3, alpha=6.0, targets=["q_proj", "gate_proj", "down_proj"])
policy, processor = load_sharded(ModelConfig(path=str(folder), dtype="float32", freeze_vision=True, lora=lora), "short")
batch = pack([processor.dummy_group()])
with torch.no_grad():
    untrained = policy(batch)[0]
    snapshot = AdapterSnapshot.from_checkpoint(policy, checkpoint)
    with snapshot.applied() as reference:
        remembered = reference(batch)[0]
    given_back = policy(batch)[0]
    optimizer = make_optimizer(policy, OptimizerConfig())
    load_checkpoint(checkpoint, policy, optimizer)
    loaded = policy(batch)[0]
export_model(output / "model", policy, processor)
save_checkpoint(output, policy, optimizer, Progress())
if is_main():
    torch.save(
        {"untrained": untrained, "remembered": remembered, "given_back": given_back, "loaded": loaded},
        output / "logprobs.pt",
    )
dist.barrier()
dist.destroy_process_group()
