"""When an audit has heard enough: clips come in until the blocks that would be chosen no longer change.

The rule looks at the angular distance in the scope that plans are chosen by, at blocks of 1 … L/2 layers, for every
input. After 32 clips of 8 speakers, and then whenever there are half as many again, it asks of each size: in which
share of bootstrap replicates is the block that would be chosen the best one, or at most 2 % farther than the best?
Blocks that are as good as equal are never told apart, and either will do. It stops when the least of these shares is
high enough twice in a row: once may be luck (Armitage, McPherson & Rowe 1969 on repeated looks).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from shoal.errors import UsageError
from shoal.schema import Audit, Look
from shoal.schema.plan import DISTANCE_METRIC
from shoal.terms import DEFAULT_SCOPE
from shoal.wording import plural

if TYPE_CHECKING:
    from shoal.data import Row

CLIPS, SPEAKERS, GROWTH = 32, 8, 1.5
"""Of the first look: clips and, where they are known, speakers at least; and by how much each look is larger."""


def in_random_order(rows: Sequence[Row], seed: int, measured: Collection[str] = ()) -> list[Row]:
    """The rows as they come in: those that were measured before, then the others, whatever the manifest's order."""

    def place(row: Row) -> tuple[bool, bytes]:
        return row.id not in measured, hashlib.sha256(f"{seed}:{row.id}".encode()).digest()

    return sorted(rows, key=place)


def looks_at(rows: Sequence[Row], measured: int = 0) -> Iterator[int]:
    """The numbers of clips after which it looks, from the first that holds what was measured; the last is all.

    Raises:
        UsageError: there are fewer clips or speakers than for a first look.
    """
    speakers: set[str | None] = set()
    first = 0
    for first, row in enumerate(rows, 1):
        speakers.add(row.speaker)
        if first >= CLIPS and (None in speakers or len(speakers) >= SPEAKERS):
            break
    else:
        raise UsageError(
            f"that takes {CLIPS} clips of {SPEAKERS} speakers or more, and there are {plural(len(rows), 'clip')} of "
            f"{plural(len(speakers), 'speaker')}",
            where="--until",
            fix="give more clips, or leave it out",
        )
    clips = float(first)
    while clips < len(rows):
        if clips >= measured:
            yield int(clips)
        clips *= GROWTH
    yield len(rows)


def look(audit: Audit, speakers: int | None) -> Look:
    """How sure an audit's choices are."""
    shares = [
        (block.near_best_frequency or 0.0, block.n)
        for measured in audit.inputs.values()
        for block in measured.scopes[DEFAULT_SCOPE].metrics[DISTANCE_METRIC].best_keeping_last[: audit.depth // 2]
    ]
    least, n = min(shares)
    return Look(clips=audit.data.clips, speakers=speakers, least=least, n=n)


def stable(looks: Sequence[Look], target: float) -> bool:
    """Whether the last two looks were sure enough."""
    return len(looks) > 1 and all(each.least >= target for each in looks[-2:])
