"""Outputs that loop, and the clip that has most of the errors: a few clips can decide an error rate."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from shoal.statistics.arrays import Numbers

if TYPE_CHECKING:
    from shoal.evaluation.output import Output
    from shoal.evaluation.scores.base import Score

MOST_COMPRESSION = 2.4
"""What compresses better repeats itself (Radford et al. 2022, Whisper, section 4.5). Of 3,264 real transcripts and
translations none does; a short text cannot, since even an empty one compresses to 8 bytes."""
PIECE = 500
"""Characters compressed at a time, about what is said in 30 s: long ordinary text compresses better than short."""


def loops(output: Output) -> bool:
    """Whether it was stopped by the token limit, or repeats itself where its reference does not."""
    return output.truncated or (repeats(output.pred_text) and not repeats(output.text))


def repeats(text: str) -> bool:
    """Whether some of it compresses better than speech does."""
    pieces = (text[start : start + PIECE] for start in range(0, len(text), PIECE))
    return any(compression(piece) > MOST_COMPRESSION for piece in pieces)


def compression(text: str) -> float:
    """Characters over bytes once compressed by zlib.

    Every different character is one byte. In UTF-8 most scripts take several, nearly always the same first ones, and an
    ordinary Russian sentence would compress to less than a 2.4th.
    """
    numbers = {character: number % 256 for number, character in enumerate(dict.fromkeys(text))}
    letters = text.encode() if text.isascii() else bytes(numbers[character] for character in text)
    return len(letters) / len(zlib.compress(letters))


def largest_clip(score: Score, statistics: Numbers) -> tuple[int, float] | None:
    """The clip with the most errors, and its share of all; None where the score is no error rate or nothing is wrong.

    Args:
        score: what counts.
        statistics: (U, S).
    """
    if not score.counts_errors:
        return None
    errors, _, _ = score.losses(statistics.astype(np.float64))
    clip = int(np.argmax(errors))
    return (clip, float(errors[clip] / errors.sum())) if errors[clip] > 0 else None
