"""Batches by duration: little padding, and the most demanding batch first."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.data.clip import Row
from shoal.errors import UsageError

MAX_BATCH_SECONDS = 480.0
"""Padded seconds of audio a batch at most; bounds memory whatever the clips' lengths."""


def batches(rows: Sequence[Row], *, max_clips: int, max_seconds: float) -> list[list[Row]]:
    """Group rows of similar length, longest first; memory therefore runs out at once or never.

    Rows of the same length are ordered by id, so the order of `rows` does not matter.

    Args:
        rows: the rows; each ends up in exactly one batch.
        max_clips: most rows in a batch.
        max_seconds: most padded seconds in a batch (longest row × rows). A row that is longer by itself is a
            batch of its own.

    Raises:
        UsageError: a limit is not above 0.
    """
    if max_clips < 1 or not max_seconds > 0:
        raise UsageError(f"a batch of {max_clips} clips and {max_seconds:g} s holds nothing", fix="give limits above 0")
    made: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: (-row.duration, row.id)):
        batch = made[-1] if made else []
        fits = len(batch) < max_clips and bool(batch) and batch[0].duration * (len(batch) + 1) <= max_seconds
        if fits:
            batch.append(row)
        else:
            made.append([row])
    return made
