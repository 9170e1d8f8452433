"""The block of n layers that a metric calls the most redundant (Gromov et al., 2403.17887, section 3.2)."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.schema import BestBlock, MetricValues
from shoal.selection.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """Take the best block that the audit names: how sure it is holds for the same set of blocks.

    Where it names none, take the first by the metric, the earlier of equals; one that was refused, or dropped by a
    race, stays. What was measured in earnest without the block is that on other clips than it was chosen on, if known.

    Raises:
        UsageError: a block that may go was not measured, or all were refused.
    """
    named = next((block for block in _named(request) if block.n == request.count), None)
    if named is not None and isinstance(request.values, MetricValues):
        layers = list(range(named.layer, named.layer + named.n))
        return Choice(layers, named.distance, named.selection_frequency, named.confidence_set)
    ranked = request.ranked(request.blocks)
    if not ranked:
        raise UsageError(
            f"every block of {request.count} layers was refused by {request.metric}",
            where="metric",
            fix="remove fewer layers, or rank by another metric",
        )
    layers, value = ranked[0]
    if named is None or named.layer != layers[0]:
        return Choice(layers, value)
    return Choice(layers, named.held_out or value, named.selection_frequency, named.confidence_set)


def _named(request: Request) -> list[BestBlock]:
    """The best blocks that the audit names among those that may go."""
    values = request.values
    if isinstance(values, MetricValues):
        return values.best if request.allow_last else values.best_keeping_last
    return [] if values is None or request.allow_last else values.best


STRATEGY = Strategy("contiguous", choose, metric="angular")
