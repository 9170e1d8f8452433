"""The paper's target: the MLP of the layer that receives the dropped block's input (arXiv 2603.05121)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.healing.cuts import Cut
from shoal.healing.targets.base import Target, TrainedParts, mlp_layers, needed

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


class ReceiverTarget(Target):
    """Low-rank updates of the receiving MLP, one for each cut."""

    name: ClassVar[str] = "receiver"
    needs_cuts: ClassVar[bool] = True

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """The layer behind each cut; where the last layers are missing, the one before it."""
        layers: list[int] = []
        for cut in needed(cuts, self.name):
            layer = cut.before if cut.receiver is None else cut.receiver
            if layer is not None and layer not in layers:
                layers.append(layer)
        return TrainedParts(lora=tuple(name for layer in layers for name in mlp_layers(loaded, layer)))
