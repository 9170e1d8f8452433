"""What a heal target is: which parameters are trained, and on what."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from shoal.decoder.sublayers import BARE_MLP, MLP
from shoal.errors import ModelError, PlanError
from shoal.healing.cuts import Cut
from shoal.models.lora import add_lora, linear_layers
from shoal.schema import Plan

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


class Target(ABC):
    """One way to heal. A new one is a file with a subclass, a line in the registry and one in `TARGET_TITLES`."""

    name: ClassVar[str]
    trained: ClassVar[bool] = True
    """Whether gradients are taken; else the weights are computed."""
    adapts: ClassVar[bool] = True
    """Whether the result can be saved as adapters of the pruned checkpoint."""
    needs_cuts: ClassVar[bool] = False
    """Whether it must be known where layers are missing."""
    hidden_only: ClassVar[bool] = False
    """Whether it learns from hidden states alone, unless it is told otherwise."""

    @abstractmethod
    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """What is trained in the pruned model.

        Args:
            loaded: the pruned model.
            cuts: where its layers are missing.

        Raises:
            ModelError: the model does not have it.
            PlanError: no layer is missing where one must be.
        """

    def kept(self, plan: Plan) -> Plan:
        """The plan that is carried out: `plan`, unless the target puts something back."""
        return plan


def layer_path(loaded: LoadedModel, layer: int) -> str:
    """The name in the model of a decoder layer, pruned numbering."""
    return f"{loaded.family.layers_path(loaded.model)}.{layer}"


def mlp_layers(loaded: LoadedModel, layer: int) -> tuple[str, ...]:
    """The linear layers of a decoder layer's MLP.

    Raises:
        ModelError: it has none under a name that is known, or a mixture of experts whose weights are one tensor: an
            update of what is linear beside them would leave out most of the MLP.
    """
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


def needed(cuts: Sequence[Cut], target: str) -> Sequence[Cut]:
    """The cuts, if there is one.

    Raises:
        PlanError: there is none.
    """
    if cuts:
        return cuts
    raise PlanError(
        "no layer is missing, so nothing receives another state",
        where=f"--target {target}",
        fix="give a folder that shoal prune wrote, or a plan with --plan",
    )
