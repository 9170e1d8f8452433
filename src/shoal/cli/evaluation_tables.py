"""What `shoal evaluate` prints: systems down, what the task is scored by across, then groups and data sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from shoal import wording
from shoal.score_tables import data_set_table, group_table, notable_groups, overview
from shoal.tables import Table, plain

if TYPE_CHECKING:
    from shoal.schema import Scores


def summary(scores: Scores, fields: Sequence[str] = ()) -> list[str | Table]:
    """Everything that `shoal evaluate` prints, with a table of the groups of each of the fields."""
    return list(_lines(scores, fields))


def _lines(scores: Scores, fields: Sequence[str]) -> Iterator[str | Table]:
    data = scores.data
    yield f"{scores.model.ref}: {data.clips} clips, {data.seconds:.0f} s, task {scores.task}"
    yield overview(scores)
    for system in scores.systems:
        if system.disagreements:
            yield f"{system.name}: jiwer and kaldialign count the errors of {system.disagreements} clips differently"
    if empty := scores.systems[0].empty_reference_clips:
        count, words = scores.systems[0].empty_references, scores.systems[0].words_without_reference
        yield (
            f"{count} of {data.clips} references are empty once normalised ({', '.join(empty)}"
            f"{', …' if count > len(empty) else ''}): whatever is said there counts as inserted, "
            f"{wording.plural(words, 'word')} of {scores.systems[0].name}"
        )
    if sets := data_set_table(scores):
        yield f"{sets.caption}:"
        yield sets
    for field in fields:
        groups = group_table(scores, field)
        yield f"{groups.caption}:"
        yield groups
    for notable in notable_groups(scores, scores.systems):
        yield plain(f"{notable.title} of {notable.system.name}: {notable.group}, {notable.score}")
    yield f"normaliser {scores.normaliser}, scorer {scores.scorer}"
