"""What pruning costs: whatever the task is scored by, each with interval and change, then groups of clips."""

from __future__ import annotations

from typing import Any

from shoal import wording
from shoal.report import groups, score_figure, score_lines
from shoal.report.bundle import Bundle, Named
from shoal.report.parts import Section, Table
from shoal.report.score_words import change_text, relative_text, removed_words, value_text
from shoal.schema import MeasuredScore, Scores, SystemScores

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
    scores = named.document
    names = list(dict.fromkeys(name for system in scores.systems for name in system.measures))
    figure = score_figure.figure(scores, group) if names else None
    return {
        "heading": f"{scores.model.ref} · {scores.task}" + (f" · {named.label}" if named.label else ""),
        "lead": _lead(scores),
        "group": group,
        "figure": figure,
        "choices": score_lines.choices(figure, scores.headline) if figure else [],
        "tables": [_table(scores, name) for name in names],
        "edits": _edits(scores),
        "signatures": _signatures(scores),
        **groups.view(scores),
    }


def _lead(scores: Scores) -> str:
    """On which clips and how the scores were made."""
    decoding = ", ".join(f"{name} = {value}" for name, value in scores.decoding.items()) or "not recorded"
    return (
        f"{wording.plural(scores.data.clips, 'clip')}, {wording.duration(scores.data.seconds)} of speech. "
        f"Scored with {scores.scorer} after {scores.normaliser}; decoding: {decoding}. Brackets are "
        f"{wording.level_name(scores.level)} intervals ({scores.replicates:,} bootstrap replicates over "
        f"{scores.cluster}s; differences are paired on the same clips).{groups.holm_sentence(scores)}"
    )


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
        rows=[_row(scores, system, score) for system, score in systems],
        highlight=frozenset({0}),
        text_columns=frozenset({2}),
    )


def _row(scores: Scores, system: SystemScores, score: MeasuredScore) -> list[str]:
    return [
        f"{system.name} ({system.model_ref})" if system.model_ref else system.name,
        str(len(system.removed)),
        wording.without_noun(removed_words(system)) if system.removed else "–",
        value_text(score),
        change_text(score),
        relative_text(score),
        groups.p_text(scores, score.delta),
        f"{system.truncated:,}",
    ]


def _edits(scores: Scores) -> Table | None:
    """What an error rate counted, by kind; None where no score counts edits."""
    counted = [
        (f"{system.name}, {name}", system, score.edits)
        for system in scores.systems
        for name, score in system.measures.items()
        if score.edits is not None
    ]
    if not counted:
        return None
    rows = [
        [
            label,
            f"{edits.insertions:,}",
            f"{edits.deletions:,}",
            f"{edits.substitutions:,}",
            f"{edits.hits:,}",
            f"{system.truncated:,}",
            f"{system.empty_references:,}",
            f"{system.disagreements:,}",
        ]
        for label, system, edits in counted
    ]
    columns = [
        "System",
        "Inserted",
        "Deleted",
        "Substituted",
        "Right",
        "Outputs cut at the limit",
        "Empty references",
        "Clips that kaldialign counts differently",
    ]
    caption = "Errors by kind. An output cut at the token limit is usually a loop"
    return Table(caption=caption, columns=columns, rows=rows)


def _signatures(scores: Scores) -> list[tuple[str, str]]:
    """Name and signature of each measure, once."""
    measures = (item for system in scores.systems for item in system.measures.items())
    return list({name: score.signature for name, score in measures}.items())
