"""The projector alone: the decoder stays as the plan left it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.healing.cuts import Cut
from shoal.healing.targets.base import Target, TrainedParts, projector_paths

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


class ProjectorTarget(Target):
    """All weights of the projector."""

    name: ClassVar[str] = "projector"

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """The projector's module, or its parts."""
        del cuts
        return TrainedParts(whole=projector_paths(loaded))
