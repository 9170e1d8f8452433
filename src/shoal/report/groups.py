"""Groups of clips: which fares worst, which lost most, and the data sets side by side."""

from __future__ import annotations

from typing import Any

from shoal import wording
from shoal.data_names import DATA, DOMAIN, set_columns, set_name
from shoal.report.main_score import MainScore, change_text, group_score, main_score
from shoal.report.parts import Table
from shoal.schema import Delta, Scores, SystemScores

DATA_NAME = "data set"


def view(scores: Scores) -> dict[str, Any]:
    """What the template shows of groups."""
    return {"sets": sets(scores), "groups": tables(scores), "unfair": unfair(scores)}


def tables(scores: Scores) -> list[Table]:
    """One table for each field that clips were grouped by, data sets apart; see `sets`."""
    fields = dict.fromkeys(field for system in scores.systems for field in system.groups)
    return [_table(scores, field) for field in fields if field not in (DATA, DOMAIN)]


def _table(scores: Scores, field: str) -> Table:
    systems = [system for system in scores.systems if system.groups.get(field)]
    count = max(len(system.groups[field]) for system in systems)
    name = _score_name(scores)
    return Table(
        caption=f"Worst group by “{field}” ({wording.plural(count, 'group')})",
        columns=[
            "System",
            "Worst group",
            "Clips",
            f"{name} there",
            f"{name} overall",
            "Lost most",
            "Change there",
            "p after Holm",
            "Change overall",
        ],
        rows=[_row(scores, system, field) for system in systems],
        highlight=frozenset({0}),
        text_columns=frozenset({1, 5}),
    )


def _row(scores: Scores, system: SystemScores, field: str) -> list[str]:
    worst, lost = system.worst_group.get(field), system.most_worsened.get(field)
    there, overall = _score_of(scores, system, field, worst), main_score(scores, system)
    lost_there = _score_of(scores, system, field, lost)
    return [
        system.name,
        # Without a score of the task, the group was named by its rate of edits, which is no error there.
        worst if worst and there else "–",
        str(system.groups[field][worst].clips) if worst and there else "–",
        there.text if there else "–",
        overall.text if overall else "–",
        lost or "–",
        change_text(lost_there),
        wording.p_value(lost_there.delta.p_holm if lost_there and lost_there.delta else None),
        change_text(overall),
    ]


def _score_of(scores: Scores, system: SystemScores, field: str, value: str | None) -> MainScore | None:
    group = None if value is None else system.groups.get(field, {}).get(value)
    return None if group is None else group_score(scores, group)


def unfair(scores: Scores) -> list[str]:
    """A sentence wherever all clips together lost nothing, and yet a group of them did, beyond chance."""
    found = (
        (system, field, value, _score_of(scores, system, field, value), main_score(scores, system))
        for system in scores.systems
        for field, value in system.most_worsened.items()
    )
    return [
        f"{system.name} did not get worse on all clips together ({overall.name} {change_text(overall)}), and yet "
        f"it did for the {DATA_NAME if field == DATA else field} “{value}”: {change_text(there)} "
        f"(p {wording.p_value(there.delta.p_holm)} after Holm’s correction over the groups)."
        for system, field, value, there, overall in found
        if there is not None
        and there.delta is not None
        and overall is not None
        and not _lost(overall)
        and there.delta.p_holm is not None
        and there.delta.p_holm <= 1 - scores.level
    ]


def _lost(score: MainScore) -> bool:
    change = score.delta.absolute.value if score.delta else 0.0
    return -change > 0 if score.higher_is_better else change > 0


def sets(scores: Scores) -> Table | None:
    """Systems by data sets, those out of domain last, and what is pooled; None if there is one set only."""
    columns = set_columns(scores)
    if not columns:
        return None
    name = _score_name(scores)
    headings = ["System"]
    for field, value in columns:
        clips = scores.systems[0].groups[field][value].clips
        headings += [
            f"{set_name(scores, field, value)}: {name}, {wording.plural(clips, 'clip')}",
            "Change, relative",
        ]
    return Table(
        caption=f"{name} by data set",
        columns=headings,
        rows=[_set_row(scores, system, columns) for system in scores.systems],
        highlight=frozenset({0}),
    )


def _set_row(scores: Scores, system: SystemScores, columns: list[tuple[str, str]]) -> list[str]:
    cells = [system.name]
    for field, value in columns:
        found = _score_of(scores, system, field, value)
        relative = found.delta.relative if found and found.delta else None
        cells += [found.text if found else "–", wording.relative_change(relative) if relative else "–"]
    return cells


def _score_name(scores: Scores) -> str:
    found = main_score(scores, scores.systems[0]) if scores.systems else None
    return found.name if found else "score"


def p_heading(scores: Scores) -> str:
    """The heading of p-values: after Holm's correction where several systems are compared with the first."""
    return "p after Holm" if _corrected(scores) else "p"


def holm_sentence(scores: Scores) -> str:
    """Says over what p-values are corrected, if they are."""
    if not _corrected(scores):
        return ""
    compared = wording.plural(len(scores.systems) - 1, "system")
    return f" p-values are after Holm’s correction over the {compared} compared with the first."


def p_text(scores: Scores, delta: Delta | None) -> str:
    """The p-value under that heading."""
    if delta is None:
        return "–"
    return wording.p_value(delta.p_holm if _corrected(scores) else delta.p_value)


def _corrected(scores: Scores) -> bool:
    found = [main_score(scores, system) for system in scores.systems]
    return (
        sum(
            score is not None and score.delta is not None and score.delta.p_holm is not None
            for score in found
        )
        > 1
    )
