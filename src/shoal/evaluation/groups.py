"""Scores of the clips that share a value of a manifest field: speaker, sex, accent, data set.

An average hides who pays: the error rate of a corpus may fall while that of one group rises. So of every field the
group that fares worst is named, and the one whose score worsened most against its own baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shoal.data_names import DATA, DOMAIN
from shoal.errors import UsageError
from shoal.evaluation.paired_scores import Clips, PairedScores
from shoal.evaluation.significance import PairedBootstrap, correct
from shoal.evaluation.utterance_counts import ClipTable, UtteranceCounts
from shoal.schema import GroupScore, SystemScores
from shoal.settings import Intervals, did_you_mean

if TYPE_CHECKING:
    from shoal.data import Row
    from shoal.evaluation.scores.base import Score
    from shoal.evaluation.settings import ScoringSettings

MIN_GROUP_CLIPS = 20
MIN_GROUP_WORDS = 30
"""A group with fewer clips or reference words is scored but never named: its score is chance."""
MOST_AGES = 10
"""More different ages than this are put into bands of ten years."""
INSIDE, OUTSIDE = "in", "out"


@dataclass(frozen=True, slots=True)
class Grouping:
    """A field and the clips of each of its values."""

    field: str
    members: dict[str, Clips]
    """Value → its clips, values in order."""


def noted_fields(group_by: Sequence[str] | None) -> list[str]:
    """The fields whose values decide the groups."""
    return list(dict.fromkeys(["speaker", DATA] if group_by is None else [*group_by, DATA]))


def groupings(clips: ClipTable, group_by: Sequence[str] | None, out_of_domain: Sequence[str]) -> list[Grouping]:
    """What to score by.

    Args:
        clips: with the values of `noted_fields`.
        group_by: manifest fields; None is the speaker where there are several. The data set is added where there are
            several, except for an empty list.
        out_of_domain: names of data sets; those and all others are pooled too.

    Raises:
        UsageError: no clip has a field, or there is no such data set.
    """
    fields = [field for field in ("speaker",) if _several(clips, field)] if group_by is None else list(group_by)
    if DATA not in fields and group_by != [] and group_by != () and _several(clips, DATA):
        fields.append(DATA)
    by_field = [_grouping(clips, field) for field in dict.fromkeys(fields)]
    if out_of_domain:
        by_field = [grouping for grouping in by_field if grouping.field != DOMAIN]
        by_field.append(_domains(clips, out_of_domain))
    return by_field


def _several(clips: ClipTable, field: str) -> bool:
    return len(set(clips.values[field]) - {None}) > 1


def _grouping(clips: ClipTable, field: str) -> Grouping:
    values = clips.values[field]
    if all(value is None for value in values):
        raise _no_field(field, clips.known)
    return Grouping(field, _members(_age_bands(values) if field == "age" else values))


def _members(values: Sequence[str | None]) -> dict[str, Clips]:
    members: dict[str, list[int]] = {}
    for clip, value in enumerate(values):
        if value is not None:
            members.setdefault(value, []).append(clip)
    return {value: np.array(members[value], dtype=np.intp) for value in sorted(members)}


def _age_bands(values: Sequence[str | None]) -> list[str | None]:
    """Ages in years as bands of ten, `20-29`, where there are many; words such as `twenties` stay as they are."""
    ages = {value: _number(value) for value in set(values) if value is not None}
    if len(ages) <= MOST_AGES or any(age is None for age in ages.values()):
        return list(values)
    decades = {value: 10 * int(age // 10) for value, age in ages.items() if age is not None}
    bands = {value: f"{decade}-{decade + 9}" for value, decade in decades.items()}
    return [None if value is None else bands[value] for value in values]


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def check_fields(group_by: Sequence[str] | None, rows: Iterable[Row]) -> None:
    """Make sure, before anything is decoded, that there is something to group by.

    Raises:
        UsageError: no row has a field.
    """
    missing = set(group_by or ()) - {"speaker", "lang", DATA, DOMAIN}
    known: set[str] = set()
    for row in rows if missing else ():
        present = {name for name, value in row.fields.items() if value is not None}
        known |= present
        missing -= present
        if not missing:
            return
    for field in sorted(missing):
        raise _no_field(field, known | {"speaker", "lang", DATA})


def _no_field(field: str, known: Set[str]) -> UsageError:
    fix = f"{did_you_mean(field, known)}fields are {', '.join(sorted(known))}"
    return UsageError(f"no clip has the field {field!r}", where="--group-by", fix=fix)


def check_groups(settings: ScoringSettings, rows: Sequence[Row]) -> None:
    """Make sure that there is what shall be scored apart.

    Raises:
        UsageError: no row has a field to group by, or no row is of a data set that is said to be out of domain.
    """
    check_fields(settings.group_by, rows)
    if settings.out_of_domain:
        check_sets(settings.out_of_domain, {row.data for row in rows})


def check_sets(out_of_domain: Sequence[str], known: Set[str]) -> None:
    """Make sure that data sets which are said to be out of domain are there.

    Raises:
        UsageError: one is not.
    """
    for name in out_of_domain:
        if name not in known:
            sets = f"{did_you_mean(name, known)}sets are {', '.join(sorted(known))}"
            fix = sets if known else "these outputs do not say their data set"
            raise UsageError(f"no clip is of the data set {name!r}", where="--out-of-domain", fix=fix)


def _domains(clips: ClipTable, out_of_domain: Sequence[str]) -> Grouping:
    sets = clips.values[DATA]
    check_sets(out_of_domain, {name for name in sets if name is not None})
    pooled = [None if name is None else OUTSIDE if name in out_of_domain else INSIDE for name in sets]
    return Grouping(DOMAIN, _members(pooled))


def add_groups(
    systems: Sequence[SystemScores],
    scores: Sequence[Score],
    counts: Sequence[UtteranceCounts],
    clips: ClipTable,
    grouping: Grouping,
    intervals: Intervals,
) -> None:
    """Add the groups of a field to every system; those without a reference word have no score."""
    field, words, tests = grouping.field, counts[0].words.lengths, len(grouping.members)
    if field == "speaker":
        intervals = intervals.model_copy(update={"cluster": "utterance"})
    for system in systems:
        system.groups[field] = {}
    for value, members in grouping.members.items():
        if words[members].sum():
            bootstrap = PairedBootstrap.of(intervals, [clips.speakers[clip] for clip in members], tests=tests)
            measures = PairedScores.of(scores, counts, bootstrap, members).measures()
            for system, of_system in zip(systems, measures or [{} for _ in systems], strict=True):
                system.groups[field][value] = GroupScore(clips=len(members), measures=of_system)
    large = [
        value
        for value in systems[0].groups[field]
        if len(grouping.members[value]) >= MIN_GROUP_CLIPS and words[grouping.members[value]].sum() >= MIN_GROUP_WORDS
    ]
    for system in systems if field != DOMAIN else ():
        _name_groups(system, field, large, scores[0].name)


def _name_groups(system: SystemScores, field: str, large: Sequence[str], headline: str) -> None:
    """Name the worst of the large groups and the one that lost most; fewer than two cannot be compared."""
    measures = {value: system.groups[field][value].measures for value in large}
    judged = {value: scores[headline] for value, scores in measures.items() if headline in scores}
    if len(judged) < 2:
        return
    correct(score.delta for score in judged.values())
    losses = {value: score.sign * score.delta.absolute.value for value, score in judged.items() if score.delta}
    lost = {value: loss for value, loss in losses.items() if loss > 0}
    system.worst_group[field] = max(judged, key=lambda value: (judged[value].sign * judged[value].value.value, value))
    if lost:
        system.most_worsened[field] = max(lost, key=lambda value: (lost[value], value))
