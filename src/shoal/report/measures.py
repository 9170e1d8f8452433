"""Scores of tasks other than recognition: whatever the task is scored by, each with interval and change."""

from __future__ import annotations

from typing import Any

from shoal import wording
from shoal.report import groups
from shoal.report.bundle import Named
from shoal.report.parts import Table
from shoal.report.units import number_of, score_text
from shoal.schema import Delta, MeasuredScore, Scores, SystemScores
from shoal.tasks.settings import NEEDS


def article(named: Named[Scores], lead: str) -> dict[str, Any]:
    """One table for each measure; the edit rates are left out, for they are no errors here."""
    scores = named.document
    names = list(dict.fromkeys(name for system in scores.systems for name in system.measures))
    return {
        "heading": f"{scores.model.ref} · {scores.task}" + (f" · {named.label}" if named.label else ""),
        "lead": lead,
        "measures": [_table(scores, name) for name in names],
        "signatures": _signatures(scores),
        **groups.view(scores),
    }


def _table(scores: Scores, name: str) -> Table:
    systems = [(system, system.measures[name]) for system in scores.systems if name in system.measures]
    better = "higher" if systems[0][1].higher_is_better else "lower"
    return Table(
        caption=f"{name}; {better} is better. Changes are against the first row, on the same clips",
        columns=[
            "System",
            "n",
            "Layers removed",
            name,
            "Change, absolute",
            "Change, relative",
            groups.p_heading(scores),
            "Outputs cut",
        ],
        rows=[_row(scores, name, system, found) for system, found in systems],
        highlight=frozenset({0}),
        text_columns=frozenset({2}),
    )


def _row(scores: Scores, name: str, system: SystemScores, found: MeasuredScore) -> list[str]:
    delta = found.delta
    return [
        f"{system.name} ({system.model_ref})" if system.model_ref else system.name,
        str(len(system.removed)),
        removed_list(system),
        score_text(name, found.value, fraction=found.fraction),
        _absolute(name, delta, fraction=found.fraction) if delta else "–",
        wording.relative_change(delta.relative) if delta and delta.relative else "–",
        groups.p_text(scores, delta),
        f"{system.truncated:,}",
    ]


def _absolute(name: str, delta: Delta, *, fraction: bool) -> str:
    if fraction:
        return wording.absolute_change(delta.absolute)
    unit = "" if NEEDS.get(name) == "loss" else " points"
    return wording.with_interval(delta.absolute, number_of(delta.absolute, sign=True), unit)


def _signatures(scores: Scores) -> list[tuple[str, str]]:
    """Name and signature of each measure, once."""
    measures = (item for system in scores.systems for item in system.measures.items())
    return list({name: found.signature for name, found in measures}.items())


def removed_words(system: SystemScores) -> str:
    """The layers, or what of them, that a system lacks."""
    plan = system.plan
    return wording.removed_names(plan) if plan and plan.layers else wording.layer_names(system.removed)


def removed_list(system: SystemScores) -> str:
    """The same for a table whose heading says “layers”."""
    return wording.without_noun(removed_words(system)) if system.removed else "–"
