"""How much worse a plan is than the unpruned model on the same clips, and what that says of clips that nobody has seen.

Bounds are those of the studentised bootstrap. Tests draw one more clip, on which the plan loses everything that the
token limit allows (`shoal.statistics.unseen`): a plan that loops on 1 clip in 100 does no harm on most samples of 50.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from shoal.evaluation.paired_scores import score_rates, worsening
from shoal.evaluation.significance import PairedBootstrap, Rates
from shoal.evaluation.worst_case import relative_worsening, unseen_pair
from shoal.schema import Estimate
from shoal.statistics import Floats, Resampled, UnseenDraws
from shoal.statistics.arrays import Numbers
from shoal.statistics.studentised import gradients

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score

POWER = 0.8
"""With which as many clips as are said to be needed confirm a plan."""
MOST = 1_000_000
"""Clusters that are said to be needed; more are none that anybody has."""


@dataclass(frozen=True, slots=True)
class RelativeChange:
    """Of a plan's score, relative to the unpruned model's; positive is worse."""

    score: Score
    plan: Rates
    baseline: Rates
    bootstrap: PairedBootstrap
    unseen: Floats
    """(2 · S,): what one more clip adds to the plan's sums and to the unpruned model's, if the plan fails on it."""
    resampled: Resampled = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resampled", worsening(self.score, self.plan, self.baseline))

    @classmethod
    def of(
        cls, score: Score, plan: Numbers, baseline: Numbers, bootstrap: PairedBootstrap, longest: float
    ) -> RelativeChange:
        """From statistics (U, S) of both on the same clips.

        Args:
            score: what they are statistics of.
            plan: of the pruned model.
            baseline: of the unpruned model.
            bootstrap: draws the clips, by speaker where speakers are known.
            longest: see `longest_answer`.
        """
        pruned, unpruned = (score_rates(score, statistics, bootstrap) for statistics in (plan, baseline))
        return cls(score, pruned, unpruned, bootstrap, unseen_pair(score, plan, baseline, longest))

    @property
    def value(self) -> float:
        """On all clips; infinite or NaN where the unpruned model's score is 0."""
        return self.resampled.value

    @property
    def clusters(self) -> int:
        """Speakers, or clips, that are drawn."""
        return self.bootstrap.resampler.clusters

    def upper(self, confidence: float) -> float | None:
        """The one-sided upper bound; None where it is open or there is nothing to draw."""
        bounds = self.resampled.bounds(self.bootstrap.resampler, 2 * confidence - 1)
        return None if bounds is None else bounds[1]

    def estimate(self, confidence: float) -> Estimate:
        """The value between both one-sided bounds at `confidence`, which hold together at 2 · confidence - 1."""
        level = 2 * confidence - 1
        bounds = self.resampled.bounds(self.bootstrap.resampler, level)
        if bounds is None:
            return Estimate(value=self.value, level=level)
        return Estimate(value=self.value, low=bounds[0], high=bounds[1], level=level, caution=self.bootstrap.caution)

    def p_value(self, limit: float, *, unseen: bool) -> float | None:
        """One-sided, of "worse by `limit` or more"; None with fewer than two clusters.

        Args:
            limit: relative change.
            unseen: whether the draws hold the clip on which the plan fails, or only what was seen.
        """
        if self.clusters < 2:
            return None
        change = relative_worsening(self.score)
        draws = UnseenDraws.of(change, self._sums, self.unseen if unseen else None, seed=self.bootstrap.seed)
        return draws.p_value(limit)

    def clips_needed(self, limit: float, confidence: float) -> int | None:
        """About how many clips like these would confirm that the change is below `limit`, if it is as it was measured.

        The test is passed where the draws stay below the limit at `confidence`. In n clusters they spread as a normal
        number with sd · sqrt(n), sd being that of what a cluster adds to the linearised distance h from the limit, plus
        an exponential number times `worst`, what the unseen clip adds. Their quantile is about

            worst + sqrt((z · sd)^2 · n + ((ln(1 / alpha) - 1) · worst)^2),

        which is exact where one of the two is 0. To it comes z_power · sd · sqrt(n), since h itself is measured on the
        n clusters; together they must stay below n · |h|.

        Args:
            limit: relative change.
            confidence: of the test, 1 - alpha.

        Returns:
            None where the change is not below the limit, there are fewer than two clusters, or no million is enough.
        """
        sums, distance = self._sums, self._distance(limit)
        totals = sums.sum(axis=0)[None]
        reached, slopes = float(distance(totals)[0]) / len(sums), gradients(distance, totals)[0]
        if len(sums) < 2 or not reached < 0:
            return None
        z, z_power = (NormalDist().inv_cdf(level) for level in (confidence, POWER))
        sd, worst = float((sums @ slopes).std(ddof=1)), max(0.0, float(self.unseen @ slopes))
        tail = max(0.0, -math.log(1 - confidence) - 1) * worst

        def enough(n: int) -> bool:
            return worst + math.hypot(z * sd * math.sqrt(n), tail) + z_power * sd * math.sqrt(n) <= -reached * n

        needed = bisect_left(range(MOST), True, lo=1, key=enough)
        return None if needed == MOST else math.ceil(needed * len(self.bootstrap.resampler.groups) / len(sums))

    @property
    def _sums(self) -> Floats:
        """(C, 2 · S): what each cluster adds for the plan, and for the unpruned model."""
        return np.hstack([self.plan.resampled.clusters, self.baseline.resampled.clusters])

    def _values(self, sums: Floats) -> tuple[Floats, Floats]:
        """How much worse the plan is (...), and the unpruned model's score (...), from sums (..., 2 · S)."""
        plan, baseline = (self.score.value(half) for half in np.split(sums, 2, axis=-1))
        return (baseline - plan if self.score.higher_is_better else plan - baseline), baseline

    def _distance(self, limit: float) -> Callable[[Floats], Floats]:
        """Below 0 where the change is below the limit; unlike the change it stays smooth near a baseline of 0."""

        def distance(sums: Floats) -> Floats:
            worse, baseline = self._values(sums)
            return worse - limit * baseline

        return distance
