"""Word and character errors of every utterance, on normalised text.

Counting is per utterance, because the bootstrap needs it so; the corpus rate is the sum of the errors over
the sum of the reference lengths, not the mean of the utterances' rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jiwer
import numpy as np
import numpy.typing as npt

from shoal.schema import Counts

Ints = npt.NDArray[np.int64]
_COLUMN = {"equal": 0, "substitute": 1, "insert": 2, "delete": 3}


@dataclass(frozen=True, slots=True)
class EditCounts:
    """Edit operations of U utterances: columns hits, substitutions, insertions, deletions."""

    table: Ints
    """(U, 4)."""

    @property
    def errors(self) -> Ints:
        """(U,): substitutions + insertions + deletions."""
        return self.table[:, 1:].sum(axis=1)

    @property
    def lengths(self) -> Ints:
        """(U,): length of the reference, hits + substitutions + deletions."""
        return self.table[:, [0, 1, 3]].sum(axis=1)

    def select(self, rows: npt.NDArray[np.bool_]) -> EditCounts:
        """The counts of some utterances, given as a mask (U,)."""
        return EditCounts(self.table[rows])

    def total(self) -> Counts:
        """The sums over all utterances."""
        hits, substitutions, insertions, deletions = self.table.sum(axis=0).tolist()
        return Counts(hits=hits, substitutions=substitutions, insertions=insertions, deletions=deletions)


def scorer_name() -> str:
    """Name and version of what aligns, such as `jiwer 4.0.0`."""
    return f"jiwer {metadata.version('jiwer')}"


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Align words, split at white space.

    An empty reference adds nothing to the denominator, while every word of its hypothesis counts as an
    insertion.

    Args:
        references: U normalised texts.
        hypotheses: U normalised texts.
    """
    return _counts(jiwer.process_words, references, hypotheses)


def char_counts(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Align characters, the single spaces between words included; see `word_counts`."""
    return _counts(jiwer.process_characters, references, hypotheses)


def _counts(align: Any, references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    table = np.zeros((len(references), 4), dtype=np.int64)
    if not references:
        return EditCounts(table)
    aligned = align(
        [_single_spaced(text) for text in references], [_single_spaced(text) for text in hypotheses]
    )
    for row, chunks in enumerate(aligned.alignments):
        for chunk in chunks:
            table[row, _COLUMN[chunk.type]] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
    return EditCounts(table)


def _single_spaced(text: str) -> str:
    return " ".join(text.split())
