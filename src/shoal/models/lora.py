"""Low-rank layers (LoRA, arXiv 2106.09685) in a model: put in with PEFT, read, merged.

An update is a pair of matrices A (r, in) and B (out, r) beside a linear layer: `W + alpha / r · B A`. In a file they
are `NAME.lora_A.weight` and `NAME.lora_B.weight`.

PEFT picks modules by the end of their names or by a pattern; here the names are exact, so that layer 1 is not layer 11
and the encoder's layers are not the decoder's.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from shoal.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"
KINDS = (nn.Linear, Conv1D)
"""What can be adapted; subclasses may compute something else."""
_A, _B = ".lora_A.weight", ".lora_B.weight"

Updates = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a linear layer → its A (r, in) and B (out, r), the scaling inside B."""


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's LoRA layers: (name of the linear layer they wrap, layer)."""
    for name, module in model.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "lora_A"):
            yield name, module


def linear_layers(model: nn.Module, paths: Iterable[str]) -> tuple[str, ...]:
    """The linear layers inside modules, by their names in the model, in order."""
    return tuple(
        f"{path}.{name}" if name else path
        for path in paths
        for name, module in model.get_submodule(path).named_modules()
        if isinstance(module, KINDS)
    )


def exactly(modules: Iterable[str]) -> str:
    """A pattern for PEFT's `target_modules` that picks these modules and no others."""
    return "|".join(re.escape(name) for name in modules)


# --- Put in ---


def add_lora(
    model: PreTrainedModel,
    modules: Sequence[str],
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    rslora: bool = False,
    other_ranks: Mapping[str, int] | None = None,
) -> int:
    """Put a trainable low-rank update beside each of `modules`; the model computes what it did before.

    Args:
        model: changed in place; whether its own parameters are trainable stays as it is.
        modules: full names of linear layers.
        rank: of the updates.
        alpha: their scaling is `alpha / rank`.
        dropout: of their inputs while training.
        rslora: scale by `alpha / sqrt(rank)` instead (arXiv 2312.03732).
        other_ranks: of those modules whose rank is another; the scaling of all is the same.

    Returns:
        The number of new parameters, which are float32.

    Raises:
        ModelError: there are such layers already, or a module is not there or not linear.
    """
    from peft import LoraConfig, inject_adapter_in_model

    _check(model, modules)
    others = {f"model.{name}": other for name, other in (other_ranks or {}).items()}
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        use_rslora=rslora,
        target_modules=exactly(f"model.{name}" for name in modules),
        rank_pattern=others,
        alpha_pattern={name: alpha / rank * other for name, other in others.items()},
    )
    # Inside a plain module, since PEFT rewrites what is picked in some mixtures of experts (by their `model_type`).
    holder = nn.ModuleDict({"model": model})
    trainable = {parameter: parameter.requires_grad for parameter in model.parameters()}
    try:
        with warnings.catch_warnings(action="ignore"):
            inject_adapter_in_model(config, holder, adapter_name=ADAPTER)
        _check_added(model, modules)
    except Exception as error:  # PEFT refuses some models and modules, with many kinds of errors
        for name, layer in list(lora_layers(model)):
            model.set_submodule(name, layer.get_base_layer())
        raise ModelError(f"cannot take low-rank layers ({str(error)[:300]})", where=type(model).__name__) from None
    finally:
        for parameter, value in trainable.items():
            parameter.requires_grad_(value)
    config.target_modules = exactly(modules)
    vars(model)["peft_config"] = {ADAPTER: config}
    return sum(parameter.numel() for parameter in _prepared(model))


