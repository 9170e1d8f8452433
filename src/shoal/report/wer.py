"""What pruning costs: error rates against layers removed, one line for each strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style, groups, measures
from shoal.report.bundle import Bundle, Named, baseline
from shoal.report.main_score import RECOGNITION, TOLERANCE
from shoal.report.measures import removed_list, removed_words
from shoal.report.parts import Control, Figure, Section, Table
from shoal.schema import Scores, SystemScores

ID, TITLE, SHORT = "cost", "What removing layers costs", "Error rate"
OTHER_SHORT = "Scores"
AXES = {"linear": "Linear", "log": "Logarithmic"}
LOG_FROM = 5.0
"""Worst WER over best at which a linear axis would flatten what matters."""


def build(bundle: Bundle) -> Section:
    """One article for each scores document."""
    if not bundle.scores:
        missing = "Not measured: no scores were given. “shoal evaluate” makes them."
        return Section(ID, TITLE, SHORT, missing=missing)
    articles = [
        _article(named, index)
        if is_recognition(named.document)
        else measures.article(named, lead(named.document))
        for index, named in enumerate(bundle.scores)
    ]
    draws = any(is_recognition(named.document) for named in bundle.scores)
    short = SHORT if draws else OTHER_SHORT
    return Section(ID, TITLE, short, template="wer.html", view={"articles": articles}, draws=draws)


def is_recognition(scores: Scores) -> bool:
    """Whether the edit rates are error rates; of any other task they are not."""
    return scores.task == RECOGNITION


def strategy_of(system: SystemScores) -> str:
    """The strategy of a system's plan, with the part it removes if only that; `other` without a plan."""
    plan = system.plan
    if plan is None:
        return "other"
    return plan.strategy if plan.part == "layer" else f"{plan.strategy}, {figure_style.PART_NAMES[plan.part]}"


def _article(named: Named[Scores], index: int) -> dict[str, Any]:
    scores = named.document
    axes = _axes(scores)
    group = f"wer-{index}"
    figure = Figure(
        id=f"wer-figure-{index}",
        title="WER against layers removed",
        caption=(
            f"Whiskers and the band: {wording.level_name(scores.level)} intervals. The dashed line is the "
            f"unpruned model, the dotted one +{100 * TOLERANCE:g} % relative. Click a name to hide a line."
        ),
        variants={axis: _figure(scores, axis) for axis in axes},
        default=_default_axis(scores),
        group=group,
    )
    return {
        "heading": f"{scores.model.ref} · {scores.task}" + (f" · {named.label}" if named.label else ""),
        "lead": lead(scores),
        "group": group,
        "choices": [Control("variant", "WER axis", {a: AXES[a] for a in axes}, figure.shown)]
        if len(axes) > 1
        else [],
        "figure": figure,
        "table": _table(scores),
        "errors": _errors(scores),
        **groups.view(scores),
    }


def lead(scores: Scores) -> str:
    """On which clips and how the scores were made."""
    decoding = ", ".join(f"{name} = {value}" for name, value in scores.decoding.items()) or "not recorded"
    return (
        f"{wording.plural(scores.data.clips, 'clip')}, {wording.duration(scores.data.seconds)} of speech. "
        f"Scored with {scores.scorer} after {scores.normaliser}; decoding: {decoding}. Brackets are "
        f"{wording.level_name(scores.level)} intervals ({scores.replicates:,} bootstrap replicates over "
        f"{scores.cluster}s; differences are paired on the same clips).{groups.holm_sentence(scores)}"
    )


def _axes(scores: Scores) -> list[str]:
    positive = all(system.wer.value > 0 for system in scores.systems)
    return ["linear", "log"] if positive and scores.systems else ["linear"]


def _default_axis(scores: Scores) -> str:
    rates = [system.wer.value for system in scores.systems]
    wide = "log" in _axes(scores) and max(rates) > LOG_FROM * min(rates)
    return "log" if wide else "linear"


def _figure(scores: Scores, axis: str) -> go.Figure:
    figure = figure_style.new_figure(440, x="decoder layers removed n", y="WER (%)")
    figure.update_yaxes(type=axis)
    if axis == "linear":
        figure.update_yaxes(rangemode="tozero")
    else:
        figure.update_yaxes(tickvals=figure_style.LOG_TICKS)
    figure.update_xaxes(dtick=1 if _deepest(scores) <= 16 else None, range=[-0.3, _deepest(scores) + 0.5])
    _draw_baseline(figure, scores)
    for strategy, systems in _by_strategy(scores.systems[1:]):
        _draw_strategy(figure, strategy, systems)
    return figure


def _deepest(scores: Scores) -> int:
    return max((len(system.removed) for system in scores.systems), default=0)


