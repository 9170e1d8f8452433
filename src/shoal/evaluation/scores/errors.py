"""Error rates of words and characters.

A clip whose reference is empty once normalised (`[laughter]`, `hmm`) adds nothing to any of them: there is no rate of
it, and what is said there would count against the words of other clips. It is reported apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import Score, ratio
from shoal.evaluation.scores.edit_counts import (
    EditCounts,
    char_counts,
    compound_errors,
    scorer_name,
    second_scorer_name,
)
from shoal.schema import Counts
from shoal.statistics import Floats


class ErrorRate(Score):
    """Edit operations over the length of the references; statistics are the columns of `EditCounts`."""

    higher_is_better = False

    def value(self, totals: Floats) -> Floats:
        """(substitutions + insertions + deletions) / (hits + substitutions + deletions)."""
        hits, substitutions, insertions, deletions = np.moveaxis(totals, -1, 0)
        return ratio(substitutions + insertions + deletions, hits + substitutions + deletions)

    def edits(self, totals: Floats) -> Counts:
        """The four columns."""
        return EditCounts(totals[None].astype(np.int64)).total()

    def losses(self, statistics: Floats) -> tuple[Floats, npt.NDArray[np.int64], str]:
        """Errors, and the length of the references."""
        counts = EditCounts(statistics.astype(np.int64))
        return counts.errors.astype(np.float64), counts.lengths, self.name

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """An average reference with no word right, and words without a reference up to the limit."""
        length = _average(EditCounts(statistics.astype(np.int64)).lengths)
        return np.array([0.0, length, max(0.0, longest - 1) * length, 0.0])

    @property
    def signature(self) -> str:
        """The aligner and its version."""
        return scorer_name()


class Wer(ErrorRate):
    """Word error rate; of characters in scripts without spaces."""

    name = "WER"

    def statistics(self, answers: Answers) -> Floats:
        """(U, 4): word hits, substitutions, insertions, deletions."""
        return _judged(answers.word_edits.table, answers.word_edits.lengths)


class Cer(ErrorRate):
    """Character error rate, the single spaces between words included where the script writes them."""

    name = "CER"

    def statistics(self, answers: Answers) -> Floats:
        """(U, 4): character hits, substitutions, insertions, deletions."""
        counts = char_counts(*answers.characters)
        return _judged(counts.table, counts.lengths)


class CompoundWer(Score):
    """WER after compounds were merged ("white paper" / "whitepaper"), by kaldialign."""

    name = "compound WER"
    higher_is_better = False

    def statistics(self, answers: Answers) -> Floats:
        """(U, 2): word errors, words of the reference as it is written."""
        errors, lengths = compound_errors(*answers.words), answers.word_edits.lengths
        return _judged(np.stack([errors, lengths], axis=1), lengths)

    def value(self, totals: Floats) -> Floats:
        """Errors over words."""
        return ratio(totals[..., 0], totals[..., 1])

    def losses(self, statistics: Floats) -> tuple[Floats, npt.NDArray[np.int64], str]:
        """Errors, and words of the reference."""
        errors, words = statistics.T
        return errors, words.astype(np.int64), self.name

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """As of the error rate without merging."""
        length = _average(statistics[:, 1])
        return np.array([max(1.0, longest) * length, length])

    @property
    def signature(self) -> str:
        """The aligner and its version."""
        return second_scorer_name()


def _average(lengths: npt.NDArray[Any]) -> float:
    """Of the references (U,) that have a length."""
    return float(lengths.sum() / max(1, np.count_nonzero(lengths)))


def _judged(table: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> Floats:
    """Counts (U, S) as floats, zeros where the reference has no length (U,)."""
    return np.where(lengths[:, None] > 0, table, 0).astype(np.float64)


SCORES = (Wer(), Cer(), CompoundWer())