def add_updates(model: PreTrainedModel, updates: Updates) -> None:
    """Put updates into a model as trainable PEFT layers; everything else in it is frozen.

    Raises:
        ModelError: an update fits no linear layer of the model.
    """
    for name, update in updates.items():
        _fitting(model, name, update)
    model.requires_grad_(False)
    if not updates:
        return
    ranks = {name: len(a) for name, (a, _) in updates.items()}
    rank = max(ranks.values())
    others = {name: other for name, other in ranks.items() if other != rank}
    add_lora(model, list(updates), rank=rank, alpha=rank, other_ranks=others)
    with torch.no_grad():
        for name, layer in lora_layers(model):
            a, b = updates[name]
            layer.lora_A[ADAPTER].weight.copy_(a)
            layer.lora_B[ADAPTER].weight.copy_(b)


def _check(model: nn.Module, modules: Sequence[str]) -> None:
    where = type(model).__name__
    if any(True for _ in lora_layers(model)):
        raise ModelError("it has low-rank layers already", where=where, fix="merge them first")
    if not modules:
        raise ModelError("no modules to adapt", where=where)
    modules_by_name = dict(model.named_modules())
    uses = Counter(id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False))
    for name in modules:
        if name not in modules_by_name:
            raise ModelError("the model has no such module", where=name, fix="give its full name")
        if type(modules_by_name[name]) not in KINDS:
            kinds = " or ".join(kind.__name__ for kind in KINDS)
            raise ModelError(
                f"a low-rank update needs a {kinds}, and this is a {type(modules_by_name[name]).__name__}",
                where=name,
                fix="train it whole, or leave it out",
            )
        if uses[id(modules_by_name[name].weight)] > 1:
            raise ModelError(
                "its weights are tied to another module's, which a merged update would change too",
                where=name,
                fix="leave it out",
            )


def _check_added(model: nn.Module, modules: Sequence[str]) -> None:
    if odd := sorted({name for name, _ in lora_layers(model)} ^ set(modules)):
        raise ValueError(f"PEFT did not adapt exactly the modules that were asked for; {odd[0]} differs")


def _prepared(model: nn.Module) -> Iterator[nn.Parameter]:
    """The new parameters, made trainable in float32; their dropout follows the model's mode."""
    for _, layer in lora_layers(model):
        layer.train(model.training)
        for part in (layer.lora_A, layer.lora_B):
            yield from part.float().requires_grad_(True).parameters()


# --- Read ---


def lora_state(model: nn.Module, *, scaled: bool = False) -> dict[str, Tensor]:
    """The low-rank weights: `NAME.lora_A.weight` (r, in) and `NAME.lora_B.weight` (out, r).

    Args:
        model: with such layers, or without.
        scaled: whether B has the scaling inside.

    Raises:
        ModelError: a layer has several adapters, or they are merged into the weights for the moment.
    """
    state = {}
    for name, layer in lora_layers(model):
        adapter = _adapter(name, layer)
        state[name + _A] = layer.lora_A[adapter].weight.detach()
        b = layer.lora_B[adapter].weight.detach()
        state[name + _B] = b * layer.scaling[adapter] if scaled else b
    return state


def updates_of(tensors: Mapping[str, Tensor], scaling: float = 1.0) -> dict[str, tuple[Tensor, Tensor]]:
    """The updates that a file holds, as `lora_state` names them.

    Raises:
        ModelError: half of a pair is missing, or the halves have different ranks.
    """
    updates = {}
    for name in sorted({name.removesuffix(_A).removesuffix(_B) for name in tensors}):
        a, b = tensors.get(name + _A), tensors.get(name + _B)
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise ModelError("lora_A and lora_B do not make a pair", where=name, fix="save the adapters again")
        updates[name] = (a, b * scaling)
    return updates


def _adapter(name: str, layer: Any) -> str:
    adapters = list(layer.lora_A)
    if len(adapters) != 1 or layer.merged:
        state = "merged" if layer.merged else f"{len(adapters)} adapters"
        raise ModelError(f"expected one unmerged adapter, found {state}", where=name, fix="unmerge the adapter")
    return str(adapters[0])


# --- Merge ---


