"""Percentile intervals of what is no smooth function of sums (Efron & Tibshirani 1993, ch. 13)."""

from __future__ import annotations

import numpy as np

from shoal.schema import Estimate
from shoal.statistics.arrays import Floats


def interval(replicates: Floats, level: float) -> tuple[Floats, Floats]:
    """Lower and upper percentiles over axis 0, ignoring NaN replicates."""
    tail = (1 - level) / 2
    # The one that ignores NaN goes column by column, many times slower.
    quantile = np.nanquantile if np.isnan(replicates).any() else np.quantile
    low, high = quantile(replicates, [tail, 1 - tail], axis=0)
    return low, high


def estimate_rows(rows: Floats, level: float) -> Estimate:
    """Row 0 of (1 + R,) with the percentile interval of the others, if any has a value."""
    if np.isnan(rows[1:]).all():
        return Estimate(value=float(rows[0]), level=level)
    low, high = interval(rows[1:], level)
    return Estimate(value=float(rows[0]), low=float(low), high=float(high), level=level)
