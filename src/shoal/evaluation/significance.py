"""Intervals for error rates and for paired differences between systems.

The paired bootstrap of Bisani & Ney (2004, "Bootstrap estimates for confidence intervals in ASR performance
evaluation"): utterances, or speakers, are drawn with replacement, every system is scored on the same draw,
and the percentiles over the draws bound the rate and the difference. Drawing is a matrix of counts, so that
all replicates of all systems are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shoal.schema import Delta, Estimate
from shoal.settings import Intervals
from shoal.statistics import Resampler, make_resampler

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rates:
    """A corpus score, such as an error rate, and its bootstrap replicates."""

    value: float
    replicates: Floats
    """(replicates,); NaN where a replicate drew nothing to score, such as no reference word."""
    totals: Floats = field(default_factory=lambda: np.zeros(0))
    """(S,): the summed statistics that the value is made of, where they are kept."""


@dataclass(frozen=True, slots=True)
class PairedBootstrap:
    """One draw of utterances, shared by all systems that are scored on them."""

    resampler: Resampler
    level: float = 0.95

    @classmethod
    def draw(
        cls, clusters: Sequence[str | None], *, replicates: int = 1000, seed: int = 0, level: float = 0.95
    ) -> PairedBootstrap:
        """Draw the replicates.

        Args:
            clusters: for each of U utterances the cluster it is resampled with, such as its speaker; None resamples
                it by itself.
            replicates: number of draws B.
            seed: of the draws.
            level: of the intervals.
        """
        return cls(make_resampler(clusters, replicates=replicates, seed=seed), level)

    @classmethod
    def of(cls, intervals: Intervals, speakers: Sequence[str | None]) -> PairedBootstrap:
        """Draw over clips of these speakers, None where a clip names none."""
        clusters = speakers if intervals.cluster == "speaker" else [None] * len(speakers)
        return cls.draw(clusters, replicates=intervals.replicates, seed=intervals.seed, level=intervals.level)

    def rates(self, errors: Ints, lengths: Ints) -> Rates:
        """Sum of `errors` (U,) over sum of reference `lengths` (U,), in the corpus and in every replicate.

        Raises:
            ValueError: the references hold nothing.
        """
        if not lengths.sum() > 0:
            raise ValueError("an error rate needs at least one reference word")
        totals = self.resampler.totals(np.stack([errors, lengths], axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            replicates = np.where(totals[:, 1] > 0, totals[:, 0] / totals[:, 1], np.nan)
        return Rates(float(errors.sum() / lengths.sum()), replicates)

    def estimate(self, rates: Rates) -> Estimate:
        """The rate with its interval; without one if there is a single cluster to draw."""
        return self._bounded(rates.value, rates.replicates)

    def standard_error(self, rates: Rates) -> float | None:
        """Standard deviation of the score over the draws; None where nothing varies."""
        known = rates.replicates[~np.isnan(rates.replicates)]
        return float(known.std(ddof=1)) if self._can_vary and len(known) > 1 else None

    def delta(self, system: Rates, baseline: Rates) -> Delta:
        """Absolute and relative paired difference, and the two-sided p-value of the absolute one.

        The p-value is twice the smaller share of replicates on one side of 0, both counts raised by one
        (Davison & Hinkley 1997, section 4.2), so that it is never 0. Equal systems have p = 1.
        """
        difference = system.replicates - baseline.replicates
        return Delta(
            absolute=self._bounded(system.value - baseline.value, difference),
            relative=self._relative(system, baseline, difference),
            p_value=two_sided_p(difference) if self._can_vary else None,
        )

    def _relative(self, system: Rates, baseline: Rates, difference: Floats) -> Estimate | None:
        if baseline.value == 0:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = difference / baseline.replicates
        return self._bounded(system.value / baseline.value - 1, relative)

    def _bounded(self, value: float, replicates: Floats) -> Estimate:
        known = replicates[~np.isnan(replicates)]
        # A replicate whose baseline makes no error has no relative difference: the interval would be open.
        if not self._can_vary or not len(known) or not np.isfinite(known).all():
            return Estimate(value=value, level=self.level)
        tail = (1 - self.level) / 2
        low, high = np.quantile(known, [tail, 1 - tail])
        return Estimate(value=value, low=float(low), high=float(high), level=self.level)

    @property
    def _can_vary(self) -> bool:
        return self.resampler.clusters > 1


def two_sided_p(difference: Floats) -> float:
    """Two-sided p-value of "no difference" from replicates of the difference, NaN ignored."""
    known = difference[~np.isnan(difference)]
    below, above = np.count_nonzero(known <= 0), np.count_nonzero(known >= 0)
    return float(min(1.0, 2 * (min(below, above) + 1) / (len(known) + 1)))


def correct(family: Iterable[Delta | None]) -> None:
    """Fill in `p_holm` of a family of differences; those without a p-value are no part of it."""
    tested = [(delta, delta.p_value) for delta in family if delta is not None and delta.p_value is not None]
    for (delta, _), adjusted in zip(tested, holm([p for _, p in tested]), strict=True):
        delta.p_holm = adjusted


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
