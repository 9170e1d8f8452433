"""The block of n layers with the smallest angular distance (Gromov et al., 2403.17887, section 3.2)."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.schema import BestBlock, Estimate, ScopeAudit
from shoal.selection.strategy import RANKED_BLOCKS, Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """By `angular`, take the best block the audit names: its stability holds for the same set of blocks.

    By any other metric, take the block with the lowest value, the earlier of equals; one that was refused, or
    dropped by a race, stays.

    Raises:
        UsageError: a block that may go was not measured, or all were refused.
    """
    if request.metric not in (None, "angular"):
        return _lowest_block(request)
    measured, count = request.measured, request.count
    named = measured.best if request.allow_last else measured.best_keeping_last
    best = next((block for block in named if block.n == count), None) or _from_triangle(
        measured, count, request
    )
    return Choice(list(range(best.layer, best.layer + count)), best.distance, best.stability)


def _lowest_block(request: Request) -> Choice:
    values = [(block, request.value(block)) for block in request.blocks]
    usable = [(block, value) for block, value in values if value is not None]
    if not usable:
        raise UsageError(
            f"every block of {request.count} layers was refused by {request.metric}",
            where="metric",
            fix="remove fewer layers, or rank by another metric",
        )
    block, value = min(usable, key=lambda found: found[1].value)
    return Choice(list(block), importance=value)


def _from_triangle(measured: ScopeAudit, count: int, request: Request) -> BestBlock:
    """For an audit that does not name the best block: no stability, since the triangle holds means only."""
    starts = len(request.candidates) - count + 1
    row = measured.angular[count - 1][:starts]
    layer = min(range(starts), key=row.__getitem__)
    return BestBlock(n=count, layer=layer, distance=Estimate(value=row[layer]), stability=None)


STRATEGY = Strategy("contiguous", choose, metrics=RANKED_BLOCKS)
