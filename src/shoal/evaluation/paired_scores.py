"""Several systems on the same clips: every score with its interval, and its paired difference from the first system.

One draw of clips serves all systems, so that differences are paired. `evaluate`, `search` and the healing grid all
score this way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.evaluation.significance import PairedBootstrap, Rates, correct
from shoal.evaluation.utterance_counts import UtteranceCounts
from shoal.schema import MeasuredScore
from shoal.statistics.arrays import Numbers
from shoal.statistics.studentised import Resampled

if TYPE_CHECKING:
    from shoal.evaluation.scores.base import Score

Clips = npt.NDArray[np.intp]
"""Indices of clips."""


@dataclass(frozen=True, slots=True)
class PairedScores:
    """Scores of systems on the same clips, with one draw for all of them; the first system is the baseline."""

    scores: Mapping[str, Score]
    """By name, the headline first; without those that are undefined for one of the systems."""
    rates: Mapping[str, Sequence[Rates]]
    """Score → what it is for every system."""
    bootstrap: PairedBootstrap

    @classmethod
    def of(
        cls,
        scores: Sequence[Score],
        systems: Sequence[UtteranceCounts],
        bootstrap: PairedBootstrap,
        clips: Clips | None = None,
    ) -> PairedScores:
        """Score the systems.

        Args:
            scores: what by; counted in all systems.
            systems: counts of U clips each.
            bootstrap: over the clips that are scored.
            clips: which of the U; None takes all.
        """
        rates = {
            score.name: [
                score_rates(score, statistics if clips is None else statistics[clips], bootstrap)
                for statistics in (counts.statistics[score.name] for counts in systems)
            ]
            for score in scores
        }
        known = [score for score in scores if not any(np.isnan(rate.value) for rate in rates[score.name])]
        return cls(
            {score.name: score for score in known}, {score.name: rates[score.name] for score in known}, bootstrap
        )

    def measures(self) -> list[dict[str, MeasuredScore]]:
        """For every system its scores by name, with differences from the first; nothing is corrected yet."""
        systems = max(map(len, self.rates.values()), default=0)
        return [{name: self._measured(name, system) for name in self.scores} for system in range(systems)]

    def corrected_measures(self) -> list[dict[str, MeasuredScore]]:
        """The same after Holm's correction over the systems, with standard errors and counts of edits."""
        systems = self.measures()
        for name, rates in self.rates.items():
            correct(measures[name].delta for measures in systems)
            for measures, rate in zip(systems, rates, strict=True):
                measures[name].standard_error = self.bootstrap.standard_error(rate)
                measures[name].design_effect = self.bootstrap.design_effect(rate)
                measures[name].edits = self.scores[name].edits(rate.totals)
        return systems

    def _measured(self, name: str, system: int) -> MeasuredScore:
        score, rates = self.scores[name], self.rates[name]
        return MeasuredScore(
            value=self.bootstrap.estimate(rates[system]),
            delta=self.bootstrap.delta(rates[system], rates[0]) if system else None,
            higher_is_better=score.higher_is_better,
            fraction=score.fraction,
            signature=score.signature,
        )


def score_rates(score: Score, statistics: Numbers, bootstrap: PairedBootstrap) -> Rates:
    """A score from its statistics (U, S)."""
    return bootstrap.rates(score.value, statistics, score.limits)


def worsening(score: Score, system: Rates, baseline: Rates) -> Resampled:
    """How much worse a system is than the baseline, relative to it: 0.1 for 10 %, whichever way the score runs.

    Infinite or NaN where the baseline's score is 0 or undefined.
    """
    change = system.resampled.minus(baseline.resampled).over(baseline.resampled)
    return change.scaled(-1 if score.higher_is_better else 1)
