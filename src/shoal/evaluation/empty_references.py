"""References without a word once they are normalised, such as `[laughter]`: no error rate judges what is said there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal import wording

if TYPE_CHECKING:
    from shoal.evaluation.utterance_counts import UtteranceCounts

_log = logging.getLogger("shoal.evaluation")
NAMED = 3
"""Clips of a kind that are named."""


def empty_words(count: int, clips: int, first: Sequence[str]) -> str:
    """How many of how many clips they are, the first of them, and what becomes of them."""
    verb = "is" if count == 1 else "are"
    named = wording.first_of(first, count)
    return f"{count} of {clips} references {verb} empty once normalised ({named}): left out of error rates"


def warn_of_empty_references(counts: UtteranceCounts, ids: Sequence[str]) -> None:
    """One line in the log, where there are some.

    Args:
        counts: of any system.
        ids: the clips that were counted, in their order.
    """
    empty = (counts.words.lengths == 0).nonzero()[0]
    if len(empty):
        _log.warning("%s", empty_words(len(empty), len(ids), [ids[clip] for clip in empty[:NAMED]]))
