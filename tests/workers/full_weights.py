"""Run by torchrun from test_checkpoint.py: each rank saves what full_weights gave it to <rank>.pt.

Arguments: model folder, output folder.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from geogrpo.checkpoint import full_weights
from geogrpo.config import ModelConfig
from geogrpo.distributed import load_sharded, rank

folder, output = (Path(argument) for argument in sys.argv[1:])
policy, _ = load_sharded(ModelConfig(path=str(folder), dtype="float32"), "short")
torch.save(full_weights(policy), output / f"{rank()}.pt")
dist.barrier()
dist.destroy_process_group()
