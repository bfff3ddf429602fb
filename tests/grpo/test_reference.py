"""Which reference a run gets, and how it is kept."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import model_config
from grpo_steps import whole, with_options
from torch.distributed.tensor import DTensor

from geogrpo.checkpoint import Progress, save_checkpoint
from geogrpo.config import LoraConfig, OptimizerConfig, ReferenceConfig
from geogrpo.distributed import load_sharded, shard_policy
from geogrpo.grpo.reference import AdapterReference, CopyReference, Reference, load_reference
from geogrpo.optimization import make_optimizer
from geogrpo.policy.load import load_policy, load_processor
from geogrpo.policy.model import Policy


def loaded(
    folder: Path, checkpoints: Path, reference: ReferenceConfig, *, beta: float = 0.1, **model: Any
) -> Reference | None:
    """What stage 2 starts with, from a policy whose weights are those of the folder times 1.5."""
    config = dataclasses.replace(model_config(folder), dtype="bfloat16", **model)
    policy, processor = load_sharded(config, "short")
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.5)
    optimizer = make_optimizer(policy, OptimizerConfig())
    start = save_checkpoint(checkpoints, policy, optimizer, Progress())

    def load_model(dtype: torch.dtype | None) -> Policy:
        other = load_policy(config, processor.tokenizer)
        for parameter in other.parameters() if dtype else ():
            parameter.data = parameter.data.to(dtype)
        return shard_policy(other, policy.device, torch.bfloat16)

    options = with_options(loss__beta=beta, reference=reference)
    return load_reference(policy, load_model, options, start=start, resume_from=None)


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (ReferenceConfig(), torch.bfloat16),
        (ReferenceConfig(sync_every=4), torch.bfloat16),
        # In bfloat16 the steps of an average would be rounded away.
        (ReferenceConfig(sync_every=4, sync_mix=0.1), torch.float32),
    ],
)
def test_a_copy_is_sharded_frozen_and_kept_in_the_compute_type(
    tiny_folder: Path, tmp_path: Path, device: torch.device, config: ReferenceConfig, dtype: torch.dtype
) -> None:
    reference = loaded(tiny_folder, tmp_path, config)
    assert isinstance(reference, CopyReference)
    parameters = list(reference.policy.parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters)
    assert {parameter.dtype for parameter in parameters} == {dtype}
    assert not any(parameter.requires_grad for parameter in parameters)
    assert (reference.moving is not None) == (config.sync_every > 0)
    # Of the checkpoint, not of the folder.
    original = load_policy(model_config(tiny_folder), load_processor(model_config(tiny_folder), "short").tokenizer)
    expected = original.model.lm_head.weight.detach() * 1.5
    torch.testing.assert_close(whole(reference.policy.model.lm_head.weight).float(), expected, rtol=1e-2, atol=0)


def test_an_adapter_is_put_back_unless_a_copy_is_asked_for(
    tiny_folder: Path, tmp_path: Path, device: torch.device
) -> None:
    model: dict[str, Any] = {"lora": LoraConfig(rank=2), "freeze_vision": True}
    for kind in ("auto", "adapter_off"):
        assert isinstance(loaded(tiny_folder, tmp_path / kind, ReferenceConfig(kind=kind), **model), AdapterReference)
    copy = loaded(tiny_folder, tmp_path / "copy", ReferenceConfig(kind="copy", sync_every=1), **model)
    assert isinstance(copy, CopyReference)
    assert copy.moving is not None
    with pytest.raises(ValueError, match=r"sync_every: an adapter that is put back cannot move\. Take kind: copy"):
        loaded(tiny_folder, tmp_path / "moving", ReferenceConfig(sync_every=1), **model)


def test_without_a_kl_there_is_none(tiny_folder: Path, tmp_path: Path, device: torch.device) -> None:
    assert loaded(tiny_folder, tmp_path, ReferenceConfig(), beta=0.0) is None
