"""Groups of clips: which fares worst, which lost most, and the data sets side by side."""

from __future__ import annotations

from typing import Any

from shoal import wording
from shoal.data_names import DATA, DOMAIN, set_columns, set_name
from shoal.report.parts import Table
from shoal.report.score_words import change_text, relative_text, value_text
from shoal.schema import Delta, MeasuredScore, Scores, SystemScores

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
    name = scores.headline or "score"
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
    there, overall = _score_of(scores, system, field, worst), scores.headline_of(system)
    lost_there = _score_of(scores, system, field, lost)
    return [
        system.name,
        # Before every task had measures, the group was named by its rate of edits, which is no error there.
        worst if worst and there else "–",
        str(system.groups[field][worst].clips) if worst and there else "–",
        value_text(there),
        value_text(overall),
        lost or "–",
        change_text(lost_there),
        wording.p_value(lost_there.delta.p_holm if lost_there and lost_there.delta else None),
        change_text(overall),
    ]


def _score_of(scores: Scores, system: SystemScores, field: str, value: str | None) -> MeasuredScore | None:
    group = None if value is None else system.groups.get(field, {}).get(value)
    return None if group is None else scores.headline_of(group)


def unfair(scores: Scores) -> list[str]:
    """A sentence wherever all clips together lost nothing, and yet a group of them did, beyond chance."""
    sentences = []
    for system in scores.systems:
        overall = scores.headline_of(system)
        for field, value in system.most_worsened.items():
            there = _score_of(scores, system, field, value)
            p_holm = there.delta.p_holm if there and there.delta else None
            if overall is None or _lost(overall) or p_holm is None or p_holm > 1 - scores.level:
                continue
            sentences.append(
                f"{system.name} did not get worse on all clips together ({scores.headline} {change_text(overall)}), "
                f"and yet it did for the {DATA_NAME if field == DATA else field} “{value}”: {change_text(there)} "
                f"(p {wording.p_value(p_holm)} after Holm’s correction over the groups)."
            )
    return sentences


def _lost(score: MeasuredScore) -> bool:
    return score.delta is not None and score.sign * score.delta.absolute.value > 0


def sets(scores: Scores) -> Table | None:
    """Systems by data sets, those out of domain last, and what is pooled; None if there is one set only."""
    columns = set_columns(scores)
    if not columns:
        return None
    name = scores.headline or "score"
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
        score = _score_of(scores, system, field, value)
        cells += [value_text(score), relative_text(score)]
    return cells


def p_heading(scores: Scores) -> str:
    """The heading of p-values: after Holm's correction where several systems are compared with the first."""
    return "p after Holm" if scores.corrected else "p"


def holm_sentence(scores: Scores) -> str:
    """Says over what p-values are corrected, if they are."""
    if not scores.corrected:
        return ""
    compared = wording.plural(len(scores.systems) - 1, "system")
    return f" p-values are after Holm’s correction over the {compared} compared with the first."


def p_text(scores: Scores, delta: Delta | None) -> str:
    """The p-value under that heading."""
    if delta is None:
        return "–"
    return wording.p_value(delta.p_holm if scores.corrected else delta.p_value)
