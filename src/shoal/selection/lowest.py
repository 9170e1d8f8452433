"""The n layers with the lowest score, one by one (ShortGPT, 2403.03853: block influence)."""

from __future__ import annotations

from shoal.errors import UsageError
from shoal.selection.strategy import Choice, Request, Strategy
from shoal.selection.values import IMPORTANCE


def choose(request: Request) -> Choice:
    """Rank single layers, or one part of each, by the metric; the earlier of equals goes.

    One that was refused, or dropped by a race, stays.

    Raises:
        UsageError: a layer that may go was not measured, or too many were refused.
    """
    values = {layer: request.value([layer]) for layer in request.candidates}
    usable = {layer: value for layer, value in values.items() if value is not None}
    if len(usable) < request.count:
        raise UsageError(
            f"all but {len(usable)} layers were refused by {request.metric}, or dropped by a race",
            where="metric",
            fix="remove fewer layers, measure without a race, or rank by another metric",
        )
    ranked = sorted(usable, key=lambda layer: (usable[layer].value, layer))
    alone = request.count == 1 and request.metric != "angular"
    return Choice(sorted(ranked[: request.count]), importance=usable[ranked[0]] if alone else None)


STRATEGY = Strategy("lowest", choose, metrics=("influence", "angular", *IMPORTANCE), parts=True)
