"""Scores of answers to questions: exact match and token F1, the best over all accepted answers.

As in SQuAD (Rajpurkar et al. 2016, section 6.1, and its official `evaluate-v1.1.py`), on texts normalised by the task.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence

import numpy as np

from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import OWN, MeanScore
from shoal.statistics import Floats
from shoal.tasks.base import Unit, spaced


class BestOfAccepted(MeanScore):
    """The mean over utterances of the best likeness to an accepted answer."""

    higher_is_better = True

    def statistics(self, answers: Answers) -> Floats:
        """(U, 2): likeness, 1."""
        accepted = answers.accepted or [(reference,) for reference in answers.references]
        units: Sequence[Unit] = answers.units or ["word"] * len(answers)
        rows = [
            (max(self.likeness(_tokens(right, unit), _tokens(said, unit)) for right in rights), 1.0)
            for rights, said, unit in zip(accepted, answers.hypotheses, units, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)

    @abstractmethod
    def likeness(self, right: list[str], said: list[str]) -> float:
        """From 0 to 1; both are words, or characters in scripts without spaces."""

    @property
    def signature(self) -> str:
        """Whose count it is, after which definition."""
        return f"{OWN}, as SQuAD 1.1"


class ExactMatch(BestOfAccepted):
    """Share of answers that are an accepted one."""

    name = "exact match"

    def likeness(self, right: list[str], said: list[str]) -> float:
        """1 if both are the same."""
        return float(right == said)


class TokenF1(BestOfAccepted):
    """Mean F1 of the words that an answer shares with an accepted one, counted as often as both have them."""

    name = "token F1"

    def likeness(self, right: list[str], said: list[str]) -> float:
        """2 · shared / (words of one + words of the other); 0 where nothing is shared."""
        shared = sum((Counter(right) & Counter(said)).values())
        return 2 * shared / (len(right) + len(said)) if shared else 0.0


SCORES = (ExactMatch(), TokenF1())


def _tokens(text: str, unit: Unit) -> list[str]:
    return spaced(text, unit).split()
