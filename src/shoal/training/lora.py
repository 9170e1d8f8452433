"""Low-rank layers (LoRA, arXiv 2106.09685) in a model that is healed: put in, read, merged.

PEFT picks modules by the end of their names or by a pattern; here the names are exact, so that layer 1 is not layer 11
and the encoder's layers are not the decoder's.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from shoal.errors import ModelError
from shoal.models.lora import ADAPTER, lora_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.loading import LoadedModel

KINDS = (nn.Linear, Conv1D)
"""What can be adapted; subclasses may compute something else."""


def add_lora(
    model: PreTrainedModel,
    modules: Sequence[str],
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    rslora: bool = False,
) -> int:
    """Put a trainable low-rank update beside each of `modules`; the model computes what it did before.

    Args:
        model: changed in place; whether its own parameters are trainable stays as it is.
        modules: full names of linear layers.
        rank: of the updates.
        alpha: their scaling is `alpha / rank`.
        dropout: of their inputs while training.
        rslora: scale by `alpha / sqrt(rank)` instead (arXiv 2312.03732).

    Returns:
        The number of new parameters, which are float32.

    Raises:
        ModelError: there are such layers already, or a module is not there or not linear.
    """
    from peft import LoraConfig, inject_adapter_in_model

    _check(model, modules)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules=exactly([f"model.{name}" for name in modules]),
    )
    # Inside a plain module, since PEFT rewrites what is picked in some mixtures of experts (by their `model_type`).
    holder = nn.ModuleDict({"model": model})
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with warnings.catch_warnings(action="ignore"):
            inject_adapter_in_model(config, holder, adapter_name=ADAPTER)
        _check_added(model, modules)
    except Exception as error:  # PEFT refuses some models and modules, with many kinds of errors
        take_out(model)
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot take low-rank layers ({reason})", where=type(model).__name__) from None
    finally:
        for parameter, value in trainable.items():
            parameter.requires_grad_(value)
    config.target_modules = exactly(modules)
    vars(model)["peft_config"] = {ADAPTER: config}
    return sum(parameter.numel() for parameter in _prepared(model))


def merge_lora(model: PreTrainedModel) -> int:
    """Fold the low-rank layers into the weights beside them, in float32 whatever their type, and take them out.

    Returns:
        How many there were.

    Raises:
        ModelError: a layer has several adapters, or they are folded into the weights for the moment.
    """
    layers = list(lora_layers(model))
    for name, layer in layers:
        _adapter(name, layer)
    with torch.no_grad():
        for name, layer in layers:
            weight = layer.get_base_layer().weight
            weight.data = _folded(name, layer, weight.dtype)
    take_out(model)
    if layers and "lora_merged" in vars(model.config):
        model.config.lora_merged = True
    return len(layers)


@contextmanager
def merged(model: PreTrainedModel, dtype: torch.dtype | None = None) -> Iterator[int]:
    """`merge_lora` while the block runs; afterwards the model is exactly as before.

    Args:
        model: changed in place.
        dtype: of the merged weights; None: their own.

    Yields:
        How many low-rank layers there were.
    """
    layers = list(lora_layers(model))
    weights = [layer.get_base_layer().weight for _, layer in layers]
    before = [weight.data for weight in weights]
    config = vars(model.config)
    flag = {name: config[name] for name in ("lora_merged",) if layers and name in config}
    try:
        with torch.no_grad():
            for (name, layer), weight in zip(layers, weights, strict=True):
                weight.data = _folded(name, layer, dtype or weight.dtype)
                model.set_submodule(name, layer.get_base_layer())
        config.update(dict.fromkeys(flag, True))
        yield len(layers)
    finally:
        config.update(flag)
        for (name, layer), weight, data in zip(layers, weights, before, strict=True):
            weight.data = data
            model.set_submodule(name, layer)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The low-rank weights: `NAME.lora_A.weight` (r, in) and `NAME.lora_B.weight` (out, r), without their scaling.

    Raises:
        ModelError: a layer has several adapters, or they are folded into the weights for the moment.
    """
    found = {}
    for name, layer in lora_layers(model):
        adapter = _adapter(name, layer)
        found[f"{name}.lora_A.weight"] = layer.lora_A[adapter].weight.detach()
        found[f"{name}.lora_B.weight"] = layer.lora_B[adapter].weight.detach()
    return found


def exactly(modules: Sequence[str]) -> str:
    """A pattern for PEFT's `target_modules` that picks these modules and no others."""
    return "|".join(re.escape(name) for name in modules)


def take_out(model: nn.Module) -> None:
    """Put every layer back in the place of the low-rank layer around it, as it is."""
    for name, layer in list(lora_layers(model)):
        model.set_submodule(name, layer.get_base_layer())
    vars(model).pop("peft_config", None)


def _check(model: nn.Module, modules: Sequence[str]) -> None:
    if any(True for _ in lora_layers(model)):
        raise ModelError(
            "it has low-rank layers already", where=type(model).__name__, fix="merge them first (merge_lora)"
        )
    there = dict(model.named_modules())
    places = Counter(map(id, (each for _, each in model.named_parameters(remove_duplicate=False))))
    if not modules:
        raise ModelError("no modules to adapt", where=type(model).__name__)
    for name in modules:
        if name not in there:
            raise ModelError("the model has no such module", where=name, fix="give its full name")
        if type(there[name]) not in KINDS:
            kinds = " or ".join(kind.__name__ for kind in KINDS)
            raise ModelError(
                f"a low-rank update needs a {kinds}, and this is a {type(there[name]).__name__}",
                where=name,
                fix="train it whole, or leave it out",
            )
        if places[id(there[name].weight)] > 1:
            raise ModelError(
                "its weights are tied to another module's, which a merged update would change too",
                where=name,
                fix="leave it out",
            )


def _check_added(model: nn.Module, modules: Sequence[str]) -> None:
    found = {name for name, _ in lora_layers(model)}
    if found != set(modules):
        (odd, *_) = sorted(found ^ set(modules))
        raise ValueError(f"PEFT did not adapt exactly the modules that were asked for; {odd} differs")


def _prepared(model: nn.Module) -> Iterator[nn.Parameter]:
    """The new parameters, made trainable in float32; their dropout follows the model's mode."""
    for _, layer in lora_layers(model):
        layer.train(model.training)
        for part in (layer.lora_A, layer.lora_B):
            yield from part.float().requires_grad_(True).parameters()


def _folded(name: str, layer: Any, dtype: torch.dtype) -> Tensor:
    """The weight with its update, computed in float32."""
    delta = layer.get_delta_weight(_adapter(name, layer))
    return (layer.get_base_layer().weight.detach().float() + delta.float()).to(dtype)


def _adapter(name: str, layer: Any) -> str:
    adapters = list(layer.lora_A)
    if len(adapters) != 1 or layer.merged:
        state = "merged" if layer.merged else f"{len(adapters)} adapters"
        raise ModelError(
            f"expected one unmerged adapter, found {state}", where=name, fix="unmerge the adapter"
        )
    return str(adapters[0])


def linear_layers(loaded: LoadedModel, paths: Iterable[str]) -> tuple[str, ...]:
    """The linear layers inside modules, by their names in the model, in order."""
    found = []
    for path in paths:
        for name, module in loaded.model.get_submodule(path).named_modules():
            if isinstance(module, KINDS):
                found.append(f"{path}.{name}" if name else path)
    return tuple(found)
