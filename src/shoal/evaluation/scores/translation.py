"""BLEU and chrF, by sacrebleu."""

from __future__ import annotations

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
        """What sacrebleu makes of every row of sums; NaN where the references hold nothing."""
        score = self._library._compute_score_from_stats
        rows = totals.reshape(-1, self.width)
        known = rows[:, LENGTH] > 0
        values = [score(row).score if there else np.nan for row, there in zip(rows.tolist(), known, strict=True)]
        return np.array(values, dtype=np.float64).reshape(totals.shape[:-1])

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

    def suited(self, task: Task) -> Bleu:
        """With the tokeniser of the task's target language."""
        return Bleu(tokenize=task.bleu_tokenizer) if task.bleu_tokenizer else self


class Chrf(SacreBleu):
    """chrF2 (Popović 2015): character n-grams up to 6, no words."""

    name = "chrF"
    metric = "CHRF"
    width = 18


SCORES = (Bleu(), Chrf())


@lru_cache(maxsize=8)
def _sacrebleu(name: str, settings: tuple[tuple[str, str], ...]) -> Any:
    from sacrebleu import metrics

    return getattr(metrics, name)(**dict(settings))
