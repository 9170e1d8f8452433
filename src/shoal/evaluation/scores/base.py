"""What a corpus score is: statistics that add up over utterances, and a value of their sums.

Since a corpus score needs the sums only, every score has the same paired bootstrap (draw utterances, add their
statistics, score the sums), and a corpus may be scored in parts of any size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from shoal._version import __version__
from shoal.statistics import Floats
from shoal.tasks.base import Unit

if TYPE_CHECKING:
    from shoal.tasks import Task

OWN = f"shoal {__version__}"
"""The signature of what is counted here and not by a library."""


@dataclass(frozen=True, slots=True)
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


class Score(ABC):
    """A corpus score; instances hold no results."""

    name: ClassVar[str]
    higher_is_better: ClassVar[bool]
    fraction: ClassVar[bool] = True
    """Whether 1 is a hundred per cent; else the score is given as it is (BLEU on 0-100, perplexity above 1)."""

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
