"""Which parameters of a model are trained, and where the parts of a model that targets name are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoal.errors import ModelError

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel
    from shoal.training.settings import LoraSettings


@dataclass(frozen=True, slots=True)
class TrainedParts:
    """What of a model is trained; everything else is frozen."""

    lora: tuple[str, ...] = ()
    """Linear layers that get a low-rank update, by their names in the model."""
    whole: tuple[str, ...] = ()
    """Modules of which all parameters are trained, by their names in the model."""

    def __add__(self, other: TrainedParts) -> TrainedParts:
        return TrainedParts(self.lora + other.lora, self.whole + other.whole)

    def mark(self, loaded: LoadedModel, lora: LoraSettings, seed: int) -> None:
        """Freeze everything else, and put the low-rank layers in; their start depends on the seed alone."""
        import torch

        from shoal.models.lora import add_lora

        loaded.model.requires_grad_(False)
        if self.lora:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                add_lora(loaded.model, self.lora, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout)
        for name in self.whole:
            for parameter in loaded.model.get_submodule(name).parameters():
                if parameter.is_floating_point():
                    parameter.requires_grad_(True)

    def has_projector(self, loaded: LoadedModel) -> bool:
        """Whether the projector is among what is trained."""
        projector = loaded.family.projector(loaded.model)
        return any(loaded.model.get_submodule(name) is projector for name in self.whole)


def layer_path(loaded: LoadedModel, layer: int) -> str:
    """The name in the model of a decoder layer, pruned numbering."""
    return f"{loaded.family.layers_path(loaded.model)}.{layer}"


def mlp_layers(loaded: LoadedModel, layer: int) -> tuple[str, ...]:
    """The linear layers of a decoder layer's MLP.

    Raises:
        ModelError: it has none under a name that is known, or a mixture of experts whose weights are one tensor: an
            update of what is linear beside them would leave out most of the MLP.
    """
    from torch import nn

    from shoal.decoder.sublayers import BARE_MLP, MLP
    from shoal.models.lora import linear_layers

    path = layer_path(loaded, layer)
    module = loaded.model.get_submodule(path)
    names = [name for name in MLP if isinstance(getattr(module, name, None), nn.Module)][:1] or [
        name for name in BARE_MLP if isinstance(getattr(module, name, None), nn.Module)
    ]
    weights = [weight for name in names for weight in module.get_submodule(name).parameters()]
    fused = any(weight.ndim > 2 for weight in weights)
    if not fused and (layers := linear_layers(loaded.model, [f"{path}.{name}" for name in names])):
        return layers
    why = "the MLP is a mixture of experts" if fused else ", ".join(names) or "none found"
    raise ModelError(
        f"layer {layer} has no MLP of linear layers ({why})",
        where=type(loaded.model).__name__,
        fix="heal it with --target decoder or projector",
    )


def projector_paths(loaded: LoadedModel) -> tuple[str, ...]:
    """The names of the projector in the model: of its parts, where it is no module of its own.

    Raises:
        ModelError: there is none that is known.
    """
    projector = loaded.family.projector(loaded.model)
    if projector is not None and any(True for _ in projector.parameters()):
        names = {id(module): name for name, module in loaded.model.named_modules()}
        parts = [projector] if id(projector) in names else list(projector.children())
        if parts and all(id(part) in names for part in parts):
            return tuple(names[id(part)] for part in parts)
    raise ModelError(
        "it has no projector that Shoal knows",
        where=type(loaded.model).__name__,
        fix="heal it with --target receiver or decoder",
    )
