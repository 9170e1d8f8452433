"""What pruning costs: whatever the task is scored by, each with interval and change, then groups of clips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal import wording
from shoal.control_tables import control_sentences, control_table
from shoal.report import groups, score_figure, score_lines
from shoal.report.bundle import Bundle, Named
from shoal.report.parts import Section
from shoal.schema import Counts, Scores, SystemScores
from shoal.score_tables import (
    LIMIT,
    cliff_lines,
    data_set_table,
    design_effect,
    failure_table,
    loop_lines,
    score_names,
    score_table,
    system_name,
)
from shoal.tables import Table

ID, TITLE, SHORT = "cost", "What removing layers costs", "Scores"


def build(bundle: Bundle) -> Section:
    """One article for each scores document."""
    if not bundle.scores:
        missing = "Not measured: no scores were given. “shoal evaluate” makes them."
        return Section(ID, TITLE, SHORT, missing=missing)
    articles = [_article(named, f"scores-{index}") for index, named in enumerate(bundle.scores)]
    draws = any(named.document.headline for named in bundle.scores)
    return Section(ID, TITLE, SHORT, template="scores.html", view={"articles": articles}, draws=draws)


def _article(named: Named[Scores], group: str) -> dict[str, Any]:
    scores, names = named.document, score_names(named.document)
    figure = score_figure.figure(scores, group) if names else None
    return {
        "heading": named.heading,
        "lead": _lead(scores),
        "group": group,
        "figure": figure,
        "choices": score_lines.choices(figure, scores.headline) if figure else [],
        "tables": [score_table(scores, name) for name in names],
        "edits": _edits(scores),
        # Name and signature of each measure, once.
        "signatures": {name: score.signature for system in scores.systems for name, score in system.measures.items()},
        "controls": control_table(scores),
        "listens": [f"{line}." for line in control_sentences(scores)],
        "loops": [f"{line}." for line in loop_lines(scores)],
        "failures": failure_table(scores),
        "cliffs": [f"{line}." for line in cliff_lines(scores)],
        "sets": data_set_table(scores),
        "groups": groups.tables(scores),
        "unfair": groups.unfair(scores),
    }


def _lead(scores: Scores) -> str:
    """On which clips and how the scores were made."""
    decoding = ", ".join(f"{name} = {value}" for name, value in scores.decoding.items()) or "not recorded"
    compared = wording.plural(len(scores.systems) - 1, "system")
    corrected = f" p-values are after Holm’s correction over the {compared} compared with the first."
    return (
        f"{wording.plural(scores.data.clips, 'clip')}, {wording.duration(scores.data.seconds)} of speech. "
        f"Scored with {scores.scorer} after {scores.normaliser}; decoding: {decoding}. Brackets are "
        f"{wording.level_name(scores.level)} intervals ({scores.replicates:,} bootstrap replicates over "
        f"{wording.drawn_over(scores.drawn, scores.cluster)}; differences are paired on the same clips)."
        f"{corrected if scores.corrected else ''}{_effect(scores)}"
    )


def _effect(scores: Scores) -> str:
    effect = design_effect(scores)
    return f" {effect[0].upper()}{effect[1:]}." if effect else ""


Counted = tuple[str, SystemScores, Counts]
EDITS: dict[str, Callable[[Counted], str]] = {
    "System": lambda counted: counted[0],
    "Inserted": lambda counted: f"{counted[2].insertions:,}",
    "Deleted": lambda counted: f"{counted[2].deletions:,}",
    "Substituted": lambda counted: f"{counted[2].substitutions:,}",
    "Right": lambda counted: f"{counted[2].hits:,}",
    LIMIT: lambda counted: f"{counted[1].truncated:,}",
    "Empty references": lambda counted: f"{counted[1].empty_references:,}",
    "Words said there": lambda counted: f"{counted[1].words_without_reference:,}",
    "Clips that kaldialign counts differently": lambda counted: f"{counted[1].disagreements:,}",
}


def _edits(scores: Scores) -> Table | None:
    """What an error rate counted, by kind; None where no score counts edits."""
    counted: list[Counted] = [
        (f"{system_name(system)}, {name}", system, score.edits)
        for system in scores.systems
        for name, score in system.measures.items()
        if score.edits is not None
    ]
    caption = "Errors by kind. An output that hits the token limit is usually a loop"
    return Table.of(caption, EDITS, counted) if counted else None
