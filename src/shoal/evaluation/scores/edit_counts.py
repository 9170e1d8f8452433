"""Word and character errors of every utterance, on normalised text.

Counting is per utterance, because the bootstrap needs it so; the corpus rate is the sum of the errors over
the sum of the reference lengths, not the mean of the utterances' rates. jiwer counts; kaldialign counts again, so
that a fault of either shows, and counts with compounds merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import jiwer
import kaldialign
import numpy as np
import numpy.typing as npt

from shoal.schema import Counts

Ints = npt.NDArray[np.int64]
Table = npt.NDArray[np.signedinteger[Any]]
_COLUMN = {"equal": 0, "substitute": 1, "insert": 2, "delete": 3}


@dataclass(frozen=True, slots=True)
class EditCounts:
    """Edit operations of U utterances: columns hits, substitutions, insertions, deletions."""

    table: Table
    """(U, 4)."""

    @property
    def errors(self) -> Ints:
        """(U,): substitutions + insertions + deletions."""
        return self.table[:, 1:].sum(axis=1, dtype=np.int64)

    @property
    def lengths(self) -> Ints:
        """(U,): length of the reference, hits + substitutions + deletions."""
        return self.table[:, [0, 1, 3]].sum(axis=1, dtype=np.int64)

    def select(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> EditCounts:
        """The counts of some utterances, given as a mask (U,) or by their indices."""
        return EditCounts(self.table[rows])

    def total(self) -> Counts:
        """The sums over all utterances."""
        hits, substitutions, insertions, deletions = self.table.sum(axis=0, dtype=np.int64).tolist()
        return Counts(hits=hits, substitutions=substitutions, insertions=insertions, deletions=deletions)


def scorer_name() -> str:
    """Name and version of what aligns, such as `jiwer 4.0.0`."""
    return f"jiwer {metadata.version('jiwer')}"


def second_scorer_name() -> str:
    """Name and version of what counts again and merges compounds, such as `kaldialign 0.12.0`."""
    return f"kaldialign {metadata.version('kaldialign')}"


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Align words, split at white space.

    An empty reference has no length, and every word of its hypothesis is an insertion; error rates leave it out.

    Args:
        references: U normalised texts.
        hypotheses: U normalised texts.
    """
    return _counts(jiwer.process_words, references, hypotheses)


def char_counts(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Align characters, the single spaces between words included; see `word_counts`."""
    return _counts(jiwer.process_characters, references, hypotheses)


def word_errors_again(references: Sequence[str], hypotheses: Sequence[str]) -> Ints:
    """Word errors (U,) as kaldialign counts them: those of `word_counts`, or one of the two is wrong."""
    return _kaldi_errors(references, hypotheses, merge_compounds=False)


def compound_errors(references: Sequence[str], hypotheses: Sequence[str]) -> Ints:
    """Word errors (U,) where adjacent words of either text may be joined to match one word of the other for nothing.

    The length of a reference stays the number of its words: "white paper" for "whitepaper" is no error, and the
    reference still has as many words as it is written with.

    Args:
        references: U normalised texts.
        hypotheses: U normalised texts.
    """
    return _kaldi_errors(references, hypotheses, merge_compounds=True)


def _kaldi_errors(references: Sequence[str], hypotheses: Sequence[str], *, merge_compounds: bool) -> Ints:
    pairs = zip(references, hypotheses, strict=True)
    errors = (
        kaldialign.edit_distance(reference.split(), hypothesis.split(), merge_compounds=merge_compounds)["total"]
        for reference, hypothesis in pairs
    )
    return np.fromiter(errors, np.int64, len(references))


def _counts(align: Any, references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    table = np.zeros((len(references), 4), dtype=np.int64)
    if not references:
        return EditCounts(table)
    aligned = align([_single_spaced(text) for text in references], [_single_spaced(text) for text in hypotheses])
    for row, chunks in enumerate(aligned.alignments):
        for chunk in chunks:
            table[row, _COLUMN[chunk.type]] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
    return EditCounts(table)


def _single_spaced(text: str) -> str:
    return " ".join(text.split())
