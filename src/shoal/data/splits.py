"""Two sets of clips: one that plans are chosen on, one that the choice has not seen."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from shoal.data import Dataset, Row
from shoal.errors import UsageError
from shoal.schema import DataInfo


@dataclass(frozen=True)
class Split:
    """Measuring and choosing happen on `validation`, the test on `confirmation`."""

    validation: Dataset
    confirmation: Dataset

    @property
    def shared_speakers(self) -> int:
        """How many known speakers have clips in both."""
        return len(_speakers(self.validation.rows) & _speakers(self.confirmation.rows))

    def info(self) -> DataInfo:
        """All clips that are used, for the record."""
        first, second = self.validation, self.confirmation
        manifests = list(dict.fromkeys(first.manifests + second.manifests))
        skipped = first.skipped if first.skipped is second.skipped else first.skipped + second.skipped
        return Dataset(manifests, [*first.rows, *second.rows], skipped).info()


def split(data: Dataset, seed: int) -> Split:
    """Split a data set in half; see `split_rows`.

    The halves share the record of bad rows, so that `max_bad` still counts those of both.

    Raises:
        UsageError: fewer than two clips.
    """
    first, second = split_rows(data.rows, seed)
    return Split(replace(data, rows=first), replace(data, rows=second))


def as_given(data: Dataset, confirm_data: Dataset) -> Split:
    """Two data sets as they are.

    Raises:
        UsageError: a clip is in both.
    """
    both = set(map(_clip, data.rows)) & set(map(_clip, confirm_data.rows))
    if both:
        name = min(str(clip[0]) for clip in both)
        raise UsageError(
            f"{len(both)} clips are in --data too, such as {name}",
            where="--confirm-data",
            fix="give clips that plans are not chosen on",
        )
    return Split(data, confirm_data)


def split_rows(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Halves of about as many clips each, in the order of `rows`; the larger one first.

    A speaker is in one half only, unless there is no more than one. A clip without a speaker counts as one by itself.
    The draw depends on the seed and on which rows there are, not on their order.

    Raises:
        UsageError: fewer than two rows.
    """
    if len(rows) < 2:
        raise UsageError(
            f"{len(rows)} clip cannot be split into validation and confirmation",
            where="--data",
            fix="give more clips, or others with --confirm-data",
        )
    first = _half(_groups(rows), seed)
    halves = [row for row in rows if row.id in first], [row for row in rows if row.id not in first]
    return halves if len(halves[0]) >= len(halves[1]) else (halves[1], halves[0])


def _groups(rows: Iterable[Row]) -> list[list[str]]:
    """Ids that stay together, sorted."""
    by_speaker: dict[tuple[str, str], list[str]] = {}
    alone = [[row.id] for row in rows]
    for row in rows:
        key = ("clip", row.id) if row.speaker is None else ("speaker", row.speaker)
        by_speaker.setdefault(key, []).append(row.id)
    return sorted(map(sorted, by_speaker.values() if len(by_speaker) > 1 else alone))


def _half(groups: list[list[str]], seed: int) -> set[str]:
    """The largest group goes to the emptier side, and so on; equal groups in an order that is drawn."""
    random.Random(seed).shuffle(groups)
    sides: tuple[set[str], set[str]] = (set(), set())
    for group in sorted(groups, key=len, reverse=True):
        min(sides, key=len).update(group)
    return sides[0]


def _speakers(rows: Iterable[Row]) -> set[str]:
    return {row.speaker for row in rows if row.speaker is not None}


def _clip(row: Row) -> tuple[object, ...]:
    return (row.audio.absolute(), row.offset, row.duration, row.text)
