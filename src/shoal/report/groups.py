"""Groups of clips: which fares worst, which lost most, and where a good average hides a group that lost."""

from __future__ import annotations

from collections.abc import Callable

from shoal import wording
from shoal.data_names import DATA, DOMAIN
from shoal.schema import MeasuredScore, Scores, SystemScores
from shoal.score_tables import change_text, group_differences, group_score, p_note, system_name, value_text
from shoal.tables import NONE, Table


def tables(scores: Scores) -> list[Table]:
    """One table for each field that clips were grouped by; data sets have one of their own."""
    fields = dict.fromkeys(field for system in scores.systems for field in system.groups)
    return [_table(scores, field) for field in fields if field not in (DATA, DOMAIN)]


def _table(scores: Scores, field: str) -> Table:
    def worst(system: SystemScores) -> MeasuredScore | None:
        return group_score(scores, system, field, system.worst_group.get(field))

    def worsened(system: SystemScores) -> MeasuredScore | None:
        return group_score(scores, system, field, system.most_worsened.get(field))

    name = scores.headline or "score"
    columns: dict[str, Callable[[SystemScores], str]] = {
        "System": system_name,
        # Before every task had measures, the group was named by its rate of edits, which is no error there.
        "Worst group": lambda system: system.worst_group[field] if worst(system) else NONE,
        "Clips": lambda system: str(system.groups[field][system.worst_group[field]].clips) if worst(system) else NONE,
        f"{name} there": lambda system: value_text(worst(system)),
        f"{name} overall": lambda system: value_text(scores.headline_of(system)),
        "Lost most": lambda system: system.most_worsened.get(field, NONE),
        "Change there": lambda system: change_text(worsened(system)),
        "p after Holm": lambda system: wording.p_value(_p_holm(worsened(system))),
        "Change overall": lambda system: change_text(scores.headline_of(system)),
    }
    systems = [system for system in scores.systems if system.groups.get(field)]
    count = max(len(system.groups[field]) for system in systems)
    caption = f"Worst group by “{field}” ({wording.plural(count, 'group')})"
    notes = (p_note(scores, group_differences(scores, system, field)) for system in systems)
    if note := next(filter(None, notes), ""):
        caption += f"; {note}"
    return Table.of(caption, columns, systems, ["Worst group", "Lost most"], highlight=[0])


def _p_holm(score: MeasuredScore | None) -> float | None:
    return score.delta.p_holm if score and score.delta else None


def unfair(scores: Scores) -> list[str]:
    """A sentence wherever all clips together lost nothing, and yet a group of them did, beyond chance."""
    sentences = []
    for system in scores.systems:
        overall = scores.headline_of(system)
        for field, value in system.most_worsened.items():
            score = group_score(scores, system, field, value)
            p_holm = _p_holm(score)
            if overall is None or _lost(overall) or p_holm is None or p_holm > 1 - scores.level:
                continue
            sentences.append(
                f"{system.name} did not get worse on all clips together ({scores.headline} {change_text(overall)}), "
                f"and yet it did for the {'data set' if field == DATA else field} “{value}”: {change_text(score)} "
                f"(p {wording.p_value(p_holm)} after Holm’s correction over the groups)."
            )
    return sentences


def _lost(score: MeasuredScore) -> bool:
    return score.delta is not None and score.sign * score.delta.absolute.value > 0
