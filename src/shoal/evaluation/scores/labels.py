"""Scores of answers that are right or wrong: accuracy, and averages over labels.

Each judges what was written freely, or, as `chosen`, the likeliest of the answers that were allowed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Self

import numpy as np

from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import OWN, MeanScore, Score, ratio
from shoal.statistics import Floats

Judged = Literal["written", "chosen", "chosen per byte"]
"""What was written freely; the allowed answer with the highest log-likelihood, summed over its tokens and its end; or
the one with the highest log-likelihood per byte of UTF-8, as `acc_norm` of lm-evaluation-harness."""
CHOSEN_BY: Mapping[Judged, str] = {
    "written": "",
    "chosen": ", by log-likelihood",
    "chosen per byte": ", by log-likelihood per byte",
}


class LabelScore(Score):
    """The answer against what is right.

    Args:
        judged: which answer.
    """

    higher_is_better = True

    def __init__(self, judged: Judged = "written") -> None:
        self.judged = judged
        if judged != "written":
            self.name = f"{type(self).name}, {judged}"

    def statistics(self, answers: Answers) -> Floats:
        """(U, S), see `judge`."""
        if self.judged == "written":
            return self.judge(answers.references, answers.hypotheses)
        chosen = answers.chosen if self.judged == "chosen" else answers.chosen_per_byte
        return self.judge(answers.references, chosen or [None] * len(answers))

    @abstractmethod
    def judge(self, references: Sequence[str], answers: Sequence[str | None]) -> Floats:
        """(U, S); zeros where there is no answer."""

    @property
    def signature(self) -> str:
        """Whose count it is, and by what was chosen."""
        return OWN + CHOSEN_BY[self.judged]


class Accuracy(LabelScore, MeanScore):
    """Share of answers that are the reference."""

    name = "accuracy"

    def judge(self, references: Sequence[str], answers: Sequence[str | None]) -> Floats:
        """(U, 2): right, 1."""
        rows = [
            (float(reference == answer), float(answer is not None))
            for reference, answer in zip(references, answers, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)


class OverLabels(LabelScore):
    """A mean over the labels that occur among the references, each with the same weight.

    Args:
        labels: K labels, normalised; None takes those of the references in each call, sorted. Statistics of two calls
            add up only if they have the same labels.
        judged: which answer.
    """

    def __init__(self, labels: Sequence[str] | None = None, judged: Judged = "written") -> None:
        super().__init__(judged)
        self.labels = None if labels is None else tuple(labels)

    def over(self, labels: Iterable[str]) -> Self:
        """The same mean over these labels."""
        return type(self)(sorted(set(labels)), self.judged)

    def judge(self, references: Sequence[str], answers: Sequence[str | None]) -> Floats:
        """(U, 3·K): for every label whether it was hit, was right, was answered.

        Raises:
            ValueError: a reference is none of the labels.
        """
        labels = sorted(set(references)) if self.labels is None else self.labels
        index = {label: number for number, label in enumerate(labels)}
        if strange := sorted(set(references) - set(index)):
            raise ValueError(f"no label of the data: {strange[0]!r}")
        table = np.zeros((len(references), len(labels), 3))
        for row, (reference, answer) in enumerate(zip(references, answers, strict=True)):
            if answer is None:
                continue
            table[row, index[reference], :2] = reference == answer, 1
            if answer in index:
                table[row, index[answer], 2] = 1
        return table.reshape(len(references), 3 * len(labels))

    def value(self, totals: Floats) -> Floats:
        """The mean of `of_label` over labels with references."""
        hit, right, answered = np.moveaxis(totals.reshape(*totals.shape[:-1], totals.shape[-1] // 3, 3), -1, 0)
        values = np.where(right > 0, self.of_label(hit, right, answered), 0)
        return ratio(values.sum(-1), (right > 0).sum(-1).astype(np.float64))

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """The label is missed that costs most, such as the rarest, and then the answer given that costs most."""
        del longest
        totals = statistics.sum(axis=0)
        one = np.eye(len(totals))
        labels = 3 * np.flatnonzero(totals[1::3])
        missed = min(labels, key=lambda label: self.value(totals + one[label + 1]))
        answers = [np.zeros_like(totals), *(one[label + 2] for label in labels if label != missed)]
        return one[missed + 1] + min(answers, key=lambda answer: self.value(totals + one[missed + 1] + answer))

    @abstractmethod
    def of_label(self, hit: Floats, right: Floats, answered: Floats) -> Floats:
        """The score of each label (..., K) from its counts (..., K)."""

    @property
    def signature(self) -> str:
        """Whose count it is, and over which labels."""
        over = "those of the references" if self.labels is None else ", ".join(self.labels)
        return f"{super().signature}, labels: {over}"


class Uar(OverLabels):
    """Unweighted average recall (Schuller et al. 2009, INTERSPEECH emotion challenge)."""

    name = "UAR"

    def of_label(self, hit: Floats, right: Floats, answered: Floats) -> Floats:
        """Recall."""
        del answered
        return ratio(hit, right)


class MacroF1(OverLabels):
    """Mean F1 of the labels; an answer that is none of them is a miss of the right label, and no class of its own.

    That is scikit-learn's `f1_score(labels=…, average="macro")`; without `labels` it averages over such answers too.
    """

    name = "macro-F1"

    @property
    def signature(self) -> str:
        """Says that too."""
        return f"{super().signature}; other answers are misses, no classes of their own"

    def of_label(self, hit: Floats, right: Floats, answered: Floats) -> Floats:
        """2 · hits / (references + answers)."""
        return ratio(2 * hit, right + answered)


SCORES = tuple(
    score for judged in CHOSEN_BY for score in (Accuracy(judged), Uar(judged=judged), MacroF1(judged=judged))
)
