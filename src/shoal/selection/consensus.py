"""One block for several audits of the same model: the one whose loss, shared by all tasks, is smallest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.errors import UsageError
from shoal.schema import ModelInfo
from shoal.selection.settings import Combine
from shoal.selection.strategy import Choice, Request, Strategy
from shoal.statistics import Floats


def choose(request: Request) -> Choice:
    """The block with the lowest joint value over `request.sides`; the earlier of equals goes.

    Raises:
        UsageError: a side has not measured a block, each was refused or dropped by one, or the weights do not fit.
    """
    sides = request.sides
    weights = check_weights(request.weights, len(sides))
    rows = [[side.cost(side.value(block)) for block in request.blocks] for side in sides]
    joint = combined(np.array(rows, dtype=np.float64), request.combine, weights)
    start = best_block(joint, request.count)
    return Choice(list(range(start, start + request.count)))


def combined(values: Floats, combine: Combine, weights: Sequence[float]) -> Floats:
    """What all sides together lose without each candidate.

    Each side's values are divided by the mean of their magnitudes over the candidates that every side has, so that
    tasks count alike whatever their units, and a loss below 0 stays one. Then the weighted mean, or `worst`: the
    largest of weight times value.

    Args:
        values: (sides, candidates), NaN where a side refused one.
        combine: `mean` or `worst`.
        weights: one a side, not negative.

    Returns:
        (candidates,); NaN where any side refused.
    """
    usable = np.isfinite(values).all(0)
    joint = np.full(values.shape[1], np.nan)
    if usable.any():
        size = np.abs(values[:, usable]).mean(1, keepdims=True)
        scaled = values[:, usable] / np.where(size > 0, size, 1)
        weighted = scaled * np.asarray(weights, dtype=np.float64)[:, None]
        joint[usable] = weighted.max(0) if combine == "worst" else weighted.sum(0) / sum(weights)
    return joint


def best_block(joint: Floats, n: int) -> int:
    """Where the smallest value is.

    Raises:
        UsageError: there is none.
    """
    if np.isnan(joint).all():
        raise UsageError(
            f"every block of {n} layers was refused, or dropped by a race, in one audit or another",
            where="consensus",
            fix="remove fewer layers, measure without a race, or leave an audit out",
        )
    return int(np.nanargmin(joint))


def check_weights(weights: Sequence[float] | None, sides: int) -> list[float]:
    """The weights, or 1 for each side.

    Raises:
        UsageError: not one for each side, one is negative or not finite, or all are 0.
    """
    weighed = [1.0] * sides if weights is None else [float(weight) for weight in weights]
    if len(weighed) != sides or not all(0 <= weight < np.inf for weight in weighed) or not any(weighed):
        raise UsageError(
            f"{','.join(f'{weight:g}' for weight in weighed) or 'nothing'} does not weigh {sides} audits",
            where="weights",
            fix="give one number for each, none negative and not all 0",
        )
    return weighed


def check_one_model(models: Sequence[ModelInfo], names: Sequence[str]) -> None:
    """Audits can share a plan only if they measured the same weights.

    Raises:
        UsageError: the depth or the fingerprint of one differs from the first.
    """
    first = models[0]
    for model, name in zip(models[1:], names[1:], strict=True):
        if model.depth != first.depth:
            problem = f"the decoders have {first.depth} and {model.depth} layers"
        elif model.fingerprint != first.fingerprint:
            problem = f"these are audits of different weights ({first.ref} and {model.ref})"
        else:
            continue
        raise UsageError(problem, where=f"{names[0]} and {name}", fix="give audits of one model")


STRATEGY = Strategy("consensus", choose, metric="angular", several=True)
