"""Chosen on one half of the clusters, measured on the other: what a choice is worth without the luck of its clips.

What is best on some clips is so in part by chance, and on the same clips it looks better than it is: of 28 equal blocks
the best seems to beat the others. So the clusters are split at random, the choice is made on each half and measured on
the other, and both are averaged, over several splits (Stone 1974; Chernozhukov et al. 2018, Econometrics Journal 21).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import stdtrit

from shoal.schema import Estimate
from shoal.statistics.arrays import Bools, Floats
from shoal.statistics.ranks import spearman
from shoal.statistics.resampling import Resampler

Statistic = Callable[[Floats, Floats], Floats]

SPLITS = 20
MIN_RELIABILITY = 0.5
"""Below it what is left of a correlation without noise is a guess."""


def halves_of(resampler: Resampler, measured: Bools | None = None, *, splits: int = SPLITS, seed: int = 0) -> Resampler:
    """Random halves of the clusters of a resampler, as draws of 0 or 1: row 2k + 1 is the other half of row 2k.

    A single cluster that was measured is both halves.

    Args:
        resampler: whose clusters are split.
        measured: (clusters,); these are split evenly, and so are the others. All are alike if None.
        splits: how often.
        seed: of the splits.
    """
    measured = np.ones(resampler.clusters, dtype=np.bool_) if measured is None else measured
    generator = np.random.default_rng(seed)
    first = np.zeros((splits, resampler.clusters), dtype=np.uint16)
    if np.count_nonzero(measured) < 2:
        return Resampler(resampler.groups, np.ones((2 * splits, resampler.clusters), dtype=np.uint16))
    for row in first:
        row[np.lexsort((generator.random(len(row)), measured))[generator.integers(2) :: 2]] = 1
    return Resampler(resampler.groups, np.stack([first, 1 - first], axis=1).reshape(2 * splits, -1))


def held_out(parts: Floats, sizes: Floats, halves: Resampler, level: float) -> Estimate:
    """Mean of what was chosen on each half, measured on the other.

    The standard error is that of one pair of halves, whose measurements share no cluster; averaging over splits only
    makes it smaller. With Student's t the interval covers the mean of what the halves chose in 95 % of samples or more
    (`tests/test_cross_fitting.py`). There is none where a half has one cluster.

    Args:
        parts: (clusters, halves), what each cluster adds to the quantity that was chosen on this half; a half with NaN
            is left out, but not all of them.
        sizes: (clusters,), to how many positions.
        halves: from `halves_of`, measured where there are positions.
        level: of the interval.
    """
    usable: Bools = np.isfinite(parts).all(axis=0).reshape(-1)
    measured = (halves.weights[np.arange(len(halves.weights)) ^ 1][usable].T * (sizes > 0)[:, None]).astype(np.float64)
    parts = parts[:, usable]
    size, clusters = sizes @ measured, measured.sum(axis=0)
    means = (measured * parts).sum(axis=0) / size
    estimate = Estimate(value=float(means.mean()), level=level)
    if clusters.min() > 1:
        residuals = measured * (parts - means * sizes[:, None]) / size
        variances = (residuals**2).sum(axis=0) * clusters / (clusters - 1)
        reach = stdtrit((sizes > 0).sum() - 2, (1 + level) / 2) * np.sqrt(variances.mean() / 2)
        estimate.low, estimate.high = estimate.value - float(reach), estimate.value + float(reach)
    return estimate


def reliability(rows: Floats, statistic: Statistic = spearman) -> float | None:
    """How well the order of a whole corpus repeats: rank correlation of its halves, stepped up (Spearman-Brown, 1910).

    Args:
        rows: (halves, candidates), from all halves of `halves_of`; halves without a value of each are left out.
        statistic: (R, candidates) twice → (R,), a rank correlation.

    Returns:
        None where no pair of halves has all values.
    """
    half = _between(rows, rows, statistic)
    return None if half is None else _stepped_up(half)


def disattenuated(x: Floats, y: Floats, statistic: Statistic = spearman) -> float | None:
    """Rank correlation of two orders without the noise of their clips (Spearman 1904), within -1 and 1.

    One on half of the clusters is held against the other on the other half, so that noise which both share does not
    count; that is divided by how well each agrees with itself across halves. None where one hardly repeats
    (`MIN_RELIABILITY`).

    Args:
        x: (halves, candidates) of the one.
        y: of the other.
        statistic: see `reliability`.
    """
    across, *own = (_between(*pair, statistic) for pair in ((x, y), (x, x), (y, y)))
    known = [half for half in own if half is not None and _stepped_up(half) >= MIN_RELIABILITY]
    if across is None or len(known) < len(own):
        return None
    return float(np.clip(across / np.sqrt(np.prod(known)), -1, 1))


def _between(x: Floats, y: Floats, statistic: Statistic) -> float | None:
    """Mean rank correlation of each half of x with the other half of y."""
    other = np.arange(len(y)) ^ 1
    known: Bools = np.isfinite(x + y[other]).all(axis=-1)
    return float(statistic(x[known], y[other][known]).mean()) if known.any() else None


def _stepped_up(half: float) -> float:
    return 2 * half / (1 + half) if half > -1 else -1.0
