"""The block of n layers that a metric calls the most redundant (Gromov et al., 2403.17887, section 3.2)."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.schema import MetricValues
from shoal.selection.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """Take the best block that the audit names: how sure it is holds for the same set of blocks.

    Where it names none, take the first by the metric, the earlier of equals; one that was refused, or dropped by a
    race, stays.

    Raises:
        UsageError: a block that may go was not measured, or all were refused.
    """
    if isinstance(request.values, MetricValues):
        named = request.values.best if request.allow_last else request.values.best_keeping_last
        for block in named:
            if block.n == request.count:
                layers = list(range(block.layer, block.layer + block.n))
                return Choice(layers, block.distance, block.selection_frequency, block.confidence_set)
    ranked = request.ranked(request.blocks)
    if not ranked:
        raise UsageError(
            f"every block of {request.count} layers was refused by {request.metric}",
            where="metric",
            fix="remove fewer layers, or rank by another metric",
        )
    return Choice(*ranked[0])


STRATEGY = Strategy("contiguous", choose, metric="angular")
