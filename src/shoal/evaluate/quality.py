"""What a task is scored by: corpus scores from statistics that add up over utterances.

Since a corpus score needs the sums only, every score has the same paired bootstrap: draw utterances, add their
statistics, score the sums.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shoal._version import __version__
from shoal.bootstrap import Floats, Resampler
from shoal.errors import UsageError
from shoal.evaluate.score import EditCounts, char_counts, scorer_name, word_counts

if TYPE_CHECKING:
    from shoal.evaluate.outputs import Output
    from shoal.tasks import Task


class Score(ABC):
    """A corpus score; instances hold no results."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    fraction: ClassVar[bool] = True
    """Whether 1 is a hundred per cent; else the score itself is on 0-100."""

    @abstractmethod
    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> Floats:
        """What each utterance adds to the corpus.

        Args:
            references: U texts, normalised as the task says; for WER with a space between what it counts.
            hypotheses: U texts, likewise.

        Returns:
            (U, S), additive over utterances.
        """

    @abstractmethod
    def value(self, totals: Floats) -> Floats:
        """The corpus score (...) from summed statistics (..., S); NaN where it is undefined."""

    @property
    @abstractmethod
    def signature(self) -> str:
        """What computed it, with its version and settings."""


class ErrorRate(Score):
    """Edit operations over the length of the references; statistics are the columns of `EditCounts`."""

    higher_is_better = False

    def value(self, totals: Floats) -> Floats:
        """(substitutions + insertions + deletions) / (hits + substitutions + deletions)."""
        hits, substitutions, insertions, deletions = np.moveaxis(totals, -1, 0)
        return _ratio(substitutions + insertions + deletions, hits + substitutions + deletions)

    @property
    def signature(self) -> str:
        """The aligner and its version."""
        return scorer_name()


class Wer(ErrorRate):
    """Word error rate."""

    name = "WER"

    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> Floats:
        """(U, 4): word hits, substitutions, insertions, deletions."""
        return _table(word_counts(references, hypotheses))


class Cer(ErrorRate):
    """Character error rate, the single spaces between words included."""

    name = "CER"

    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> Floats:
        """(U, 4): character hits, substitutions, insertions, deletions."""
        return _table(char_counts(references, hypotheses))


def _table(counts: EditCounts) -> Floats:
    return counts.table.astype(np.float64)


LENGTH = 1
"""Where the length of the references stands in the sums, in words (BLEU) or in characters (chrF)."""


class SacreBleu(Score):
    """A score of sacrebleu with its default settings, on 0-100 (Post 2018): its statistics, and its score of sums."""

    higher_is_better = True
    fraction = False
    metric: ClassVar[str]
    """The class in `sacrebleu.metrics`."""
    width: ClassVar[int]
    """S."""

    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> Floats:
        """(U, S): n-gram counts, in sacrebleu's order."""
        if not references:
            return np.zeros((0, self.width))
        counts = _sacrebleu(self.metric)._extract_corpus_statistics(list(hypotheses), [list(references)])
        return np.array(counts, dtype=np.float64)

    def value(self, totals: Floats) -> Floats:
        """What sacrebleu makes of every row of sums; NaN where the references hold nothing."""
        score = _sacrebleu(self.metric)._compute_score_from_stats
        rows = totals.reshape(-1, self.width)
        known = rows[:, LENGTH] > 0
        values = [
            score(row).score if there else np.nan for row, there in zip(rows.tolist(), known, strict=True)
        ]
        return np.array(values, dtype=np.float64).reshape(totals.shape[:-1])

    @property
    def signature(self) -> str:
        """That of sacrebleu, for one reference."""
        metric = _sacrebleu(self.metric)
        metric.num_refs = 1
        return str(metric.get_signature().format())


class Bleu(SacreBleu):
    """BLEU (Papineni et al. 2002), tokeniser 13a, smoothing `exp`."""

    name = "BLEU"
    metric = "BLEU"
    width = 10


class Chrf(SacreBleu):
    """chrF2 (Popović 2015): character n-grams up to 6, no words."""

    name = "chrF"
    metric = "CHRF"
    width = 18


@lru_cache(maxsize=2)
def _sacrebleu(name: str) -> Any:
    from sacrebleu import metrics

    return getattr(metrics, name)()


class Accuracy(Score):
    """Share of answers that are the reference."""

    name = "accuracy"
    higher_is_better = True

    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> Floats:
        """(U, 2): right, 1."""
        right = [float(wanted == said) for wanted, said in zip(references, hypotheses, strict=True)]
        return np.stack([np.array(right), np.ones(len(right))], axis=1)

    def value(self, totals: Floats) -> Floats:
        """Right answers over answers."""
        return _ratio(totals[..., 0], totals[..., 1])

    @property
    def signature(self) -> str:
        """Whose count it is."""
        return f"shoal {__version__}"


