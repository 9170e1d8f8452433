"""Low-rank updates of a decoder: put in (with PEFT), taken out, folded into the weights.

An update is a pair A (r, in), B (out, r) for a linear layer, `W + scaling · B A` (LoRA, arXiv 2106.09685).
Outside a model the scaling is always inside B already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from shoal.errors import ModelError

ADAPTER = "default"
_A, _B = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, slots=True)
class Update:
    """The low-rank update B A of one linear layer."""

    a: Tensor
    """(r, in)."""
    b: Tensor
    """(out, r), scaling included."""

    @property
    def rank(self) -> int:
        """The rank r."""
        return int(self.a.shape[0])


Updates = Mapping[str, Update]
"""Name of a linear layer inside the decoder → its update."""


def from_tensors(tensors: Mapping[str, Tensor], scaling: float = 1.0) -> dict[str, Update]:
    """Pair the tensors `NAME.lora_A.weight` and `NAME.lora_B.weight`.

    Raises:
        ModelError: half of a pair is missing, or the halves have different ranks.
    """
    names = sorted({name.removesuffix(_A).removesuffix(_B) for name in tensors})
    for name in names:
        a, b = tensors.get(name + _A), tensors.get(name + _B)
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise ModelError(
                "lora_A and lora_B do not make a pair", where=name, fix="save the adapters again"
            )
    return {name: Update(tensors[name + _A], tensors[name + _B] * scaling) for name in names}


def to_tensors(updates: Updates) -> dict[str, Tensor]:
    """The inverse of `from_tensors`."""
    return {name + _A: each.a for name, each in updates.items()} | {
        name + _B: each.b for name, each in updates.items()
    }


def fold(decoder: nn.Module, updates: Updates) -> None:
    """Add the updates to the decoder's weights, in float32 whatever the weights' type.

    Raises:
        ModelError: an update fits no linear layer of the decoder.
    """
    for name, update in updates.items():
        _add(_linear(decoder, name, update).weight, update)


@torch.no_grad()
def _add(weight: Tensor, update: Update) -> None:
    delta = update.b.to(weight.device, torch.float32) @ update.a.to(weight.device, torch.float32)
    weight.copy_(weight.float() + delta)


def _linear(decoder: nn.Module, name: str, update: Update) -> nn.Linear:
    try:
        layer = decoder.get_submodule(name)
    except AttributeError:
        raise ModelError(
            "the decoder has no such layer", where=name, fix="use the base they were made for"
        ) from None
    wanted = (update.b.shape[0], update.a.shape[1])
    if not isinstance(layer, nn.Linear) or tuple(layer.weight.shape) != wanted:
        shape = tuple(layer.weight.shape) if isinstance(layer, nn.Linear) else type(layer).__name__
        raise ModelError(
            f"a low-rank update of shape {wanted} does not fit this layer ({shape})",
            where=name,
            fix="use the base model that the adapters were made for",
        )
    return layer


def inject(decoder: nn.Module, updates: Updates) -> None:
    """Put the updates into the decoder as trainable PEFT layers; everything else in it is frozen.

    Raises:
        ModelError: an update fits no linear layer of the decoder.
    """
    from peft import LoraConfig, inject_adapter_in_model

    for name, update in updates.items():
        _linear(decoder, name, update)
    ranks = {name: update.rank for name, update in updates.items()}
    rank = max(ranks.values(), default=1)
    other = {name: each for name, each in ranks.items() if each != rank}
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=list(ranks), rank_pattern=other, alpha_pattern=other
    )
    inject_adapter_in_model(config, decoder, adapter_name=ADAPTER)
    for name, layer in lora_layers(decoder):
        _fill(layer, updates[name])


@torch.no_grad()
def _fill(layer: Any, update: Update) -> None:
    layer.lora_A[ADAPTER].weight.copy_(update.a)
    layer.lora_B[ADAPTER].weight.copy_(update.b)


def lora_layers(decoder: nn.Module) -> Iterator[tuple[str, Any]]:
    """PEFT's LoRA layers in the decoder: (name of the linear layer they wrap, layer)."""
    for name, module in decoder.named_modules():
        if hasattr(module, "base_layer") and hasattr(module, "lora_A"):
            yield name, module


def extract(decoder: nn.Module) -> dict[str, Update]:
    """The updates in a decoder with PEFT layers, scaling included; empty if there are none.

    Raises:
        ModelError: a layer has several adapters, or they are folded into the weights for the moment.
    """
    return {name: _update(name, layer) for name, layer in lora_layers(decoder)}


def _update(name: str, layer: Any) -> Update:
    adapters = list(layer.lora_A)
    if len(adapters) != 1 or layer.merged:
        state = "merged" if layer.merged else f"{len(adapters)} adapters"
        raise ModelError(
            f"expected one unmerged adapter, found {state}", where=name, fix="unmerge the adapter"
        )
    (adapter,) = adapters
    b = layer.lora_B[adapter].weight.detach() * layer.scaling[adapter]
    return Update(layer.lora_A[adapter].weight.detach(), b)


def merge(decoder: nn.Module) -> int:
    """Fold PEFT's LoRA layers of the decoder into its weights and take them out; returns how many there were.

    Raises:
        ModelError: see `extract`, or a layer that is not linear.
    """
    updates, layers = extract(decoder), list(lora_layers(decoder))
    for name, layer in layers:
        parent, _, attribute = name.rpartition(".")
        setattr(decoder.get_submodule(parent), attribute, layer.get_base_layer())
    fold(decoder, updates)
    return len(layers)
