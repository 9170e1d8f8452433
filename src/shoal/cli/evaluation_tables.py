"""What `shoal evaluate` prints: systems down, what the task is scored by across, then groups and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal.score_tables import data_set_table, notable_groups, overview
from shoal.tables import Table, plain

if TYPE_CHECKING:
    from shoal.schema import Scores


def summary(scores: Scores) -> list[str | Table]:
    """Everything that `shoal evaluate` prints."""
    return list(_lines(scores))


def _lines(scores: Scores) -> Iterator[str | Table]:
    data = scores.data
    yield f"{scores.model.ref}: {data.clips} clips, {data.seconds:.0f} s, task {scores.task}"
    yield overview(scores)
    for system in scores.systems:
        if system.disagreements:
            yield f"{system.name}: jiwer and kaldialign count the errors of {system.disagreements} clips differently"
    if sets := data_set_table(scores):
        yield f"{sets.caption}:"
        yield sets
    for notable in notable_groups(scores, scores.systems):
        yield plain(f"{notable.title} of {notable.system.name}: {notable.group}, {notable.score}")
    yield f"normaliser {scores.normaliser}, scorer {scores.scorer}"
