"""The n deepest layers, keeping the last: the baseline of Gromov et al. (2403.17887, section 4)."""

from __future__ import annotations

from shoal.selection.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """The last n of the layers that may go (with `allow_last`, the last layer among them)."""
    return Choice(list(request.candidates[-request.count :]))


STRATEGY = Strategy("deepest", choose)
