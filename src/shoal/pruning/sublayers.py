"""Go without the attention or the MLP of some layers, in memory, for a while.

The modules of the part make way for stand-ins that compute nothing and answer zeros, so the layer passes on what it was
given plus its other contribution. No layer changes its place: masks, config and cache stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Cache, EncoderDecoderCache

from shoal.decoder.sublayers import ModuleOutput, Sublayers, sublayers_of
from shoal.errors import ModelError
from shoal.models.families import find
from shoal.models.families.base import INDEX_ATTRIBUTES

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shoal.models.families.base import Family
    from shoal.schema import Part

STORES_KEYS = "store_full_length_kv"
"""The attribute of an attention whose keys and values later layers read (Gemma 3n, Gemma 4)."""


@contextmanager
def without_part(
    model: PreTrainedModel, layers: Sequence[int], part: Part, *, family: Family | None = None
) -> Iterator[PreTrainedModel]:
    """Leave out `part` of `layers` while the block runs; afterwards the model is exactly as before.

    Args:
        model: any model a family knows; changed in place.
        layers: 0-based indices, ascending.
        part: `attention` or `mlp`.
        family: the model's family, if known already.

    Yields:
        The same model object.

    Raises:
        ModelError: the layers are not proved to be attention + MLP, or later layers read what would go.
    """
    family = family or find(model)
    stack, known = family.layers(model), sublayers_of(model, family)
    with ExitStack() as undo:
        for index in layers:
            _leave_out(stack[index], known[index], part, undo)
        yield model


def let_go(model: nn.Module) -> None:
    """Give up the weights of all that is left out, for its memory; what comes back afterwards has none."""
    for module in model.modules():
        if isinstance(module, ZeroModule):
            module.original.to("meta")


def _leave_out(layer: nn.Module, parts: Sublayers, part: Part, undo: ExitStack) -> None:
    if part == "attention" and getattr(parts.work["attention"][0], STORES_KEYS, False):
        raise ModelError(
            "later layers read the keys and values of an attention that would go",
            where=type(layer).__name__,
            fix="choose other layers",
        )
    for module in parts.work[part]:
        if (name := _name(layer, module)) is not None:
            undo.callback(setattr, layer, name, module)
            setattr(layer, name, ZeroModule(module, parts.outputs[module], keeps_cache=part == "attention"))


def _name(layer: nn.Module, module: nn.Module) -> str | None:
    """Under which name `layer` has `module`; None if a stand-in has its place already.

    Raises:
        ModelError: it has another one since its parts were proved.
    """
    for name, child in layer.named_children():
        if child is module:
            return name
        if isinstance(child, ZeroModule) and child.original is module:
            return None
    raise ModelError(f"its {type(module).__name__} was replaced", where=type(layer).__name__)


class ZeroModule(nn.Module):
    """Answers zeros where `original` would compute, in the same form, and tells the cache that time has passed.

    Decoders ask the cache of one layer how many positions there are, and make everybody's mask by it.

    Args:
        original: the module whose place it takes; not registered, so its parameters do not count.
        output: what that answers.
        keeps_cache: whether that is an attention, which writes to the cache.
    """

    original: nn.Module

    def __init__(self, original: nn.Module, output: ModuleOutput, *, keeps_cache: bool) -> None:
        super().__init__()
        # Past `nn.Module`, which would register it.
        self.__dict__["original"] = original
        self._output, self._keeps_cache = output, keeps_cache
        self.training = original.training

    def __getattr__(self, name: str) -> Any:
        """What a layer wants to know of its attention or MLP beside calling it."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["original"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor | None, ...]:
        """Zeros (…, `output.width`) for states (…, d), alone or first of a tuple."""
        states: Tensor = args[0] if args else kwargs["hidden_states"]
        if self._keeps_cache:
            self._pass_time(states, (*args, *kwargs.values()))
        zeros = states.new_zeros((*states.shape[:-1], self._output.width))
        if self._output.length is None:
            return zeros
        return (zeros, *[None] * (self._output.length - 1))

    def _pass_time(self, states: Tensor, values: Sequence[Any]) -> None:
        """Store a key and a value of one zero for each new position."""
        cache = next((value for value in values if isinstance(value, Cache)), None)
        index = _cache_index(self)
        if cache is None or index is None:
            return
        nothing = states.new_zeros((states.shape[0], 1, states.shape[1], 1))
        own = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
        with torch.no_grad():
            own.update(nothing, nothing, index)


def _cache_index(stand_in: ZeroModule) -> int | None:
    """Which layer's cache the attention, or a part of it, writes to; the stand-in's own number if it was given one."""
    parts = (stand_in, *stand_in.original.modules())
    indices = (getattr(part, name, None) for part in parts for name in INDEX_ATTRIBUTES)
    return next((value for value in indices if isinstance(value, int)), None)