class OverLabels(Score):
    """A mean over the labels that occur among the references, each with the same weight.

    Args:
        labels: K labels, normalised; None takes those of the references in each call, sorted. Statistics of two calls
            add up only if they have the same labels.
    """

    higher_is_better = True

    def __init__(self, labels: Sequence[str] | None = None) -> None:
        self.labels = None if labels is None else tuple(labels)

    def statistics(self, references: Sequence[str], hypotheses: Sequence[str]) -> Floats:
        """(U, 3·K): for every label whether it was hit, wanted, said.

        Raises:
            ValueError: a reference is none of the labels.
        """
        labels = sorted(set(references)) if self.labels is None else self.labels
        places = {label: place for place, label in enumerate(labels)}
        if strange := sorted(set(references) - set(places)):
            raise ValueError(f"no label of the data: {strange[0]!r}")
        table = np.zeros((len(references), len(labels), 3))
        for row, (wanted, said) in enumerate(zip(references, hypotheses, strict=True)):
            table[row, places[wanted], :2] = wanted == said, 1
            if said in places:
                table[row, places[said], 2] = 1
        return table.reshape(len(references), 3 * len(labels))

    def value(self, totals: Floats) -> Floats:
        """The mean of `of_label` over labels with references."""
        hit, wanted, said = np.moveaxis(totals.reshape(*totals.shape[:-1], totals.shape[-1] // 3, 3), -1, 0)
        values = np.where(wanted > 0, self.of_label(hit, wanted, said), 0)
        return _ratio(values.sum(-1), (wanted > 0).sum(-1).astype(np.float64))

    @abstractmethod
    def of_label(self, hit: Floats, wanted: Floats, said: Floats) -> Floats:
        """The score of each label (..., K) from its counts (..., K)."""

    @property
    def signature(self) -> str:
        """Whose count it is, and over which labels."""
        over = "those of the references" if self.labels is None else ", ".join(self.labels)
        return f"shoal {__version__}, labels: {over}"


class Uar(OverLabels):
    """Unweighted average recall (Schuller et al. 2009, INTERSPEECH emotion challenge)."""

    name = "UAR"

    def of_label(self, hit: Floats, wanted: Floats, said: Floats) -> Floats:
        """Recall."""
        del said
        return _ratio(hit, wanted)


class MacroF1(OverLabels):
    """Mean F1 of the labels; an answer that is no label is a miss of the label that was wanted."""

    name = "macro-F1"

    def of_label(self, hit: Floats, wanted: Floats, said: Floats) -> Floats:
        """2 · hits / (references + answers)."""
        return _ratio(2 * hit, wanted + said)


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


_SCORES: dict[str, Score] = {
    score.name: score for score in (Wer(), Cer(), Bleu(), Chrf(), Accuracy(), Uar(), MacroF1())
}


def scores(task: Task) -> tuple[Score, ...]:
    """What `task` is scored by, the headline first; empty where no answer is asked."""
    return tuple(_SCORES[name] for name in task.scored_by)


def headline(task: Task) -> Score:
    """The one score of `task` that stands for it.

    Raises:
        UsageError: nothing is decoded for this task, so there is nothing to score.
    """
    if not task.scored_by:
        raise UsageError(
            f"nothing is decoded for the task {task.name}, so there is nothing to score",
            where="--task",
            fix=f"measure it with `shoal audit --metric ablation --task {task.name}`",
        )
    return scores(task)[0]


def compared(task: Task, outputs: Sequence[Output]) -> tuple[list[str], list[str]]:
    """References and answers as the headline score compares them: normalised, with a space between what it counts."""

    def ready(text: str, lang: str | None) -> str:
        return task.words(task.normaliser(lang)(text), lang)

    return (
        [ready(output.text, output.lang) for output in outputs],
        [ready(output.pred_text, output.lang) for output in outputs],
    )


def paired_change(score: Score, system: Floats, full: Floats, resampler: Resampler) -> tuple[float, Floats]:
    """How much worse a system is than the full model, relative to it, on the same utterances.

    Args:
        score: whose statistics these are.
        system: statistics (U, S) of the system.
        full: statistics (U, S) of the full model.
        resampler: one draw for both.

    Returns:
        The relative change of the corpus score, 0.1 for 10 % worse whichever way the score runs, and its replicates
        (R,); infinite or NaN where the full model's score is 0 or undefined.
    """
    sums = np.stack([system.sum(axis=0), full.sum(axis=0)])
    value = _worsening(score, *score.value(sums)[:, None])
    replicates = _worsening(score, *(score.value(resampler.totals(each)) for each in (system, full)))
    return float(value[0]), replicates


def _worsening(score: Score, system: Floats, full: Floats) -> Floats:
    worse = full - system if score.higher_is_better else system - full
    with np.errstate(invalid="ignore", divide="ignore"):
        change: Floats = worse / full
    return change
