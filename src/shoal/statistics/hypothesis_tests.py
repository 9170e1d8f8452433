"""Tests of paired differences by flipping signs, and the correction for many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from shoal.statistics.arrays import Floats

FLIPS = 9_999
"""Random flips of a test: no p-value is below 1 / (flips + 1)."""
FLIPS_PER_TEST = 200
"""In a family of many tests, flips for each: Holm's correction multiplies the smallest p-value by their number."""
ROWS = 512
"""Flips held in memory at a time."""


def flips_for(tests: int) -> int:
    """How many random flips the tests of a family of this size need."""
    return max(FLIPS, FLIPS_PER_TEST * tests - 1)


def sign_flip_p(
    function: Callable[[Floats], Floats], system: Floats, baseline: Floats, *, flips: int = FLIPS, seed: int = 0
) -> float:
    """Two-sided p-value of "no difference" by approximate randomisation (Noreen 1989; Riezler & Maxwell 2005).

    Without a difference, which of the two systems said what to a cluster is a coin's toss. So their sums are swapped,
    cluster by cluster, and the p-value is the share of swaps whose difference is at least as large as the one measured.
    All 2^C swaps are tried where `flips` are as many, else random ones, with one added to both counts (Phipson & Smyth
    2010), so that the p-value is never 0. Of a difference of sums these are random flips of its signs (Fisher 1935).

    Args:
        function: sums (..., S) → the score (...).
        system: (C, S), what each cluster adds to the sums.
        baseline: (C, S), of the other system.
        flips: most swaps.
        seed: of random ones.
    """
    centre, half = (system + baseline).sum(axis=0) / 2, (system - baseline) / 2
    half = half[(half != 0).any(axis=1)]

    def difference(offsets: Floats) -> Floats:
        return np.abs(function(centre + offsets) - function(centre - offsets))

    measured = difference(half.sum(axis=0)[None])[0]
    # Sums in another order differ in their last digits.
    limit = measured * (1 - 1e-9)
    every = 2 ** len(half) <= flips + 1
    signs = _every_sign(len(half)) if every else _random_signs(len(half), flips, seed)
    counts = [(np.count_nonzero(difference(rows @ half) >= limit), len(rows)) for rows in signs]
    reached, tried = (sum(column) for column in zip(*counts, strict=True))
    return reached / tried if every else (reached + 1) / (tried + 1)


def smallest_p(system: Floats, baseline: Floats, *, flips: int = FLIPS) -> float:
    """The smallest p-value that `sign_flip_p` can give: 2^(1 - C) for the C clusters in which the two differ."""
    differ = int((system != baseline).any(axis=1).sum())
    return max(min(1.0, 2.0 ** (1 - differ)), 1 / (flips + 1))


def _every_sign(clusters: int) -> Iterator[Floats]:
    """All 2^C rows of -1 and 1."""
    for start in range(0, 2**clusters, ROWS):
        numbers = np.arange(start, min(start + ROWS, 2**clusters))
        yield 1 - 2 * (numbers[:, None] >> np.arange(clusters) & 1).astype(np.float64)


def _random_signs(clusters: int, flips: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    for start in range(0, flips, ROWS):
        rows = min(ROWS, flips - start)
        bits = np.unpackbits(generator.integers(256, size=(rows, -(-clusters // 8)), dtype=np.uint8), axis=1)
        yield 1 - 2 * bits[:, :clusters].astype(np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values after the step-down correction of Holm (1979, Scandinavian Journal of Statistics 6, 65-70).

    Rejecting those that are at most alpha keeps the chance of any false rejection at alpha, whatever the dependence.
    The k-th smallest of m is multiplied by m - k + 1; none is smaller than the one before it, nor above 1.
    """
    adjusted, before = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        before = max(before, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = before
    return adjusted
