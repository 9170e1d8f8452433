"""Beam search: grow the w best sets of layers by one layer at a time, and measure again at every step.

With a width of 1 it is the greedy choice, with the width of all sets the exhaustive one.
"""

from __future__ import annotations

from collections.abc import Sequence

from shoal.schema.words import Candidate
from shoal.selection.path import Measure, Path, grown, ranked

WIDTH = 3


def path(measure: Measure, removable: Sequence[int], most: int, *, width: int = WIDTH) -> Path:
    """For n = 1 … `most` the best set of n layers that was found; it need not contain the one before.

    Args:
        measure: what is lost without some layers.
        removable: the layers that may go.
        most: how many may go.
        width: sets that are kept at every step, w.

    Yields:
        The layers, ascending, and their value; it ends early where no larger set has a value.
    """
    kept: list[Candidate] = [()]
    for _ in range(most):
        best = ranked(measure, grown(kept, removable))[:width]
        if not best:
            return
        yield best[0]
        kept = [layers for layers, _ in best]
