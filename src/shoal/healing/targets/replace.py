"""One layer in place of each dropped block, trained to give the state behind it (LLM-Streamline, arXiv 2403.19135).

The new layer begins as the block's first one and is of the decoder's own class, so the checkpoint stays one that the
stock class loads; it has one layer more than the plan alone would leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from shoal.errors import PlanError
from shoal.healing.cuts import Cut, cuts_of
from shoal.healing.targets.base import Target, TrainedParts, layer_path, needed
from shoal.schema import Plan

if TYPE_CHECKING:
    from shoal.models.loading import LoadedModel


class ReplaceTarget(Target):
    """All weights of the layer before each cut, which is the block's first, put back."""

    name: ClassVar[str] = "replace"
    adapts: ClassVar[bool] = False
    needs_cuts: ClassVar[bool] = True
    hidden_only: ClassVar[bool] = True

    def choose(self, loaded: LoadedModel, cuts: Sequence[Cut]) -> TrainedParts:
        """The layer before each cut."""
        layers = [cut.before for cut in needed(cuts, self.name) if cut.before is not None]
        return TrainedParts(whole=tuple(layer_path(loaded, layer) for layer in layers))

    def kept(self, plan: Plan) -> Plan:
        """The plan without the first layer of each block.

        Raises:
            PlanError: a block of one layer: putting it back would undo the plan.
        """
        cuts = cuts_of(plan)
        if short := [cut.start for cut in cuts if cut.stop - cut.start == 1]:
            raise PlanError(
                f"layer {short[0]} is a block of one, and one layer in its place would be as deep as before",
                where=f"--target {self.name}",
                fix="use it for blocks of two layers or more",
            )
        gone = [layer for cut in cuts for layer in cut.layers[1:]]
        return Plan.model_validate(plan.model_dump() | {"layers": gone, "distance": None, "importance": None})
