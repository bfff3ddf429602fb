"""Run by torchrun from test_run.py: load a checkpoint on these ranks and save every tensor whole.

Arguments: model folder, checkpoint folder, output file.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from geogrpo.checkpoint import _tensors, load_checkpoint
from geogrpo.config import ModelConfig, OptimizerConfig
from geogrpo.distributed import init_distributed, is_main, shard_policy
from geogrpo.optimization import make_optimizer
from geogrpo.policy.load import load_policy, load_processor

folder, checkpoint, output = (Path(argument) for argument in sys.argv[1:])
device = init_distributed()
config = ModelConfig(path=str(folder))
processor = load_processor(config, "short")
policy = shard_policy(load_policy(config, processor.tokenizer), device, torch.float32)
with torch.no_grad():
    for parameter in policy.parameters():
        parameter.zero_()
optimizer = make_optimizer(policy, OptimizerConfig())
load_checkpoint(checkpoint, policy, optimizer)
tensors = {
    name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    for name, tensor in _tensors(policy, optimizer).items()
}
if is_main():
    torch.save(tensors, output)
dist.barrier()
dist.destroy_process_group()
