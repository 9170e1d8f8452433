"""What a corpus score is: statistics that add up over utterances, and a value of their sums.

Since a corpus score needs the sums only, every score has the same paired bootstrap (draw utterances, add their
statistics, score the sums), and a corpus may be scored in parts of any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import numpy.typing as npt

from shoal._version import __version__
from shoal.evaluation.scores.answers import Answers
from shoal.schema import Counts
from shoal.statistics import Floats

if TYPE_CHECKING:
    from shoal.tasks import Task

OWN = f"shoal {__version__}"
"""The signature of what is counted here and not by a library."""


class Score(ABC):
    """A corpus score; instances hold no results."""

    name: str
    higher_is_better: ClassVar[bool]
    fraction: ClassVar[bool] = True
    """Whether 1 is a hundred per cent; else the score is given as it is (BLEU on 0-100, perplexity above 1)."""
    of_one_clip: ClassVar[bool] = True
    """Whether the score of a single utterance means something; BLEU's does not."""

    @abstractmethod
    def statistics(self, answers: Answers) -> Floats:
        """What each of U utterances adds to the corpus.

        Returns:
            (U, S), additive over utterances; zeros for one that the score cannot judge.
        """

    @abstractmethod
    def value(self, totals: Floats) -> Floats:
        """The corpus score (...) from summed statistics (..., S); NaN where it is undefined."""

    @property
    def counts_errors(self) -> bool:
        """Whether it is a rate of errors."""
        return self.fraction and not self.higher_is_better

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest score there can be."""
        if self.higher_is_better:
            return 0.0, 1.0 if self.fraction else 100.0
        return 0.0, np.inf

    @property
    def signature(self) -> str:
        """What computed it, with its version and settings."""
        return OWN

    def edits(self, totals: Floats) -> Counts | None:
        """The edit operations in summed statistics (S,), where the score counts some."""
        del totals
        return None

    def losses(self, statistics: Floats) -> tuple[Floats, npt.NDArray[np.int64], str]:
        """What each utterance loses by the score, in numbers that add up over utterances.

        Args:
            statistics: (U, S).

        Returns:
            Losses (U,), what they are counted in (U,), and what the ratio of their sums is called. Unless a score knows
            better, a clip loses what its own score lacks of the best; one that cannot be judged loses everything.
        """
        best = 1.0 if self.fraction else 100.0
        reached = np.nan_to_num(self.value(statistics)) / best
        return 1 - reached, np.ones(len(statistics), dtype=np.int64), f"1 - {self.name}"

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """What a clip that nobody has seen adds if everything goes wrong on it (S,).

        Args:
            statistics: (U, S), of the clips that were seen.
            longest: how many times as long as an average answer the token limit lets one be.

        Unless a score has a bound, it is the clip that is worst among those that were seen.
        """
        del longest
        lost, counted, _ = self.losses(statistics)
        return statistics[np.argmax(lost - lost.sum() / max(1, counted.sum()) * counted)]

    def suited(self, task: Task) -> Score:
        """The same score with the settings that `task` needs; most need none."""
        del task
        return self

    def over(self, labels: Iterable[str]) -> Self:
        """The same score with `labels`, normalised, for the columns of its statistics.

        Only averages over labels differ; they need it where a corpus is scored in parts, for statistics of different
        parts to add up.
        """
        del labels
        return self


class MeanScore(Score):
    """A mean over utterances: statistics are what each reaches, up to 1, and how many it counts as."""

    def value(self, totals: Floats) -> Floats:
        """What is reached over how many there are."""
        return ratio(totals[..., 0], totals[..., 1])

    def losses(self, statistics: Floats) -> tuple[Floats, npt.NDArray[np.int64], str]:
        """What each lacks, and how many it counts as."""
        reached, counted = statistics.T
        return counted - reached, counted.astype(np.int64), "error rate"

    def worst_clip(self, statistics: Floats, longest: float) -> Floats:
        """Nothing is reached."""
        del statistics, longest
        return np.array([0.0, 1.0])


def ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, NaN where there is no whole."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
