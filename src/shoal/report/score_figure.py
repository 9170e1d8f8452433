"""What pruning costs: the headline score against layers removed, one line for each strategy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style, score_lines
from shoal.report.bundle import baseline, baseline_words
from shoal.report.parts import Figure
from shoal.report.units import TOLERANCE, tolerance_words
from shoal.schema import MeasuredScore, Scores, SystemScores
from shoal.score_tables import removed_words, system_name

LOG_FROM = 5.0
"""Worst error rate over best at which a linear axis would flatten what matters."""


def figure(scores: Scores, group: str) -> Figure:
    """The figure, with a logarithmic axis too where all values are above 0."""
    axes, limit = score_lines.axes(_headlines(scores)), _tolerance(_headlines(scores)[0])
    return Figure(
        id=f"{group}-figure",
        title=f"{scores.headline} against layers removed",
        caption=(
            f"Whiskers and the band: {wording.level_name(scores.level)} intervals. The dashed line is "
            f"{baseline_words(scores)}, the dotted one {limit} relative. Click a name to hide a line."
        ),
        variants={axis: _figure(scores, axis) for axis in axes},
        default=_default_axis(scores),
        group=group,
    )


def _tolerance(score: MeasuredScore) -> str:
    return tolerance_words(higher_is_better=score.higher_is_better)


def strategy_of(system: SystemScores) -> str:
    """The strategy of a system's plan, with the part it removes if only that; `healed` or `other` without a plan."""
    plan = system.plan
    if plan is None:
        return "healed" if system.healed else "other"
    return plan.strategy if plan.part == "layer" else f"{plan.strategy}, {figure_style.PART_NAMES[plan.part]}"


def _headlines(scores: Scores) -> list[MeasuredScore]:
    return [score for system in scores.systems if (score := scores.headline_of(system))]


def _default_axis(scores: Scores) -> str:
    values = [score.value.value for score in _headlines(scores)]
    wide = "log" in score_lines.axes(_headlines(scores)) and max(values) > LOG_FROM * min(values)
    return "log" if wide else "linear"


def _figure(scores: Scores, axis: str) -> go.Figure:
    plot = score_lines.new_plot(440, scores.headline, _headlines(scores)[0], axis)
    deepest = max((len(system.absent_layers) for system in scores.systems), default=0)
    ends = [-0.3, deepest + 0.5]
    plot.update_xaxes(dtick=1 if deepest <= 16 else None, range=ends)
    base = baseline(scores)
    if base and (score := scores.headline_of(base)):
        score_lines.draw_unpruned(plot, score, system_name(base), ends)
        _draw_tolerance(plot, score, ends)
    hover = f"%{{customdata[0]}}: %{{customdata[1]}} removed<br>{scores.headline} %{{customdata[2]}}"
    for strategy, systems in _by_strategy(scores.systems[1:]):
        marks = [
            score_lines.Mark(len(system.absent_layers), score, (system.name, removed_words(system)))
            for system in systems
            if (score := scores.headline_of(system))
        ]
        style, joined = figure_style.strategy_style(strategy), strategy != "other"
        score_lines.draw_line(plot, strategy, style, marks, hover=hover, joined=joined)
    return plot


def _draw_tolerance(plot: go.Figure, score: MeasuredScore, ends: Sequence[float]) -> None:
    plot.add_scatter(
        x=ends,
        y=[score_lines.drawn(score).value * (1 + score.sign * TOLERANCE)] * 2,
        mode="lines",
        name=_tolerance(score),
        line={"color": figure_style.GREEN, "width": 1.5, "dash": "dot"},
        hoverinfo="skip",
    )


def _by_strategy(systems: Iterable[SystemScores]) -> list[tuple[str, list[SystemScores]]]:
    known = [*figure_style.STRATEGIES, "healed", "other"]
    order = {name: rank for rank, name in enumerate(known)}

    def rank(system: SystemScores) -> tuple[int, str]:
        name = strategy_of(system)
        return order.get(name.partition(",")[0], len(known)), name

    return [(key[1], list(group)) for key, group in groupby(sorted(systems, key=rank), key=rank)]
