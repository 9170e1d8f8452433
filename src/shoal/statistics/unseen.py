"""One-sided bounds and tests that count what no clip of the sample has shown: a loop, up to the token limit.

An interval speaks of clips like those that were seen. Where 1 clip in 100 loops, most samples of 50 clips hold no loop,
and nothing in them tells how much worse the next corpus will be. So one more clip, on which everything goes wrong,
takes part in the draw. With n clips of no error this gives "the rule of three": a rate of at most 3 / n at 95 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shoal.statistics.arrays import Floats

DRAWS = 9_999


@dataclass(frozen=True, slots=True)
class UnseenDraws:
    """Draws of a function of sums over clusters, with one unseen clip among them."""

    values: Floats
    """(R,)."""

    @classmethod
    def of(
        cls,
        function: Callable[[Floats], Floats],
        clusters: Floats,
        unseen: Floats | None,
        *,
        draws: int = DRAWS,
        seed: int = 0,
    ) -> UnseenDraws:
        """Weigh every cluster, and the unseen clip, by exponential random numbers.

        This is the bound of Gaffke (2005, Mathematical Methods of Statistics 14, "Three test statistics for a
        nonparametric one-sided hypothesis on the mean of a nonnegative variable"; Learned-Miller & Thomas 2020,
        arXiv 1905.06208) for the mean of a bounded variable: the Bayesian bootstrap with one more value at the bound.

        Args:
            function: sums (..., S) → values (...).
            clusters: (C, S), what each cluster adds to the sums.
            unseen: (S,), what the worst clip would add; None counts what was seen alone.
            draws: R.
            seed: of the draws.
        """
        rows = clusters if unseen is None else np.vstack([clusters, unseen])
        generator, step = np.random.default_rng(seed), max(1, 2**22 // len(rows))
        parts = [
            function(generator.exponential(size=(min(step, draws - start), len(rows))) @ rows)
            for start in range(0, draws, step)
        ]
        return cls(np.concatenate(parts))

    def upper(self, confidence: float) -> float:
        """The one-sided upper bound; infinite if it is open."""
        return float(np.quantile(np.nan_to_num(self.values, nan=np.inf), confidence, method="higher"))

    def p_value(self, limit: float) -> float:
        """One-sided, of "at least `limit`": (1 + draws at or above it) / (R + 1)."""
        return float((1 + np.count_nonzero(~(self.values < limit))) / (len(self.values) + 1))
