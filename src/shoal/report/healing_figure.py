"""Rates against layers removed, one line for each heal target."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import median

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.healing_cells import put_back
from shoal.report.healing_words import target_order
from shoal.report.parts import Control, Figure
from shoal.report.score_words import value_text
from shoal.schema import Estimate, Healing, HealingCell, MeasuredScore
from shoal.schema.heal import NONE

AXES = {"linear": "Linear", "log": "Logarithmic"}
CLIP = 1.5
"""Rates above this flatten a linear axis: it ends there, and the logarithmic one is shown first."""
SPREAD = 0.6
"""Share of the smallest gap between two n over which the targets of one n stand side by side."""
UNPRUNED, UNHEALED = "unpruned", "not healed"


def figure(healing: Healing, group: str) -> Figure:
    """The figure, with a linear axis and, where all rates are above 0, a logarithmic one."""
    axes = _axes(healing)
    return Figure(
        id=f"{group}-figure",
        title=f"{healing.score_name} against layers removed, by what was healed",
        caption=_caption(healing),
        variants={axis: _draw(healing, axis) for axis in axes},
        default="log" if _beyond(healing) and "log" in axes else "linear",
        group=group,
    )


def choices(shown: Figure, name: str) -> list[Control]:
    """The control that switches the axis, if there are two."""
    values = {axis: AXES[axis] for axis in shown.variants}
    return [Control("variant", f"{name} axis", values, shown.shown)] if len(values) > 1 else []


def _axes(healing: Healing) -> list[str]:
    scores = [healing.baseline, *(cell.score for cell in healing.cells)]
    rises = all(not score.higher_is_better and score.value.value > 0 for score in scores)
    return ["linear", "log"] if rises else ["linear"]


def _beyond(healing: Healing) -> bool:
    return healing.baseline.fraction and any(cell.score.value.value > CLIP for cell in healing.cells)


def _caption(healing: Healing) -> str:
    level = wording.level_name(healing.baseline.value.level)
    better = "higher" if healing.baseline.higher_is_better else "lower"
    parts = [
        f"{healing.score_name} on the test clips, {better} is better; whiskers and the band: {level} intervals. "
        "The dashed line is the unpruned model, the grey crosses are pruned and not healed. Marks of one n stand side "
        "by side."
    ]
    if any(put_back(cell) > 0 for cell in healing.cells):
        parts.append(
            "A target that puts layers back stands where its plan does, though it is less deep a cut."
        )
    if _beyond(healing):
        limit = wording.percent(CLIP, 0)
        parts.append(
            f"Some rates are above {limit}, so the linear axis ends there"
            + ("; the logarithmic one shows all." if "log" in _axes(healing) else "; the table has all.")
        )
    return " ".join([*parts, "Click a name to hide a line."])


def _draw(healing: Healing, axis: str) -> go.Figure:
    plot = figure_style.new_figure(
        520,
        x="decoder layers removed n",
        y=f"{healing.score_name} (%)" if healing.baseline.fraction else healing.score_name,
    )
    sizes = sorted({len(cell.plan.layers) for cell in healing.cells})
    gap = min((b - a for a, b in pairwise(sizes)), default=1)
    ends = [sizes[0] - 0.5 * gap, sizes[-1] + 0.5 * gap]
    plot.update_xaxes(tickvals=sizes, range=ends)
    plot.update_yaxes(type=axis)
    if axis == "log":
        plot.update_yaxes(tickvals=figure_style.LOG_TICKS)
    elif _beyond(healing):
        plot.update_yaxes(range=[0, 100 * CLIP])
    else:
        plot.update_yaxes(rangemode="tozero")
    _draw_unpruned(plot, healing, ends)
    names = target_order([cell.target for cell in healing.cells])
    for place, name in enumerate(names):
        shift = SPREAD * gap * ((place + 0.5) / len(names) - 0.5)
        _draw_target(plot, name, [cell for cell in healing.cells if cell.target == name], shift)
    return plot


def _draw_unpruned(plot: go.Figure, healing: Healing, ends: Sequence[float]) -> None:
    base = _drawn(healing.baseline)
    figure_style.add_band(plot, ends, [base] * 2, figure_style.GREEN, UNPRUNED)
    plot.add_scatter(
        x=list(ends),
        y=[base.value] * 2,
        mode="lines",
        name=UNPRUNED,
        legendgroup=UNPRUNED,
        line={"color": figure_style.GREEN, "width": 2, "dash": "dash"},
        hovertemplate=f"unpruned: {value_text(healing.baseline)}<extra></extra>",
    )


def _drawn(score: MeasuredScore) -> Estimate:
    return score.value.scaled(100 if score.fraction else 1)


def _draw_target(plot: go.Figure, target: str, cells: Sequence[HealingCell], shift: float) -> None:
    colour, symbol, dash = figure_style.TARGETS.get(target, figure_style.OTHER)
    name = figure_style.escaped(UNHEALED if target == NONE else target)
    cells = sorted(cells, key=lambda cell: len(cell.plan.layers))
    x, y = _medians(cells)
    plot.add_scatter(
        x=[n + shift for n in x],
        y=y,
        mode="lines",
        line={"color": colour, "width": 1.6, "dash": dash},
        legendgroup=target,
        showlegend=False,
        hoverinfo="skip",
    )
    plot.add_scatter(
        x=[len(cell.plan.layers) + shift for cell in cells],
        y=[_drawn(cell.score).value for cell in cells],
        mode="markers",
        name=name,
        legendgroup=target,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.2, "color": colour}},
        error_y=figure_style.error_bars([_drawn(cell.score) for cell in cells]) | {"color": colour},
        customdata=[[name, wording.removed_names(cell.plan), value_text(cell.score)] for cell in cells],
        hovertemplate="%{customdata[0]}: without %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    )


def _medians(cells: Sequence[HealingCell]) -> tuple[list[int], list[float]]:
    """One point for each n, should several plans remove as many."""
    groups = [(n, list(group)) for n, group in groupby(cells, key=lambda cell: len(cell.plan.layers))]
    return [n for n, _ in groups], [median(_drawn(cell.score).value for cell in group) for _, group in groups]
