"""The n layers with the lowest score, one by one (ShortGPT, 2403.03853: block influence)."""

from __future__ import annotations

from shoal.select.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """Rank single layers by `influence`, or by the `angular` distance of each; the earlier of equals goes."""
    measured = request.measured
    scores = measured.influence if request.metric == "influence" else measured.angular[0]
    ranked = sorted(request.candidates, key=lambda layer: (scores[layer], layer))
    return Choice(sorted(ranked[: request.count]))


STRATEGY = Strategy("lowest", choose, metrics=("influence", "angular"))
