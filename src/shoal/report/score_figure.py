"""What pruning costs: the headline score against layers removed, one line for each strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import baseline
from shoal.report.parts import Control, Figure
from shoal.report.score_words import TOLERANCE, removed_words, tolerance_words, value_text
from shoal.schema import MeasuredScore, Scores, SystemScores

AXES = {"linear": "Linear", "log": "Logarithmic"}
LOG_FROM = 5.0
"""Worst error rate over best at which a linear axis would flatten what matters."""


def figure(scores: Scores, group: str) -> Figure:
    """The figure, with a logarithmic axis too where all values are above 0."""
    axes = _axes(scores)
    return Figure(
        id=f"{group}-figure",
        title=f"{scores.headline} against layers removed",
        caption=(
            f"Whiskers and the band: {wording.level_name(scores.level)} intervals. The dashed line is the "
            f"unpruned model, the dotted one {tolerance_words(_headlines(scores)[0])} relative. Click a name to hide "
            "a line."
        ),
        variants={axis: _figure(scores, axis) for axis in axes},
        default=_default_axis(scores),
        group=group,
    )


def choices(shown: Figure, name: str) -> list[Control]:
    """The control that switches the axis, if there are two."""
    values = {axis: AXES[axis] for axis in shown.variants}
    return [Control("variant", f"{name} axis", values, shown.shown)] if len(values) > 1 else []


def strategy_of(system: SystemScores) -> str:
    """The strategy of a system's plan, with the part it removes if only that; `other` without a plan."""
    plan = system.plan
    if plan is None:
        return "other"
    return plan.strategy if plan.part == "layer" else f"{plan.strategy}, {figure_style.PART_NAMES[plan.part]}"


def _headlines(scores: Scores) -> list[MeasuredScore]:
    return [score for system in scores.systems if (score := scores.headline_of(system))]


def _axes(scores: Scores) -> list[str]:
    rises = all(not score.higher_is_better and score.value.value > 0 for score in _headlines(scores))
    return ["linear", "log"] if rises else ["linear"]


def _default_axis(scores: Scores) -> str:
    values = [score.value.value for score in _headlines(scores)]
    wide = "log" in _axes(scores) and max(values) > LOG_FROM * min(values)
    return "log" if wide else "linear"


def _figure(scores: Scores, axis: str) -> go.Figure:
    score = _headlines(scores)[0]
    title = f"{scores.headline} (%)" if score.fraction else scores.headline
    plot = figure_style.new_figure(440, x="decoder layers removed n", y=title)
    plot.update_yaxes(type=axis)
    if axis == "log":
        plot.update_yaxes(tickvals=figure_style.LOG_TICKS)
    else:
        plot.update_yaxes(rangemode="tozero")
    deepest = max((len(system.removed) for system in scores.systems), default=0)
    ends = [-0.3, deepest + 0.5]
    plot.update_xaxes(dtick=1 if deepest <= 16 else None, range=ends)
    _draw_baseline(plot, scores, ends)
    pruned = [system for system in scores.systems[1:] if scores.headline_of(system)]
    for strategy, systems in _by_strategy(pruned):
        _draw_strategy(plot, strategy, systems, scores)
    return plot


def _by_strategy(systems: Iterable[SystemScores]) -> list[tuple[str, list[SystemScores]]]:
    known = [*figure_style.STRATEGIES, "other"]
    order = {name: rank for rank, name in enumerate(known)}

    def rank(system: SystemScores) -> tuple[int, str]:
        name = strategy_of(system)
        return order.get(name.partition(",")[0], len(known)), name

    return [(key[1], list(group)) for key, group in groupby(sorted(systems, key=rank), key=rank)]


def _draw_baseline(plot: go.Figure, scores: Scores, ends: Sequence[float]) -> None:
    base = baseline(scores)
    score = scores.headline_of(base) if base else None
    if base is None or score is None:
        return
    line, shown = {"color": figure_style.GREEN, "width": 2}, score.value.scaled(_scale(score))
    figure_style.add_band(plot, ends, [shown] * 2, figure_style.GREEN, base.name)
    plot.add_scatter(
        x=ends,
        y=[shown.value] * 2,
        mode="lines",
        name=base.name,
        legendgroup=base.name,
        line=line | {"dash": "dash"},
        hovertemplate=f"unpruned: {value_text(score)}<extra></extra>",
    )
    plot.add_scatter(
        x=ends,
        y=[shown.value * (1 + score.sign * TOLERANCE)] * 2,
        mode="lines",
        name=tolerance_words(score),
        line=line | {"dash": "dot", "width": 1.5},
        hoverinfo="skip",
    )


def _scale(score: MeasuredScore) -> int:
    return 100 if score.fraction else 1


def _draw_strategy(plot: go.Figure, strategy: str, systems: Sequence[SystemScores], scores: Scores) -> None:
    colour, symbol, dash = figure_style.strategy_style(strategy)
    systems = sorted(systems, key=lambda system: len(system.removed))
    drawn = [system.measures[scores.headline] for system in systems]
    values = [score.value.scaled(_scale(score)) for score in drawn]
    sizes = [len(system.removed) for system in systems]
    if strategy != "other":
        # One point for each n: the median over seeds.
        by_size = [
            (size, [value.value for _, value in same])
            for size, same in groupby(zip(sizes, values, strict=True), key=lambda pair: pair[0])
        ]
        plot.add_scatter(
            x=[size for size, _ in by_size],
            y=[median(same) for _, same in by_size],
            mode="lines",
            line={"color": colour, "width": 2, "dash": dash},
            legendgroup=strategy,
            showlegend=False,
            hoverinfo="skip",
        )
    plot.add_scatter(
        x=sizes,
        y=[value.value for value in values],
        mode="markers",
        name=strategy,
        legendgroup=strategy,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1, "color": colour}},
        error_y=figure_style.error_bars(values) | {"color": colour},
        customdata=[
            [system.name, removed_words(system), value_text(score)]
            for system, score in zip(systems, drawn, strict=True)
        ],
        hovertemplate=f"%{{customdata[0]}}: %{{customdata[1]}} removed<br>{scores.headline} %{{customdata[2]}}"
        "<extra></extra>",
    )
