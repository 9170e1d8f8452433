"""LM head and last three layers, all their weights (Navigation / Reassessing layer pruning, arXiv 2411.15558)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.errors import ModelError
from shoal.healing.cuts import Cut
from shoal.healing.targets.base import Target, TrainedParts, layer_path

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel

LAST = 3
"""Layers beside the head."""


class HeadTarget(Target):
    """The head and the last layers; a head that shares its weights with the input embeddings trains them too."""

    name: ClassVar[str] = "head"
    adapts: ClassVar[bool] = False

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """The head's module and those of the last layers."""
        del cuts
        head = loaded.family.head(loaded.model)
        names = [name for name, module in loaded.model.named_modules() if module is head and name]
        if head is None or not names:
            raise ModelError("it has no head", where=type(loaded.model).__name__, fix="heal another target")
        depth = len(loaded.layers)
        return TrainedParts(
            whole=(names[0], *(layer_path(loaded, each) for each in range(max(0, depth - LAST), depth)))
        )
