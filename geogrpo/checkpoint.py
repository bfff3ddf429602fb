"""Checkpoints that resume exactly and load at any world size.

Written through torch.distributed.checkpoint as safetensors shards, so reading one never unpickles anything. A
checkpoint appears under its final name only when it is complete. Random states are not stored: every random number
of a run is a function of (seed, stage, step, example).
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.tensor import DTensor

from geogrpo.distributed import all_gather_list, is_main
from geogrpo.policy.lora import adapter_of, adapter_parameters, is_adapter, plain_name, save_adapter
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
    skipped_images: dict[str, int] = field(default_factory=dict)
    """Why each unreadable image of the run was skipped, and how often it was met."""

    def finish_step(self, num_tokens: int, skipped: Sequence[str]) -> None:
        """Count one more step: its completion tokens and its unreadable images, over all ranks."""
        self.step += 1
        self.num_tokens += num_tokens
        for message in skipped:
            self.skipped_images[message] = self.skipped_images.get(message, 0) + 1


def checkpoint_name(progress: Progress) -> str:
    """Folder name of a checkpoint; names sort in the order of training."""
    return f"{STAGES.index(progress.stage)}-{progress.stage}-{progress.step:07d}"


def save_checkpoint(
    folder: Path,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    *,
    reference: Policy | None = None,
) -> Path:
    """Write folder/<checkpoint name>; every rank must call this.

    A checkpoint of this very progress is left as it is; another one of that name is replaced once the new one is whole.

    Args:
        reference: a second model that moves, and so must be kept.
    """
    final = folder / checkpoint_name(progress)
    temporary, replaced = folder / f".writing-{final.name}", folder / f".replaced-{final.name}"
    # One rank decides: on a network file system another may see a new folder later.
    if all_gather_list([is_main() and _holds(final, progress)])[0]:
        return final
    if is_main():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
    dcp.save(_tensors(policy, optimizer) | _reference_tensors(reference), storage_writer=writer)
    dist.barrier()
    if is_main():
        (temporary / PROGRESS_FILE).write_text(json.dumps(asdict(progress), indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(replaced, ignore_errors=True)
        if final.exists():
            final.rename(replaced)
        temporary.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
    dist.barrier()
    return final


def _holds(checkpoint: Path, progress: Progress) -> bool:
    try:
        return read_progress(checkpoint) == progress
    except ValueError:
        return False


def read_progress(checkpoint: Path) -> Progress:
    """What a checkpoint says of itself.

    Raises:
        ValueError: naming the file, when it is missing or damaged.
    """
    path = checkpoint / PROGRESS_FILE
    try:
        progress = Progress(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: not a checkpoint of geogrpo: {error}") from error
    if progress.stage not in STAGES:
        raise ValueError(f"{path}: stage must be one of {', '.join(STAGES)}, got {progress.stage!r}.")
    for name in ("step", "num_tokens"):
        if not _is_count(getattr(progress, name)):
            raise ValueError(f"{path}: {name} must be a whole number, 0 or more, got {getattr(progress, name)!r}.")
    skipped = progress.skipped_images
    if not isinstance(skipped, dict) or not all(map(_is_count, skipped.values())):
        raise ValueError(f"{path}: skipped_images must map messages to counts, got {skipped!r}.")
    return progress


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def check_checkpoint(checkpoint: Path) -> Progress:
    """What a checkpoint says of itself, its tensor files looked over without reading the tensors.

    Raises:
        ValueError: naming the file that is missing or damaged.
    """
    progress = read_progress(checkpoint)
    shards = sorted(checkpoint.glob("*.safetensors"))
    if not shards:
        raise ValueError(f"checkpoint {checkpoint}: holds no tensors.")
    for shard in shards:
        try:
            # Compares the size of the file with its header
            with safe_open(shard, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{shard}: damaged: {error}") from error
    return progress


def load_checkpoint(checkpoint: Path, policy: Policy, optimizer: torch.optim.Optimizer | None = None) -> Progress:
    """Load weights, and optimizer state where an optimizer is given; every rank must call this.

    Raises:
        ValueError: naming the checkpoint, when it does not fit this model.
    """
    progress = read_progress(checkpoint)
    _load(checkpoint, _tensors(policy, optimizer))
    return progress


def read_parameters(checkpoint: Path, values: Mapping[str, Tensor]) -> None:
    """Read the values of some parameters into these tensors, given by their names in the policy and sharded as they
    are there; every rank must call this.

    Raises:
        ValueError: naming the checkpoint, when it does not hold them.
    """
    read_progress(checkpoint)
    _load(checkpoint, {_parameter_key(name): value for name, value in values.items()})


def load_moved_reference(checkpoint: Path, reference: Policy) -> None:
    """Load what save_checkpoint kept of a reference that moves; every rank must call this.

    Raises:
        ValueError: naming the checkpoint, when it holds none, or one of another model.
    """
    _load(checkpoint, _reference_tensors(reference))


def _load(checkpoint: Path, state: dict[str, Tensor]) -> None:
    try:
        with torch.no_grad():
            dcp.load(state, storage_reader=HuggingFaceStorageReader(str(checkpoint)))
    except dcp.api.CheckpointException as error:
        causes = "; ".join(sorted({str(exception) for exception, _ in error.failures.values()}))
        raise ValueError(f"checkpoint {checkpoint} does not fit this model: {causes}") from error


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"[0-9]*/{PROGRESS_FILE}"))


def prune_checkpoints(folder: Path, keep: int, *, kept: Path | None = None) -> None:
    """Delete all but the newest `keep` checkpoints of each stage: the last supervised one is GRPO's reference.

    Args:
        kept: one more that stays.
    """
    if is_main():
        for index, _ in enumerate(STAGES):
            of_stage = [path for path in list_checkpoints(folder) if path.name.startswith(f"{index}-")]
            for old in [path for path in of_stage[:-keep] if path != kept]:
                # First what makes it complete: a deletion cut short must not leave what looks like a checkpoint.
                (old / PROGRESS_FILE).unlink()
                shutil.rmtree(old)


def export_model(folder: Path, policy: Policy, processor: Processor) -> None:
    """Write the policy in the Hugging Face layout, for from_pretrained; every rank must call this.

    An adapter is merged into the weights, and also written alone, for peft, to folder/adapter.
    """
    weights = full_weights(policy)
    adapter = _on_main((name, _whole(value)) for name, value in adapter_parameters(policy.model).items())
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        policy.model.save_pretrained(folder, state_dict=weights)
        processor.tokenizer.save_pretrained(folder)
        processor.image_processor.save_pretrained(folder)
        if adapter:
            save_adapter(folder / "adapter", policy.model, adapter)
    dist.barrier()


def full_weights(policy: Policy) -> dict[str, Tensor]:
    """Every parameter of the model whole, float32, with the adapters merged into what they adapt, on the host of the
    main rank; empty on the others. Every rank must call this.
    """
    named = policy.model.named_parameters()
    return _on_main((plain_name(name), _merged(policy, name, value)) for name, value in named if not is_adapter(name))


def _merged(policy: Policy, name: str, parameter: Tensor) -> Tensor:
    weight = _whole(parameter).float()
    adapter = adapter_of(policy.model, name)
    if adapter is None:
        return weight
    a, b, scale = adapter
    return torch.addmm(weight, _whole(b), _whole(a), alpha=scale)


def _whole(parameter: Tensor) -> Tensor:
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


def _on_main(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors on the host of the main rank; nothing on the others. All ranks gather one at a time, one keeps it."""
    kept: dict[str, Tensor] = {}
    for name, value in named:
        if is_main():
            kept[name] = value.cpu()
    return kept


