"""Layers drawn at random: the baseline that any measure has to beat."""

from __future__ import annotations

from random import Random

from shoal.selection.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """A uniform draw without replacement; the seed decides."""
    return Choice(sorted(Random(request.seed).sample(request.candidates, request.count)))


STRATEGY = Strategy("random", choose, draws=True)