def merge_updates(model: nn.Module, updates: Updates) -> None:
    """Add updates that are not in the model to its weights, in float32 whatever the weights' type.

    Raises:
        ModelError: an update fits no linear layer of the model.
    """
    with torch.no_grad():
        for name, (a, b) in updates.items():
            weight = _fitting(model, name, (a, b)).weight
            delta = b.to(weight.device, torch.float32) @ a.to(weight.device, torch.float32)
            weight.copy_(weight.float() + delta)


def _fitting(model: nn.Module, name: str, update: tuple[Tensor, Tensor]) -> nn.Linear:
    """The linear layer of that name, which the update must fit."""
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise ModelError("the decoder has no such layer", where=name, fix="use the base they were made for") from None
    needed = (update[1].shape[0], update[0].shape[1])
    if not isinstance(layer, nn.Linear) or tuple(layer.weight.shape) != needed:
        shape = tuple(layer.weight.shape) if isinstance(layer, nn.Linear) else type(layer).__name__
        raise ModelError(
            f"a low-rank update of shape {needed} does not fit this layer ({shape})",
            where=name,
            fix="use the base model that the adapters were made for",
        )
    return layer


@contextmanager
def merged(model: PreTrainedModel, dtype: torch.dtype | None = None) -> Iterator[int]:
    """The model without low-rank layers, their updates in its weights, while the block runs; then exactly as before.

    The sum is taken in float32 and rounded once.

    Args:
        model: changed in place.
        dtype: of the merged weights; None: their own.

    Yields:
        How many low-rank layers there were.

    Raises:
        ModelError: a layer has several adapters, or they are merged for the moment.
    """
    layers = list(lora_layers(model))
    weights = [layer.get_base_layer().weight for _, layer in layers]
    before = [weight.data for weight in weights]
    config = vars(model.config)
    flag = {name: config[name] for name in ("lora_merged",) if layers and name in config}
    try:
        with torch.no_grad():
            for (name, layer), weight in zip(layers, weights, strict=True):
                delta = layer.get_delta_weight(_adapter(name, layer))
                weight.data = (weight.detach().float() + delta.float()).to(dtype or weight.dtype)
                model.set_submodule(name, layer.get_base_layer())
        config.update(dict.fromkeys(flag, True))
        yield len(layers)
    finally:
        config.update(flag)
        for (name, layer), weight, data in zip(layers, weights, before, strict=True):
            weight.data = data
            model.set_submodule(name, layer)


def merge(model: PreTrainedModel, ref: str, *, replace: bool = False) -> None:
    """Merge an adapter of any kind that PEFT knows, for good, as PEFT does it.

    Args:
        model: with the adapter; changed in place.
        ref: what the user calls the model or the adapter, for messages.
        replace: modules that the adapter brings whole take the place of the model's own; else they are refused.

    Raises:
        ModelError: it cannot be merged.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    for name, module in list(model.named_modules()):
        if replace and type(module) is ModulesToSaveWrapper:
            model.set_submodule(name, module.modules_to_save[module.active_adapter])
        elif isinstance(module, AuxiliaryTrainingWrapper):
            raise unusable(ref, f"it replaces whole modules ({name})")
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            try:
                module.merge(safe_merge=True)
            except (ValueError, NotImplementedError) as error:
                raise unusable(ref, f"it cannot be merged ({error})") from error
            model.set_submodule(name, module.get_base_layer())
    model._hf_peft_config_loaded = False
    vars(model).pop("peft_config", None)
    # Granite Speech and Shoal's own SpeechLLM say in their configs whether there is an adapter.
    for name, value in {"has_lora_adapter": False, "lora_merged": True}.items():
        if name in vars(model.config):
            setattr(model.config, name, value)


def unusable(ref: str, problem: str) -> ModelError:
    """Why the adapter of the model `ref` cannot be used."""
    return ModelError(
        f"the adapter beside its weights cannot be used: {problem}",
        where=ref,
        fix="merge it into the weights with the library it was made with, or move it away",
    )
