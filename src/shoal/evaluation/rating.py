"""From tallies to rates with intervals: of all clips, or of those of a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from shoal.evaluation.edit_counts import EditCounts
from shoal.evaluation.significance import PairedBootstrap, Rates
from shoal.evaluation.utterance_counts import ClipTable, Numbers, UtteranceCounts, sums
from shoal.schema import MeasuredScore

if TYPE_CHECKING:
    from shoal.evaluation.measures import Score
    from shoal.evaluation.settings import Resampling

Places = npt.NDArray[np.intp]
Rated: TypeAlias = "dict[str, tuple[Score, list[Rates]]]"
"""Name → a score and its rates for every system."""


@dataclass(frozen=True, slots=True)
class Judge:
    """What systems are scored by, and how intervals are made."""

    measures: Sequence[Score]
    """Besides error rates, the headline first; none for recognition."""
    resampling: Resampling

    def rate(
        self, tallies: Sequence[UtteranceCounts], clips: ClipTable, places: Places | None = None
    ) -> Rating:
        """Draw the bootstrap for all clips, or for some, given by their places."""
        chosen = range(len(clips.speakers)) if places is None else places.tolist()
        bootstrap = self.resampling.draw_over([clips.speakers[place] for place in chosen])
        return Rating(self.measures, bootstrap, tallies, places)


@dataclass(frozen=True, slots=True)
class Rating:
    """Systems on the same clips, with one draw for all of them."""

    scores: Sequence[Score]
    bootstrap: PairedBootstrap
    tallies: Sequence[UtteranceCounts]
    places: Places | None = None
    """The clips that count; None counts all."""

    def word_errors(self) -> list[Rates]:
        """For every system its WER."""
        words = [self._edits(tally.words) for tally in self.tallies]
        return [self.bootstrap.rates(each.errors, each.lengths) for each in words]

    def char_errors(self) -> list[Rates]:
        """For every system its CER."""
        chars = [self._edits(tally.chars) for tally in self.tallies]
        return [self.bootstrap.rates(each.errors, each.lengths) for each in chars]

    def compound_errors(self) -> list[Rates | None]:
        """For every system its WER with compounds merged, where that was counted."""
        return [
            None
            if tally.compounds is None
            else self.bootstrap.rates(
                tally.compounds if self.places is None else tally.compounds[self.places],
                self._edits(tally.words).lengths,
            )
            for tally in self.tallies
        ]

    def measures(self, rated: Rated | None = None) -> list[dict[str, MeasuredScore]]:
        """For every system its scores by name; `rated` where they are rated already."""
        found = self.rated() if rated is None else rated
        return [
            {name: self.measured(score, place, rates) for name, (score, rates) in found.items()}
            for place in range(len(self.tallies))
        ]

    def rated(self) -> Rated:
        """Name → a score and its rates for every system, without those that are undefined for one of them."""
        found = {
            score.name: (score, [self._rates(score, tally) for tally in self.tallies])
            for score in self.scores
        }
        return {
            name: (score, rates)
            for name, (score, rates) in found.items()
            if not any(np.isnan(rate.value) for rate in rates)
        }

    def _rates(self, score: Score, tally: UtteranceCounts) -> Rates:
        statistics = self._of(tally.measures[score.name])
        value = float(score.value(sums(statistics)))
        if np.isnan(value):
            return Rates(value, np.zeros(0))
        return Rates(value, score.value(self.bootstrap.resampler.totals(statistics)))

    def measured(self, score: Score, place: int, rates: Sequence[Rates]) -> MeasuredScore:
        """A score of the system at `place`, with its difference from the first."""
        return MeasuredScore(
            value=self.bootstrap.estimate(rates[place]),
            delta=self.bootstrap.delta(rates[place], rates[0]) if place else None,
            higher_is_better=score.higher_is_better,
            fraction=score.fraction,
            signature=score.signature,
        )

    def _edits(self, counts: EditCounts) -> EditCounts:
        return counts if self.places is None else counts.select(self.places)

    def _of(self, table: Numbers) -> Numbers:
        return table if self.places is None else table[self.places]
