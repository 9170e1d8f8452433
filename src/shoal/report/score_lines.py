"""What figures of scores against layers removed have in common: axes, the unpruned model, a line with its marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

import plotly.graph_objects as go

from shoal.report import figure_style
from shoal.report.parts import Control, Figure
from shoal.schema import Estimate, MeasuredScore
from shoal.score_tables import value_text

AXES = {"linear": "Linear", "log": "Logarithmic"}


@dataclass(frozen=True)
class Mark:
    """One model: how many layers it lacks, its score, and words for the pointer."""

    n: int
    score: MeasuredScore
    words: tuple[str, str]


def axes(scores: Sequence[MeasuredScore]) -> list[str]:
    """A logarithmic axis too where less is better and all values are above 0."""
    rises = all(not score.higher_is_better and score.value.value > 0 for score in scores)
    return ["linear", "log"] if rises else ["linear"]


def choices(shown: Figure, name: str) -> list[Control]:
    """The control that switches the axis, if there are two."""
    values = {axis: AXES[axis] for axis in shown.variants}
    return [Control("variant", f"{name} axis", values, shown.shown)] if len(values) > 1 else []


def new_plot(height: int, name: str, score: MeasuredScore, axis: str) -> go.Figure:
    """An empty figure for a score called `name`."""
    title = f"{name} (%)" if score.fraction else name
    plot = figure_style.new_figure(height, x="decoder layers removed n", y=title)
    plot.update_yaxes(type=axis)
    if axis == "log":
        plot.update_yaxes(tickvals=figure_style.LOG_TICKS)
    else:
        plot.update_yaxes(rangemode="tozero")
    return plot


def drawn(score: MeasuredScore) -> Estimate:
    """The value as it is drawn: fractions in per cent."""
    return score.value.scaled(100 if score.fraction else 1)


def draw_unpruned(plot: go.Figure, score: MeasuredScore, name: str, ends: Sequence[float]) -> None:
    """A dashed line and a band from end to end."""
    value = drawn(score)
    figure_style.add_band(plot, ends, [value] * 2, figure_style.GREEN, name)
    plot.add_scatter(
        x=list(ends),
        y=[value.value] * 2,
        mode="lines",
        name=name,
        legendgroup=name,
        line={"color": figure_style.GREEN, "width": 2, "dash": "dash"},
        hovertemplate=f"unpruned: {value_text(score)}<extra></extra>",
    )


def draw_line(
    plot: go.Figure,
    name: str,
    style: tuple[str, str, str],
    marks: Sequence[Mark],
    *,
    hover: str,
    shift: float = 0.0,
    joined: bool = True,
) -> None:
    """Marks with their intervals, and a line through the median of those that lack as many layers.

    Args:
        plot: is drawn on.
        name: in the legend.
        style: colour, symbol and dash.
        marks: in any order.
        hover: what the pointer shows; `customdata` is each mark's words and its score.
        shift: of all marks along n.
        joined: whether there is a line.
    """
    colour, symbol, dash = style
    marks = sorted(marks, key=lambda mark: mark.n)
    values = [drawn(mark.score) for mark in marks]
    if joined:
        sizes = [(n, list(same)) for n, same in groupby(marks, key=lambda mark: mark.n)]
        plot.add_scatter(
            x=[n + shift for n, _ in sizes],
            y=[median(drawn(mark.score).value for mark in same) for _, same in sizes],
            mode="lines",
            line={"color": colour, "width": 1.8, "dash": dash},
            legendgroup=name,
            showlegend=False,
            hoverinfo="skip",
        )
    plot.add_scatter(
        x=[mark.n + shift for mark in marks],
        y=[value.value for value in values],
        mode="markers",
        name=name,
        legendgroup=name,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.2, "color": colour}},
        error_y=figure_style.error_bars(values) | {"color": colour},
        customdata=[[*mark.words, value_text(mark.score)] for mark in marks],
        hovertemplate=f"{hover}<extra></extra>",
    )
