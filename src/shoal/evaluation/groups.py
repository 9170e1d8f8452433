"""Scores of the clips that share a value of a manifest field: speaker, sex, accent, data set.

An average hides who pays: the error rate of a corpus may fall while that of one group rises. So of every field the
group that fares worst is named, and the one whose score worsened most against its own baseline.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shoal.data_names import DATA, DOMAIN
from shoal.errors import UsageError
from shoal.evaluation.rating import Judge
from shoal.evaluation.significance import correct
from shoal.evaluation.utterance_counts import ClipTable, UtteranceCounts
from shoal.schema import Delta, GroupScore

if TYPE_CHECKING:
    from shoal.data import Row

MIN_GROUP_CLIPS = 5
MIN_GROUP_WORDS = 30
"""A group with fewer clips or reference words is scored but never named: its score is chance."""
MOST_AGES = 10
"""More different ages than this are put into bands of ten years."""
INSIDE, OUTSIDE = "in", "out"


@dataclass(frozen=True, slots=True)
class Grouping:
    """A field and the clips of each of its values."""

    field: str
    members: dict[str, npt.NDArray[np.intp]]
    """Value → places of its clips, values in order."""


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The groups of one field under one system."""

    scores: dict[str, GroupScore]
    worst: str | None = None
    most_worsened: str | None = None


def noted_fields(group_by: Sequence[str] | None) -> list[str]:
    """The fields whose values decide the groups."""
    return list(dict.fromkeys(["speaker", DATA] if group_by is None else [*group_by, DATA]))


def groupings(
    clips: ClipTable, group_by: Sequence[str] | None, out_of_domain: Sequence[str]
) -> list[Grouping]:
    """What to score by.

    Args:
        clips: with the values of `noted_fields`.
        group_by: manifest fields; None is the speaker where there are several. The data set is added where there are
            several, except for an empty list.
        out_of_domain: names of data sets; those and all others are pooled too.

    Raises:
        UsageError: no clip has a field, or there is no such data set.
    """
    fields = (
        [field for field in ("speaker",) if _several(clips, field)] if group_by is None else list(group_by)
    )
    if DATA not in fields and group_by != [] and group_by != () and _several(clips, DATA):
        fields.append(DATA)
    found = [_grouping(clips, field) for field in dict.fromkeys(fields)]
    if out_of_domain:
        found = [*(each for each in found if each.field != DOMAIN), _domains(clips, out_of_domain)]
    return found


def _several(clips: ClipTable, field: str) -> bool:
    return len(set(clips.values[field]) - {None}) > 1


def _grouping(clips: ClipTable, field: str) -> Grouping:
    values = clips.values[field]
    if all(value is None for value in values):
        raise _no_field(field, clips.known)
    return Grouping(field, _members(_age_bands(values) if field == "age" else values))


def _members(values: Sequence[str | None]) -> dict[str, npt.NDArray[np.intp]]:
    places: dict[str, list[int]] = {}
    for place, value in enumerate(values):
        if value is not None:
            places.setdefault(value, []).append(place)
    return {value: np.array(places[value], dtype=np.intp) for value in sorted(places)}


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
    wanted = set(group_by or ()) - {"speaker", "lang", DATA, DOMAIN}
    known: set[str] = set()
    for row in rows if wanted else ():
        present = {name for name, value in row.fields.items() if value is not None}
        known |= present
        wanted -= present
        if not wanted:
            return
    for field in sorted(wanted):
        raise _no_field(field, known | {"speaker", "lang", DATA})


def _no_field(field: str, known: Set[str]) -> UsageError:
    fix = f"fields are {', '.join(sorted(known))}"
    return UsageError(f"no clip has the field {field!r}", where="--group-by", fix=fix)


def check_sets(out_of_domain: Sequence[str], known: Set[str]) -> None:
    """Make sure that data sets which are said to be out of domain are there.

    Raises:
        UsageError: one is not.
    """
    for name in out_of_domain:
        if name not in known:
            there = (
                f"sets are {', '.join(sorted(known))}" if known else "these outputs do not say their data set"
            )
            raise UsageError(f"no clip is of the data set {name!r}", where="--out-of-domain", fix=there)


def _domains(clips: ClipTable, out_of_domain: Sequence[str]) -> Grouping:
    sets = clips.values[DATA]
    check_sets(out_of_domain, {name for name in sets if name is not None})
    pooled = [None if name is None else OUTSIDE if name in out_of_domain else INSIDE for name in sets]
    return Grouping(DOMAIN, _members(pooled))


def score_groups(
    tallies: Sequence[UtteranceCounts], clips: ClipTable, grouping: Grouping, judge: Judge
) -> list[GroupScores]:
    """For every system the groups of a field; those without a reference word have no score."""
    found: list[dict[str, GroupScore]] = [{} for _ in tallies]
    for value, places in grouping.members.items():
        if tallies[0].words.select(places).lengths.sum():
            for scores, score in zip(found, _score_group(tallies, clips, places, judge), strict=True):
                scores[value] = score
    lengths = tallies[0].words.lengths
    large = [
        value
        for value in found[0]
        if len(grouping.members[value]) >= MIN_GROUP_CLIPS
        and lengths[grouping.members[value]].sum() >= MIN_GROUP_WORDS
    ]
    return [_named(scores, large if grouping.field != DOMAIN else [], judge) for scores in found]


def _score_group(
    tallies: Sequence[UtteranceCounts], clips: ClipTable, places: npt.NDArray[np.intp], judge: Judge
) -> list[GroupScore]:
    rating = judge.rate(tallies, clips, places)
    wer = rating.word_errors()
    return [
        GroupScore(
            clips=len(places),
            wer=rating.bootstrap.estimate(rates),
            delta=rating.bootstrap.delta(rates, wer[0]) if place else None,
            measures=measures,
        )
        for place, (rates, measures) in enumerate(zip(wer, rating.measures(), strict=True))
    ]


def _named(scores: Mapping[str, GroupScore], large: Sequence[str], judge: Judge) -> GroupScores:
    """The worst of the large groups and the one that lost most; fewer than two cannot be compared."""
    judged = {value: main for value in large if (main := headline(scores[value], judge)) is not None}
    if len(judged) < 2:
        return GroupScores(dict(scores))
    correct(main.delta for main in judged.values())
    losses = {value: main.loss for value, main in judged.items() if main.loss is not None and main.loss > 0}
    return GroupScores(
        dict(scores),
        worst=max(judged, key=lambda value: (judged[value].badness, value)),
        most_worsened=max(losses, key=lambda value: (losses[value], value)) if losses else None,
    )


@dataclass(frozen=True, slots=True)
class GroupHeadline:
    """The one score of a group that stands for it."""

    badness: float
    """The score, turned so that more is worse."""
    delta: Delta | None
    sign: int

    @property
    def loss(self) -> float | None:
        """How much worse it is than its own baseline, in the unit of the score."""
        return None if self.delta is None else self.sign * self.delta.absolute.value


def headline(score: GroupScore, judge: Judge) -> GroupHeadline | None:
    """What a group is judged by; None where its clips hold nothing to judge by."""
    if not judge.measures:
        return GroupHeadline(score.wer.value, score.delta, 1)
    found = score.measures.get(judge.measures[0].name)
    if found is None:
        return None
    sign = -1 if found.higher_is_better else 1
    return GroupHeadline(sign * found.value.value, found.delta, sign)