def _tensors(policy: Policy, optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """Every tensor of the training state by name. Loading writes into these very tensors.

    A vision tower whose features are cached is no part of it, nor what is frozen beside adapters: those weights are of
    the model that the run began with.
    """
    adapters = adapter_parameters(policy)
    frozen = set() if policy.vision_cache is None else {id(p) for p in policy.vision_parameters()}
    state: dict[str, Tensor] = {}
    for name, parameter in policy.named_parameters():
        if id(parameter) in frozen or (adapters and name not in adapters):
            continue
        state[_parameter_key(name)] = parameter.detach()
        if optimizer is not None and parameter.requires_grad:
            for key, value in _adam_state(optimizer, parameter).items():
                state[f"optimizer.{key}.{name}"] = value
    return state


def _reference_tensors(reference: Policy | None) -> dict[str, Tensor]:
    if reference is None:
        return {}
    return {f"reference.{name}": parameter.detach() for name, parameter in reference.named_parameters()}


def _parameter_key(name: str) -> str:
    return f"model.{name}"


def _adam_state(optimizer: torch.optim.Optimizer, parameter: Tensor) -> dict[str, Tensor]:
    """AdamW's state of a parameter, made as AdamW would make it before its first step."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32)
        state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
    return {key: state[key] for key in ("step", "exp_avg", "exp_avg_sq")}
