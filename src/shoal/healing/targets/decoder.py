"""The whole decoder: a low-rank update of every linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.errors import ModelError
from shoal.healing.cuts import Cut
from shoal.healing.targets.base import Target, TrainedParts
from shoal.models.lora import linear_layers

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


class DecoderTarget(Target):
    """Low-rank updates of all linear layers in the decoder's layers; experts that share one tensor stay as they are."""

    name: ClassVar[str] = "decoder"

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """Every linear layer of every decoder layer."""
        del cuts
        found = linear_layers(loaded.model, [loaded.family.layers_path(loaded.model)])
        if not found:
            raise ModelError(
                "its decoder has no linear layers that take a low-rank update",
                where=type(loaded.model).__name__,
                fix="heal it with --target projector or head",
            )
        return TrainedParts(lora=found)
