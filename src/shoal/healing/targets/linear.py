"""No training: a least-squares map over the dropped block, folded into the layer before it (`healing.linear`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.healing.cuts import Cut
from shoal.healing.targets.base import Target, TrainedParts, needed

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


class LinearTarget(Target):
    """The down projection before each cut, in closed form."""

    name: ClassVar[str] = "linear"
    trained: ClassVar[bool] = False
    adapts: ClassVar[bool] = False
    needs_cuts: ClassVar[bool] = True

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """Nothing is trained."""
        del loaded
        needed(cuts, self.name)
        return TrainedParts()
