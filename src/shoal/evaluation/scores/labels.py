"""Scores of answers that are right or wrong: accuracy, and averages over labels.

Each judges what was written freely, or, as `chosen`, the likeliest of the answers that were allowed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np
import numpy.typing as npt

from shoal.evaluation.scores.base import OWN, Answers, Score, ratio
from shoal.statistics import Floats

Said = Sequence[str | None]


class LabelScore(Score):
    """What was said against what is right."""

    higher_is_better = True

    def statistics(self, answers: Answers) -> Floats:
        """(U, S), see `judge`."""
        return self.judge(answers.references, self.said(answers))

    def said(self, answers: Answers) -> Said:
        """U answers to judge, None where there is none."""
        return answers.hypotheses

    @abstractmethod
    def judge(self, references: Sequence[str], said: Said) -> Floats:
        """(U, S); zeros where nothing was said."""

    @property
    def signature(self) -> str:
        """Whose count it is."""
        return OWN


class Chosen(LabelScore):
    """Judges the answer with the highest log-likelihood, summed over its tokens and its end."""

    def said(self, answers: Answers) -> Said:
        """The likeliest of what was allowed."""
        return answers.chosen or [None] * len(answers)

    @property
    def signature(self) -> str:
        """Whose count it is, and by what was chosen."""
        return f"{super().signature}, by log-likelihood"


class ChosenPerByte(LabelScore):
    """Judges the answer with the highest log-likelihood per byte of UTF-8, as `acc_norm` of lm-evaluation-harness."""

    def said(self, answers: Answers) -> Said:
        """The likeliest per byte of what was allowed."""
        return answers.chosen_per_byte or [None] * len(answers)

    @property
    def signature(self) -> str:
        """Whose count it is, and by what was chosen."""
        return f"{super().signature}, by log-likelihood per byte"


class Accuracy(LabelScore):
    """Share of answers that are the reference."""

    name = "accuracy"

    def judge(self, references: Sequence[str], said: Said) -> Floats:
        """(U, 2): right, 1."""
        rows = [
            (float(wanted == answer), float(answer is not None))
            for wanted, answer in zip(references, said, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(len(rows), 2)

    def value(self, totals: Floats) -> Floats:
        """Right answers over answers."""
        return ratio(totals[..., 0], totals[..., 1])

    def losses(self, statistics: Floats) -> tuple[Floats, npt.NDArray[np.int64], str]:
        """Wrong answers, and answers."""
        right, answered = statistics.T
        return answered - right, answered.astype(np.int64), "error rate"


class OverLabels(LabelScore):
    """A mean over the labels that occur among the references, each with the same weight.

    Args:
        labels: K labels, normalised; None takes those of the references in each call, sorted. Statistics of two calls
            add up only if they have the same labels.
    """

    def __init__(self, labels: Sequence[str] | None = None) -> None:
        self.labels = None if labels is None else tuple(labels)

    def over(self, labels: Iterable[str]) -> Self:
        """The same mean over these labels."""
        return type(self)(sorted(set(labels)))

    def judge(self, references: Sequence[str], said: Said) -> Floats:
        """(U, 3·K): for every label whether it was hit, wanted, said.

        Raises:
            ValueError: a reference is none of the labels.
        """
        labels = sorted(set(references)) if self.labels is None else self.labels
        places = {label: place for place, label in enumerate(labels)}
        if strange := sorted(set(references) - set(places)):
            raise ValueError(f"no label of the data: {strange[0]!r}")
        table = np.zeros((len(references), len(labels), 3))
        for row, (wanted, answer) in enumerate(zip(references, said, strict=True)):
            if answer is None:
                continue
            table[row, places[wanted], :2] = wanted == answer, 1
            if answer in places:
                table[row, places[answer], 2] = 1
        return table.reshape(len(references), 3 * len(labels))

    def value(self, totals: Floats) -> Floats:
        """The mean of `of_label` over labels with references."""
        hit, wanted, said = np.moveaxis(totals.reshape(*totals.shape[:-1], totals.shape[-1] // 3, 3), -1, 0)
        values = np.where(wanted > 0, self.of_label(hit, wanted, said), 0)
        return ratio(values.sum(-1), (wanted > 0).sum(-1).astype(np.float64))

    @abstractmethod
    def of_label(self, hit: Floats, wanted: Floats, said: Floats) -> Floats:
        """The score of each label (..., K) from its counts (..., K)."""

    @property
    def signature(self) -> str:
        """Whose count it is, and over which labels."""
        over = "those of the references" if self.labels is None else ", ".join(self.labels)
        return f"{super().signature}, labels: {over}"


class Uar(OverLabels):
    """Unweighted average recall (Schuller et al. 2009, INTERSPEECH emotion challenge)."""

    name = "UAR"

    def of_label(self, hit: Floats, wanted: Floats, said: Floats) -> Floats:
        """Recall."""
        del said
        return ratio(hit, wanted)


class MacroF1(OverLabels):
    """Mean F1 of the labels; an answer that is no label is a miss of the label that was wanted."""

    name = "macro-F1"

    def of_label(self, hit: Floats, wanted: Floats, said: Floats) -> Floats:
        """2 · hits / (references + answers)."""
        return ratio(2 * hit, wanted + said)


class ChosenAccuracy(Accuracy, Chosen):
    """Accuracy of the likeliest label."""

    name = "accuracy, chosen"


class ChosenUar(Uar, Chosen):
    """Unweighted average recall of the likeliest label."""

    name = "UAR, chosen"


class ChosenMacroF1(MacroF1, Chosen):
    """Macro-F1 of the likeliest label."""

    name = "macro-F1, chosen"


class AccuracyPerByte(Accuracy, ChosenPerByte):
    """Accuracy of the label that is likeliest per byte."""

    name = "accuracy, chosen per byte"


class UarPerByte(Uar, ChosenPerByte):
    """Unweighted average recall of the label that is likeliest per byte."""

    name = "UAR, chosen per byte"


class MacroF1PerByte(MacroF1, ChosenPerByte):
    """Macro-F1 of the label that is likeliest per byte."""

    name = "macro-F1, chosen per byte"
