"""BLEU and chrF, by sacrebleu."""

from __future__ import annotations

from abc import abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from shoal.evaluation.scores.answers import Answers
from shoal.evaluation.scores.base import Score
from shoal.statistics import Floats

if TYPE_CHECKING:
    from shoal.tasks import Task

LENGTH = 1
"""Where the length of the references stands in the sums, in words (BLEU) or in characters (chrF)."""


class SacreBleu(Score):
    """A score of sacrebleu on 0-100 (Post 2018): its statistics, and its score of sums.

    Args:
        settings: of the class in `sacrebleu.metrics`, beside its defaults.
    """

    higher_is_better = True
    fraction = False
    metric: ClassVar[str]
    """The class in `sacrebleu.metrics`."""
    width: ClassVar[int]
    """S."""

    def __init__(self, **settings: str) -> None:
        self._settings = tuple(sorted(settings.items()))

    def statistics(self, answers: Answers) -> Floats:
        """(U, S): n-gram counts, in sacrebleu's order."""
        if not len(answers):
            return np.zeros((0, self.width))
        counts = self._library._extract_corpus_statistics(list(answers.hypotheses), [list(answers.references)])
        return np.array(counts, dtype=np.float64)

    def value(self, totals: Floats) -> Floats:
        """What sacrebleu makes of every row of sums, for all rows at once; NaN where the references hold nothing."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(totals[..., LENGTH] > 0, 100 * self.of_counts(totals), np.nan)

    @abstractmethod
    def of_counts(self, totals: Floats) -> Floats:
        """The score (...) as a share, from counts (..., S)."""

    @property
    def signature(self) -> str:
        """That of sacrebleu, for one reference."""
        metric = self._library
        metric.num_refs = 1
        return str(metric.get_signature().format())

    @property
    def _library(self) -> Any:
        return _sacrebleu(self.metric, self._settings)


class Bleu(SacreBleu):
    """BLEU (Papineni et al. 2002), tokeniser 13a unless another is given as `tokenize`, smoothing `exp`."""

    name = "BLEU"
    metric = "BLEU"
    of_one_clip = False
    width = 10

    def of_counts(self, totals: Floats) -> Floats:
        """The geometric mean of the precisions of 1- to 4-grams, times the brevity penalty.

        The k-th order of n-grams without a match counts as 1 / 2^k matches (NIST, "exp").
        """
        hypothesis, reference = totals[..., 0], totals[..., LENGTH]
        matches, ngrams = totals[..., 2:6], totals[..., 6:10]
        missed = (matches == 0) & (ngrams > 0)
        precisions = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), matches) / ngrams
        brevity = np.exp(np.minimum(0, 1 - reference / hypothesis))
        scores = brevity * np.exp(np.log(precisions).mean(axis=-1))
        return np.where((ngrams > 0).all(axis=-1) & (matches > 0).any(axis=-1), scores, 0)

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """An answer as long as the limit lets it be to an average reference, without a match."""
        length = statistics[:, LENGTH].mean()
        ngrams = np.maximum(longest * length - np.arange(4), 0)
        return np.array([longest * length, length, *np.zeros(4), *ngrams])

    def suited(self, task: Task) -> Bleu:
        """With the tokeniser of the task's target language."""
        return Bleu(tokenize=task.bleu_tokenizer) if task.bleu_tokenizer else self


class Chrf(SacreBleu):
    """chrF2 (Popović 2015): character n-grams up to 6, no words."""

    name = "chrF"
    metric = "CHRF"
    width = 18

    def of_counts(self, totals: Floats) -> Floats:
        """F2 of mean precision and mean recall over the orders of n-grams that both texts have."""
        hypothesis, reference, matches = (totals[..., column::3] for column in range(3))
        shared = (hypothesis > 0) & (reference > 0)
        precision, recall = (
            np.where(shared, matches / lengths, 0).sum(axis=-1) / shared.sum(axis=-1)
            for lengths in (hypothesis, reference)
        )
        return np.nan_to_num(5 * precision * recall / (4 * precision + recall))

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """An answer as long as the limit lets it be to an average reference, without a match."""
        reference = statistics[:, 1::3].mean(axis=0)
        ngrams = np.maximum(longest * reference[0] - np.arange(len(reference)), 0)
        return np.stack([ngrams, reference, np.zeros_like(reference)], axis=1).ravel()


SCORES = (Bleu(), Chrf())


@lru_cache(maxsize=8)
def _sacrebleu(name: str, settings: tuple[tuple[str, str], ...]) -> Any:
    from sacrebleu import metrics

    return getattr(metrics, name)(**dict(settings))
