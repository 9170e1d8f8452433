"""Error rates of words and characters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.evaluation.edit_counts import EditCounts, char_counts, scorer_name, word_counts
from shoal.evaluation.scores.base import Answers, Score, ratio
from shoal.statistics import Floats
from shoal.tasks.base import Unit, spaced


class ErrorRate(Score):
    """Edit operations over the length of the references; statistics are the columns of `EditCounts`."""

    higher_is_better = False

    def value(self, totals: Floats) -> Floats:
        """(substitutions + insertions + deletions) / (hits + substitutions + deletions)."""
        hits, substitutions, insertions, deletions = np.moveaxis(totals, -1, 0)
        return ratio(substitutions + insertions + deletions, hits + substitutions + deletions)

    @property
    def signature(self) -> str:
        """The aligner and its version."""
        return scorer_name()


class Wer(ErrorRate):
    """Word error rate; of characters in scripts without spaces."""

    name = "WER"

    def statistics(self, answers: Answers) -> Floats:
        """(U, 4): word hits, substitutions, insertions, deletions."""
        return _table(word_counts(*units_apart(answers)))


class Cer(ErrorRate):
    """Character error rate, the single spaces between words included where the script writes them."""

    name = "CER"

    def statistics(self, answers: Answers) -> Floats:
        """(U, 4): character hits, substitutions, insertions, deletions."""
        return _table(char_counts(*characters(answers)))


def units_apart(answers: Answers) -> tuple[list[str], list[str]]:
    """References and answers with a space between what WER counts."""
    references, hypotheses = (
        [spaced(text, unit) for text, unit in zip(texts, _units(answers), strict=True)]
        for texts in (answers.references, answers.hypotheses)
    )
    return references, hypotheses


def characters(answers: Answers) -> tuple[list[str], list[str]]:
    """References and answers as CER counts them, without white space where the script has none.

    There it was not written: a normaliser put it where a comma was.
    """
    references, hypotheses = (
        [
            "".join(text.split()) if unit == "char" else text
            for text, unit in zip(texts, _units(answers), strict=True)
        ]
        for texts in (answers.references, answers.hypotheses)
    )
    return references, hypotheses


def _units(answers: Answers) -> Sequence[Unit]:
    words: list[Unit] = ["word"]
    return answers.units or words * len(answers)


def _table(counts: EditCounts) -> Floats:
    return counts.table.astype(np.float64)
