"""What a corpus score is: statistics that add up over utterances, and a value of their sums.

Since a corpus score needs the sums only, every score has the same paired bootstrap (draw utterances, add their
statistics, score the sums), and a corpus may be scored in parts of any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
import numpy.typing as npt

from shoal._version import __version__
from shoal.evaluation.edit_counts import EditCounts, word_counts
from shoal.schema import Counts
from shoal.statistics import Floats
from shoal.tasks.base import Unit, spaced

if TYPE_CHECKING:
    from shoal.tasks import Task

OWN = f"shoal {__version__}"
"""The signature of what is counted here and not by a library."""


@dataclass(frozen=True)
class Answers:
    """What one system answered to U utterances, ready to be compared.

    Every field but the first two may be empty: nothing of that kind is known. All texts are normalised as the task
    says.
    """

    references: Sequence[str]
    """U right answers."""
    hypotheses: Sequence[str]
    """U answers written freely."""
    units: Sequence[Unit] = ()
    """What an error rate counts in each; empty: words."""
    accepted: Sequence[Sequence[str]] = ()
    """All right answers to each, the reference among them; empty: the reference alone."""
    chosen: Sequence[str | None] = ()
    """The likeliest of the answers that were allowed, None where none were scored; empty: nowhere."""
    chosen_per_byte: Sequence[str | None] = ()
    """The one with the highest log-likelihood per byte of UTF-8."""
    losses: Sequence[tuple[float, int] | None] = ()
    """Cross-entropy of the reference, teacher-forced: nats and tokens; None where not measured; empty: nowhere."""
    sources: Sequence[str | None] = ()
    """What is said, where the answer is a translation of it; None where the row does not tell; empty: nowhere."""

    def __len__(self) -> int:
        """U."""
        return len(self.references)

    @cached_property
    def words(self) -> tuple[list[str], list[str]]:
        """References and answers with a space between what WER counts."""
        return self._each_by_unit(spaced)

    @cached_property
    def characters(self) -> tuple[list[str], list[str]]:
        """References and answers as CER counts them, without white space where the script has none.

        There it was not written: a normaliser put it where a comma was.
        """
        return self._each_by_unit(lambda text, unit: "".join(text.split()) if unit == "char" else text)

    @cached_property
    def word_edits(self) -> EditCounts:
        """Edit operations on the words of each."""
        return word_counts(*self.words)

    def _each_by_unit(self, write: Callable[[str, Unit], str]) -> tuple[list[str], list[str]]:
        units: Sequence[Unit] = self.units or ["word"] * len(self)
        references, hypotheses = (
            [write(text, unit) for text, unit in zip(texts, units, strict=True)]
            for texts in (self.references, self.hypotheses)
        )
        return references, hypotheses


class Score(ABC):
    """A corpus score; instances hold no results."""

    name: ClassVar[str]
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
    @abstractmethod
    def signature(self) -> str:
        """What computed it, with its version and settings."""

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


def ratio(part: Floats, whole: Floats) -> Floats:
    """`part / whole`, NaN where there is no whole."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