def _by_strategy(systems: Iterable[SystemScores]) -> list[tuple[str, list[SystemScores]]]:
    known = [*figure_style.STRATEGIES, "other"]
    order = {name: rank for rank, name in enumerate(known)}

    def rank(system: SystemScores) -> tuple[int, str]:
        name = strategy_of(system)
        return order.get(name.partition(",")[0], len(known)), name

    return [(key[1], list(group)) for key, group in groupby(sorted(systems, key=rank), key=rank)]


def _draw_baseline(figure: go.Figure, scores: Scores) -> None:
    base = baseline(scores)
    if base is None:
        return
    wer, x = base.wer, [-0.3, _deepest(scores) + 0.5]
    line = {"color": figure_style.GREEN, "width": 2}
    figure_style.add_band(figure, x, [_percent(base)] * 2, figure_style.GREEN, base.name)
    figure.add_scatter(
        x=x,
        y=[100 * wer.value] * 2,
        mode="lines",
        name=base.name,
        legendgroup=base.name,
        line=line | {"dash": "dash"},
        hovertemplate=f"unpruned: {wording.percent_estimate(wer)}<extra></extra>",
    )
    figure.add_scatter(
        x=x,
        y=[100 * wer.value * (1 + TOLERANCE)] * 2,
        mode="lines",
        name=f"+{100 * TOLERANCE:g} %",
        line=line | {"dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )


def _percent(system: SystemScores) -> Any:
    wer = system.wer
    bounds = {name: None if b is None else 100 * b for name, b in (("low", wer.low), ("high", wer.high))}
    return wer.model_copy(update={"value": 100 * wer.value, **bounds})


def _draw_strategy(figure: go.Figure, strategy: str, systems: Sequence[SystemScores]) -> None:
    colour, symbol, dash = figure_style.strategy_style(strategy)
    systems = sorted(systems, key=lambda system: len(system.removed))
    if strategy != "other":
        x, y = _medians(systems)
        line = {"color": colour, "width": 2, "dash": dash}
        figure.add_scatter(
            x=x, y=y, mode="lines", line=line, legendgroup=strategy, showlegend=False, hoverinfo="skip"
        )
    figure.add_scatter(
        x=[len(system.removed) for system in systems],
        y=[100 * system.wer.value for system in systems],
        mode="markers",
        name=strategy,
        legendgroup=strategy,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1, "color": colour}},
        error_y=figure_style.error_bars([system.wer for system in systems], 100) | {"color": colour},
        customdata=[[s.name, removed_words(s), wording.percent_estimate(s.wer)] for s in systems],
        hovertemplate="%{customdata[0]}: %{customdata[1]} removed<br>WER %{customdata[2]}<extra></extra>",
    )


def _medians(systems: Sequence[SystemScores]) -> tuple[list[int], list[float]]:
    """One point for each n: the median over seeds."""
    found = [(n, list(group)) for n, group in groupby(systems, key=lambda system: len(system.removed))]
    return [n for n, _ in found], [100 * median(system.wer.value for system in group) for _, group in found]


def _table(scores: Scores) -> Table:
    rows = []
    for system in scores.systems:
        delta = system.delta_wer
        rows.append(
            [
                f"{system.name} ({system.model_ref})" if system.model_ref else system.name,
                str(len(system.removed)),
                removed_list(system),
                wording.percent_estimate(system.wer),
                wording.absolute_change(delta.absolute) if delta else "–",
                wording.relative_change(delta.relative) if delta and delta.relative else "–",
                groups.p_text(scores, delta),
                wording.percent_estimate(system.cer),
            ]
        )
    columns = [
        "System",
        "n",
        "Layers removed",
        "WER",
        "Change, absolute",
        "Change, relative",
        groups.p_heading(scores),
        "CER",
    ]
    return Table(
        caption="Error rates; changes are against the first row, on the same clips",
        columns=columns,
        rows=rows,
        highlight=frozenset({0}),
        text_columns=frozenset({2}),
    )


def _errors(scores: Scores) -> Table:
    rows = [
        [
            system.name,
            f"{system.word_counts.insertions:,}",
            f"{system.word_counts.deletions:,}",
            f"{system.word_counts.substitutions:,}",
            f"{system.word_counts.hits:,}",
            f"{system.truncated:,}",
            f"{system.empty_references:,}",
            wording.percent_estimate(system.compound_wer) if system.compound_wer else "–",
            f"{system.disagreements:,}" if system.compound_wer else "–",
        ]
        for system in scores.systems
    ]
    columns = [
        "System",
        "Inserted",
        "Deleted",
        "Substituted",
        "Right",
        "Outputs cut at the limit",
        "Empty references",
        "WER, compounds merged",
        "Clips that kaldialign counts differently",
    ]
    return Table(
        caption="Word errors by kind. An output cut at the token limit is usually a loop",
        columns=columns,
        rows=rows,
        highlight=frozenset({0}),
    )
