"""Checkpoints that resume exactly and load at any world size.

Written through torch.distributed.checkpoint as safetensors shards, so reading one never unpickles anything. A
checkpoint appears under its final name only when it is complete. Random states are not stored: every random number
of a run is a function of (seed, stage, step, example).
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from geogrpo.distributed import is_main
from geogrpo.policy.model import Policy
from geogrpo.policy.processing import Processor

PROGRESS_FILE = "progress.json"
STAGES = ("supervised", "grpo")


@dataclass
class Progress:
    """Where a run stands: all that is not a tensor."""

    stage: str = "supervised"
    """One of STAGES."""
    step: int = 0
    """Optimizer steps done in this stage."""
    num_tokens: int = 0
    """Completion tokens trained on in this stage, all ranks."""
    skipped_images: list[str] = field(default_factory=list)
    """Why each unreadable image of the run was skipped."""


def checkpoint_name(progress: Progress) -> str:
    """Folder name of a checkpoint; names sort in the order of training."""
    return f"{STAGES.index(progress.stage)}-{progress.stage}-{progress.step:07d}"


def save_checkpoint(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, progress: Progress) -> Path:
    """Write folder/<checkpoint name>; every rank must call this. An existing checkpoint of that name is replaced."""
    final = folder / checkpoint_name(progress)
    temporary = folder / f".writing-{final.name}"
    if is_main():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
    dcp.save(_tensors(policy, optimizer), storage_writer=writer)
    dist.barrier()
    if is_main():
        (temporary / PROGRESS_FILE).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    dist.barrier()
    return final


def read_progress(checkpoint: Path) -> Progress:
    """What a checkpoint says of itself.

    Raises:
        ValueError: naming the file, when it is missing or damaged.
    """
    path = checkpoint / PROGRESS_FILE
    try:
        progress = Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint of geogrpo: {error}") from error
    if progress.stage not in STAGES:
        raise ValueError(f"{path}: stage must be one of {', '.join(STAGES)}, got {progress.stage!r}.")
    return progress


def load_checkpoint(checkpoint: Path, policy: Policy, optimizer: torch.optim.Optimizer | None = None) -> Progress:
    """Load weights, and optimizer state where an optimizer is given; every rank must call this.

    Raises:
        ValueError: naming the checkpoint, when it does not fit this model.
    """
    progress = read_progress(checkpoint)
    state = _tensors(policy, optimizer)
    try:
        with torch.no_grad():
            dcp.load(state, storage_reader=HuggingFaceStorageReader(str(checkpoint)))
    except dcp.api.CheckpointException as error:
        causes = "; ".join(sorted({str(exception) for exception, _ in error.failures.values()}))
        raise ValueError(f"checkpoint {checkpoint} does not fit this model: {causes}") from error
    return progress


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{PROGRESS_FILE}"))


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints of each stage: the last supervised one is GRPO's reference."""
    if is_main():
        for index, _ in enumerate(STAGES):
            for old in [path for path in list_checkpoints(folder) if path.name.startswith(f"{index}-")][:-keep]:
                shutil.rmtree(old)


def export_model(folder: Path, policy: Policy, processor: Processor) -> None:
    """Write the policy in the Hugging Face layout, for from_pretrained; every rank must call this."""
    weights = {name: _full(weight) for name, weight in policy.model.named_parameters()}
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        policy.model.save_pretrained(folder, state_dict=weights)
        processor.tokenizer.save_pretrained(folder)
        processor.image_processor.save_pretrained(folder)
    dist.barrier()


def _tensors(policy: Policy, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Every tensor of the training state by name. Loading writes into these very tensors."""
    state: dict[str, Tensor] = {}
    for name, parameter in policy.named_parameters():
        state[f"model.{name}"] = parameter.detach()
        if optimizer is not None and parameter.requires_grad:
            for key, value in _adam_state(optimizer, parameter).items():
                state[f"optimizer.{key}.{name}"] = value
    return state


def _adam_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state of a parameter, made as AdamW would make it before its first step."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return {key: state[key] for key in ("step", "exp_avg", "exp_avg_sq")}


def _full(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()
