"""Low-rank adapters (LoRA, arXiv 2106.09685) on linear layers of the language model, through peft.

W x becomes W x + scale * B A x, with B = 0 at first: an adapter that nothing has trained changes nothing. There is no
dropout: what is sampled and what is trained must be the same policy.

Shapes: I and O a layer's inputs and outputs, R rank.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from geogrpo.config import LoraConfig

HEAD = "lm_head"
_ADAPTER = "default"
"""What peft calls an adapter that was given no name."""
_SEED = 2106_09685
_BASE, _A, _B = ".base_layer.", f".lora_A.{_ADAPTER}.", f".lora_B.{_ADAPTER}."
"""What peft puts into the names of the parameters of a layer with an adapter."""


def add_adapters(model: Any, config: LoraConfig) -> None:
    """Freeze a transformers model, its language model at model.model.language_model, and give that adapters to train.

    A is random, the same in every process and every run; B is 0.

    Raises:
        ValueError: naming the target that is no linear layer of the language model, or peft, where it is missing.
    """
    peft = _import_peft()
    language_model = model.model.language_model
    _check_targets(language_model, config.targets)
    model.requires_grad_(False)
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=list(config.targets), lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(_SEED)
        peft.inject_adapter_in_model(settings, language_model, adapter_name=_ADAPTER)


def adapter_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' parameters by name; empty where there are none."""
    return {name: parameter for name, parameter in module.named_parameters() if is_adapter(name)}


def is_adapter(name: str) -> bool:
    """Whether this is the name of an adapter's parameter."""
    return _A in name or _B in name


def store_base(policy: nn.Module, dtype: torch.dtype, but: set[nn.Parameter]) -> None:
    """Keep what is frozen beside adapters in `dtype`, but for some parameters. Without adapters nothing changes.

    A forward pass computes with this very rounding: it loses nothing, and memory for master weights is saved.
    """
    if adapter_parameters(policy):
        for parameter in policy.parameters():
            if not parameter.requires_grad and parameter not in but:
                parameter.data = parameter.data.to(dtype)


def plain_name(name: str) -> str:
    """The name of a parameter in the model without adapters."""
    return name.replace(_BASE, ".")


def adapter_of(model: nn.Module, name: str) -> tuple[Tensor, Tensor, float] | None:
    """A (R, I), B (O, R) and the scale of their product, of the weight called `name`; None where it has no adapter."""
    layer_name, base, kind = name.rpartition(_BASE)
    if not base or kind != "weight":
        return None
    layer: Any = model.get_submodule(layer_name)
    return layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight, layer.scaling[_ADAPTER]


def save_adapter(folder: Path, model: Any, weights: dict[str, Tensor]) -> None:
    """Write the adapter in peft's own layout: PeftModel.from_pretrained(the model it was made on, folder) loads it.

    Args:
        folder: becomes the adapter's.
        model: has the adapter.
        weights: whole, by name in the model.
    """
    settings = model.model.language_model.peft_config[_ADAPTER]
    names = "|".join(re.escape(target) for target in sorted(settings.target_modules))
    saved = dataclasses.replace(
        settings,
        # Of the whole model: the vision tower's layers may have the same names.
        target_modules=rf"model\.language_model\.(.*\.)?({names})",
        base_model_name_or_path=model.name_or_path,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    saved.save_pretrained(str(folder))
    in_peft = {f"base_model.model.{name.replace(f'.{_ADAPTER}.', '.')}": weight for name, weight in weights.items()}
    save_file(in_peft, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _check_targets(language_model: nn.Module, targets: Sequence[str]) -> None:
    linear = [name for name, module in language_model.named_modules() if isinstance(module, nn.Linear)]
    known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
    for target in targets:
        if target == HEAD:
            raise ValueError(
                f"model.lora.targets: {HEAD} is read as one weight and cannot have an adapter. Linear layers: {known}."
            )
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            raise ValueError(
                f"model.lora.targets: {target!r} is no linear layer of the language model. Linear layers: {known}."
            )


def _import_peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ValueError("model.lora.rank above 0 needs peft. Install it: pip install 'geogrpo[lora]'") from error
    return peft
