"""Intervals for corpus scores and for paired differences between systems.

Speakers, or utterances, are drawn with replacement and every system is scored on the same draw (Bisani & Ney 2004,
"Bootstrap estimates for confidence intervals in ASR performance evaluation"). Intervals are studentised, tests flip
which system said what; see `shoal.statistics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shoal.schema import Delta, Estimate
from shoal.settings import Intervals
from shoal.statistics.arrays import Floats, Numbers
from shoal.statistics.hypothesis_tests import FLIPS, flips_for, holm, sign_flip_p, smallest_p
from shoal.statistics.resampling import Resampler, Units, make_resampler
from shoal.statistics.studentised import Resampled
from shoal.terms import Caution

Function = Callable[[Floats], Floats]
UNBOUNDED = (-np.inf, np.inf)


@dataclass(frozen=True, slots=True)
class Rates:
    """A corpus score: a function of sums over utterances, and what it is over the draws of a bootstrap."""

    function: Function
    """Sums (..., S) → scores (...)."""
    resampled: Resampled
    utterance_error: float
    """The standard error that there would be if all utterances were of different speakers."""
    limits: tuple[float, float] = UNBOUNDED
    """The lowest and the highest score there can be."""

    @property
    def value(self) -> float:
        """Of all utterances; NaN where it is undefined."""
        return self.resampled.value

    @property
    def totals(self) -> Floats:
        """(S,): the sums that it is made of."""
        return np.asarray(self.resampled.clusters.sum(axis=0))


@dataclass(frozen=True, slots=True)
class PairedBootstrap:
    """One draw of utterances, shared by all systems that are scored on them."""

    resampler: Resampler
    level: float = 0.95
    caution: Caution | None = None
    seed: int = 0
    flips: int = FLIPS
    """Random swaps of a test."""

    @classmethod
    def draw(
        cls,
        clusters: Sequence[str | None],
        *,
        replicates: int = 1000,
        seed: int = 0,
        level: float = 0.95,
        tests: int = 1,
        caution: Caution | None = None,
    ) -> PairedBootstrap:
        """Draw the replicates.

        Args:
            clusters: for each of U utterances the cluster it is drawn with, such as its speaker; None draws it by
                itself.
            replicates: number of draws R.
            seed: of the draws.
            level: of the intervals.
            tests: size of the family of tests that Holm's correction will be made over.
            caution: why the intervals are not to be relied on.
        """
        resampler = make_resampler(clusters, replicates=replicates, seed=seed)
        return cls(resampler, level, caution, seed, flips_for(tests))

    @classmethod
    def of(cls, intervals: Intervals, speakers: Sequence[str | None], *, tests: int = 1) -> PairedBootstrap:
        """Draw over clips of these speakers, None where a clip names none."""
        units = Units.of(speakers, intervals.cluster)
        return cls.draw(
            units.clusters,
            replicates=intervals.replicates,
            seed=intervals.seed,
            level=intervals.level,
            tests=tests,
            caution=units.caution,
        )

    def rates(self, function: Function, statistics: Numbers, limits: tuple[float, float] = UNBOUNDED) -> Rates:
        """A score of `statistics` (U, S), in the corpus and in every replicate."""
        resampled = Resampled.of(function, statistics, self.resampler)
        alone = Resampled(resampled.rows[:1], resampled.gradients[:1], statistics.astype(np.float64))
        return Rates(function, resampled, alone.standard_error(), limits)

    def estimate(self, rates: Rates) -> Estimate:
        """The score with its interval; without one if there is a single cluster to draw."""
        return self.bounded(rates.resampled, rates.limits)

    def bounded(self, resampled: Resampled, limits: tuple[float, float] = UNBOUNDED) -> Estimate:
        """Anything made of scores, with its interval."""
        bounds = resampled.bounds(self.resampler, self.level)
        if bounds is None:
            return Estimate(value=resampled.value, level=self.level)
        low, high = np.clip(bounds, *limits)
        return Estimate(value=resampled.value, low=float(low), high=float(high), level=self.level, caution=self.caution)

    def standard_error(self, rates: Rates) -> float | None:
        """Of the score, linearised; None where nothing varies."""
        return rates.resampled.standard_error() if self.resampler.clusters > 1 else None

    def design_effect(self, rates: Rates) -> float | None:
        """How many times larger the variance is than that of utterances drawn one by one (Kish 1965); None if they are.

        Above 1 the utterances of a speaker are alike: so many times as many clips would be needed of speakers anew.
        """
        if self.resampler.clusters in (1, len(self.resampler.groups)) or not rates.utterance_error > 0:
            return None
        return (rates.resampled.standard_error() / rates.utterance_error) ** 2

    def delta(self, system: Rates, baseline: Rates) -> Delta:
        """Absolute and relative paired difference, and the two-sided p-value of the absolute one (`sign_flip_p`)."""
        change = system.resampled.minus(baseline.resampled)
        sums, tested = (system.resampled.clusters, baseline.resampled.clusters), self.resampler.clusters > 1
        return Delta(
            absolute=self.bounded(change),
            relative=self.bounded(change.over(baseline.resampled)) if baseline.value else None,
            p_value=sign_flip_p(system.function, *sums, flips=self.flips, seed=self.seed) if tested else None,
            smallest_p=smallest_p(*sums, flips=self.flips) if tested else None,
        )


def correct(family: Iterable[Delta | None]) -> None:
    """Fill in `p_holm` of a family of differences; those without a p-value are no part of it."""
    tested = [(delta, delta.p_value) for delta in family if delta is not None and delta.p_value is not None]
    for (delta, _), adjusted in zip(tested, holm([p for _, p in tested]), strict=True):
        delta.p_holm = adjusted
