"""The block of n layers with the smallest angular distance (Gromov et al., 2403.17887, section 3.2)."""

from __future__ import annotations

from shoal.schema import BestBlock, Estimate, ScopeAudit
from shoal.select.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """Take the best block the audit names; its stability holds for the same set of blocks."""
    measured, count = request.measured, request.count
    named = measured.best if request.allow_last else measured.best_keeping_last
    best = next((block for block in named if block.n == count), None) or _from_triangle(
        measured, count, request
    )
    return Choice(list(range(best.layer, best.layer + count)), best.distance, best.stability)


def _from_triangle(measured: ScopeAudit, count: int, request: Request) -> BestBlock:
    """For an audit that does not name the best block: no stability, since the triangle holds means only."""
    starts = len(request.candidates) - count + 1
    row = measured.angular[count - 1][:starts]
    layer = min(range(starts), key=row.__getitem__)
    return BestBlock(n=count, layer=layer, distance=Estimate(value=row[layer]), stability=None)


STRATEGY = Strategy("contiguous", choose, metrics=("angular",))
