"""Where layers are missing: what a plan leaves behind, in the numbering of the model before and after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from shoal.errors import PlanError

if TYPE_CHECKING:
    from shoal.schema import Plan


@dataclass(frozen=True, slots=True)
class Cut:
    """A run of missing layers `[start, stop)` of the unpruned model, and its neighbours in the pruned one."""

    start: int
    """First missing layer, unpruned numbering; its input is the state before the cut."""
    stop: int
    """First layer after it, unpruned numbering; its input is the state that the missing layers made of it."""
    before: int | None
    """The layer before the cut, pruned numbering; None where the decoder's first layers are missing."""
    receiver: int | None
    """The layer that receives the state before the cut instead of the one after it, pruned numbering; None where the
    decoder's last layers are missing."""

    @property
    def layers(self) -> list[int]:
        """The missing layers, unpruned numbering."""
        return list(range(self.start, self.stop))

    @property
    def last(self) -> int | None:
        """`before` in the unpruned numbering."""
        return None if self.before is None else self.start - 1


def cuts_of(plan: Plan) -> list[Cut]:
    """The cuts of a plan, first to last; none if it removes nothing.

    Raises:
        PlanError: it removes only a part of its layers.
    """
    if plan.part != "layer":
        raise PlanError(
            f"it removes only the {plan.part} of its layers, and healing goes by whole layers",
            where=f"plan for {plan.model_ref}",
        )
    return cuts_between(plan.keep, plan.depth)


def cuts_between(keep: Sequence[int], depth: int) -> list[Cut]:
    """The cuts that leave the layers `keep` (ascending) of `depth`."""
    bounds = [-1, *keep, depth]
    cuts = []
    for new, (left, right) in enumerate(pairwise(bounds)):
        if right - left > 1:
            before = None if left < 0 else new - 1
            receiver = None if right == depth else new
            cuts.append(Cut(left + 1, right, before, receiver))
    return cuts


def layers_behind(cuts: Sequence[Cut], depth: int) -> list[tuple[int, int]]:
    """Behind each cut: the layer of the pruned model, which has `depth` of them, and that of the unpruned one."""
    return [(depth if cut.receiver is None else cut.receiver, cut.stop) for cut in cuts]
