"""The n layers with the lowest score, one by one (ShortGPT, 2403.03853: block influence)."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.selection.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """Rank single layers, or one part of each, by the metric; the earlier of equals goes.

    One that was refused, or dropped by a race, stays.

    Raises:
        UsageError: a layer that may go was not measured, or too many were refused.
    """
    ranked = request.ranked([layer] for layer in request.candidates)
    if len(ranked) < request.count:
        raise UsageError(
            f"all but {len(ranked)} layers were refused by {request.metric}, or dropped by a race",
            where="metric",
            fix="remove fewer layers, measure without a race, or rank by another metric",
        )
    layers = sorted(layer for (layer,), _ in ranked[: request.count])
    return Choice(layers, ranked[0][1] if request.count == 1 else None)


STRATEGY = Strategy("lowest", choose, metric="influence", metric_of_parts="ablation")
