"""How large a model is: parameters, and bytes of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from shoal.models.loading import LoadedModel


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Parameters, tied ones counted once, and bytes."""

    parameters: int
    decoder_parameters: int
    """Decoder layers, token embedding, final norm and LM head."""
    checkpoint_bytes: int


def size_of(loaded: LoadedModel) -> ModelSize:
    """The size of `loaded` as it is now, so inside `pruned` that of the pruned model."""
    head = loaded.family.head(loaded.model)
    decoder = [loaded.decoder] if head is None else [loaded.decoder, head]
    return ModelSize(_parameters([loaded.model]), _parameters(decoder), checkpoint_bytes(loaded.model))


def _parameters(modules: Iterable[nn.Module]) -> int:
    unique = {id(parameter): parameter.numel() for module in modules for parameter in module.parameters()}
    return sum(unique.values())


def checkpoint_bytes(model: nn.Module) -> int:
    """Bytes of all tensors that are saved, in the type they have now; tied tensors are saved once.

    The safetensors header (a few KiB) is not in it.
    """
    unique = {
        (tensor.data_ptr(), tensor.shape, tensor.stride()): tensor.nbytes for tensor in model.state_dict().values()
    }
    return sum(unique.values())
