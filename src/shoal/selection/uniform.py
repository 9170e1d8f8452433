"""Layers at even distances: a baseline that spreads the damage."""

from __future__ import annotations

from shoal.selection.strategy import Choice, Request, Strategy


def choose(request: Request) -> Choice:
    """The middles of n equal parts of the inner layers 1 … L-2; layer 0 goes only if those do not suffice.

    The last layer stays even with `allow_last`, for at most L-1 layers are removed.
    """
    first = 0 if request.count > request.depth - 2 else 1
    inner = range(first, request.depth - 1)
    return Choice([inner[(2 * part + 1) * len(inner) // (2 * request.count)] for part in range(request.count)])


STRATEGY = Strategy("uniform", choose)
