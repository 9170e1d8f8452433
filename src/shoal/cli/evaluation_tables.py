"""Scores as text for a terminal: systems down, what the task is scored by across, then groups and data sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal import wording
from shoal.cli.printing import Table
from shoal.data_names import DATA, DOMAIN, set_columns, set_name

if TYPE_CHECKING:
    from shoal.schema import Delta, Estimate, MeasuredScore, Scores, SystemScores


def summary(scores: Scores) -> list[str | Table]:
    """Everything that `shoal evaluate` prints."""
    data = scores.data
    return [
        f"{scores.model.ref}: {data.clips} clips, {data.seconds:.0f} s, task {scores.task}",
        Table(_headings(scores), [_cells(scores, system) for system in scores.systems]),
        *_disagreements(scores),
        *sets(scores),
        *worst_groups(scores),
        *most_worsened(scores),
        f"normaliser {scores.normaliser}, scorer {scores.scorer}",
    ]


def _headings(scores: Scores) -> list[str]:
    p = "p (Holm)" if scores.corrected else "p"
    first, *others = (f"{name} %" if fraction else name for name, fraction in _columns(scores).items())
    return ["system", "removed", first, "relative %", p, *others, *_kinds_of_edits(scores), "cut off"]


def _columns(scores: Scores) -> dict[str, bool]:
    """What the document is scored by, the headline first, and whether 1 is a hundred per cent."""
    measures = {name: score.fraction for system in scores.systems for name, score in system.measures.items()}
    return measures or {"score": False}


def _kinds_of_edits(scores: Scores) -> list[str]:
    headline = scores.headline_of(scores.systems[0])
    return ["ins/del/sub"] if headline is not None and headline.edits is not None else []


def _cells(scores: Scores, system: SystemScores) -> list[str]:
    first, *others = (system.measures.get(name) for name in _columns(scores))
    change = _change(first.delta if first else None, holm=scores.corrected)
    edits = first.edits if first else None
    counts = [f"{edits.insertions}/{edits.deletions}/{edits.substitutions}"] if edits else []
    values = [_value(score) for score in others]
    return [
        system.name,
        str(len(system.removed)),
        _value(first),
        *change,
        *values,
        *counts,
        str(system.truncated),
    ]


def _value(score: MeasuredScore | None) -> str:
    return "" if score is None else _points(score.value, score.fraction)


def _points(value: Estimate, fraction: bool = True, form: str = ".1f") -> str:
    if not fraction and form == ".1f" and not 10 <= value.value < 1000:
        form = ".3g"  # losses are small, perplexities of whole words huge
    return wording.plain(value, form, scale=100 if fraction else 1)


def _change(delta: Delta | None, *, holm: bool) -> list[str]:
    """Relative difference and p-value."""
    p_value = None if delta is None else delta.p_holm if holm else delta.p_value
    return [_relative(delta), "" if p_value is None else f"{p_value:.3f}"]


def _relative(delta: Delta | None) -> str:
    relative = delta.relative if delta else None
    return "" if relative is None else _points(relative, form="+.1f")


def _disagreements(scores: Scores) -> list[str]:
    return [
        f"{system.name}: jiwer and kaldialign count the errors of {system.disagreements} clips differently"
        for system in scores.systems
        if system.disagreements
    ]


def sets(scores: Scores) -> list[str | Table]:
    """A table of systems by data sets, those out of domain last, and the pooled figures."""
    columns = set_columns(scores)
    if not columns:
        return []
    headings = ["system"]
    for field, value in columns:
        clips = scores.systems[0].groups[field][value].clips
        headings += [f"{set_name(scores, field, value)} ({clips} clips)", "relative %"]
    rows = [[system.name, *_set_cells(scores, system, columns)] for system in scores.systems]
    return [f"{scores.headline} by data set:", Table(headings, rows)]


def _set_cells(scores: Scores, system: SystemScores, columns: list[tuple[str, str]]) -> Iterator[str]:
    for field, value in columns:
        group = system.groups.get(field, {}).get(value)
        score = scores.headline_of(group) if group else None
        yield from (_value(score), _relative(score.delta if score else None))


def worst_groups(scores: Scores) -> list[str]:
    """One line for every field and system: the group that fares worst."""
    return [
        f"worst {field} of {system.name}: {value}, {scores.headline} {_value(score)}"
        f"{' %' if score.fraction else ''}, {group.clips} clips"
        for system in scores.systems
        for field, value in system.worst_group.items()
        if field not in (DATA, DOMAIN)
        and (score := scores.headline_of(group := system.groups[field][value])) is not None
    ]


def most_worsened(scores: Scores) -> list[str]:
    """One line for every field and system: the group that lost most, beside what all clips lost."""
    return [
        _worsened(scores, system, field, value)
        for system in scores.systems
        for field, value in system.most_worsened.items()
    ]


def _worsened(scores: Scores, system: SystemScores, field: str, value: str) -> str:
    there, overall = scores.headline_of(system.groups[field][value]), scores.headline_of(system)
    if there is None or there.delta is None or overall is None or overall.delta is None:
        return ""
    p_holm = there.delta.p_holm
    chance = "" if p_holm is None else f" (p {p_holm:.3f} after Holm over the groups)"
    return (
        f"most worsened {'data set' if field == DATA else field} of {system.name}: {value}, {scores.headline}"
        f" {_points(there.delta.absolute, there.fraction, '+.1f')} points{chance};"
        f" all clips {_points(overall.delta.absolute, overall.fraction, '+.1f')}"
    )
