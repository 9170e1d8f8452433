"""The distance to the cliff: how many layers can go until the error more than doubles."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from shoal.evaluation.significance import Rates
from shoal.schema import Cliff, SystemScores

FACTOR = 2.0
"""Of the error of the first system."""


def cliffs(systems: Sequence[SystemScores], rates: Sequence[Rates], level: float) -> list[Cliff]:
    """One for each strategy with plans of two sizes or more, where the first system is unpruned.

    In every bootstrap replicate the first size is sought whose error is more than twice the baseline's; the interval is
    the percentile interval of that, with "none of them" as the largest.

    Args:
        systems: the baseline, then plans.
        rates: their error rates.
        level: of the intervals.
    """
    if systems[0].removed or not rates[0].value > 0:
        return []
    measured = [
        (system.plan.strategy, len(system.removed), rate.resampled.rows)
        for system, rate in zip(systems, rates, strict=True)
        if system.plan is not None and system.plan.part == "layer"
    ]
    found = []
    for strategy, group in groupby(sorted(measured, key=lambda each: each[:2]), key=lambda each: each[0]):
        curve = {layers: rows for _, layers, rows in group}
        if len(curve) > 1:
            found.append(_cliff(strategy, list(curve), np.stack(list(curve.values())), rates[0].resampled.rows, level))
    return found


def _cliff(strategy: str, sizes: list[int], rows: np.ndarray, baseline: np.ndarray, level: float) -> Cliff:
    """Of errors (sizes, 1 + R), whose first column is of all clips."""
    broken = rows > FACTOR * baseline
    first = np.where(broken.any(axis=0), np.array(sizes)[broken.argmax(axis=0)], np.inf)
    breaks = first[0]
    low = high = None
    if len(first) > 1:
        tails = (1 - level) / 2, (1 + level) / 2
        low, high = (_whole(bound) for bound in np.quantile(first[1:], tails, method="inverted_cdf"))
    below = [size for size in sizes if size < breaks]
    return Cliff(strategy=strategy, holds=max(below, default=0), breaks=_whole(breaks), low=low, high=high)


def _whole(size: float) -> int | None:
    return int(size) if np.isfinite(size) else None
