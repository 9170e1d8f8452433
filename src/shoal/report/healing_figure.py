"""Rates against layers removed, one line for each heal target."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from statistics import median

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.healing_cells import put_back
from shoal.report.healing_words import rate_name, target_order
from shoal.report.parts import Control, Figure
from shoal.schema import Estimate, Healing, HealingCell
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
        title=f"{rate_name(healing)} against layers removed, by what was healed",
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
    rates = [healing.baseline_wer, *(cell.wer for cell in healing.cells)]
    return ["linear", "log"] if all(rate.value > 0 for rate in rates) else ["linear"]


def _beyond(healing: Healing) -> bool:
    return any(cell.wer.value > CLIP for cell in healing.cells)


def _caption(healing: Healing) -> str:
    rate, level = rate_name(healing), wording.level_name(healing.baseline_wer.level)
    parts = [
        f"{rate} on the test clips, lower is better; whiskers and the band: {level} intervals. The dashed line is the "
        "unpruned model, the grey crosses are pruned and not healed. Marks of one n stand side by side."
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
    plot = figure_style.new_figure(520, x="decoder layers removed n", y=f"{rate_name(healing)} (%)")
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
    base = healing.baseline_wer
    figure_style.add_band(plot, ends, [_percent(base)] * 2, figure_style.GREEN, UNPRUNED)
    plot.add_scatter(
        x=list(ends),
        y=[100 * base.value] * 2,
        mode="lines",
        name=UNPRUNED,
        legendgroup=UNPRUNED,
        line={"color": figure_style.GREEN, "width": 2, "dash": "dash"},
        hovertemplate=f"unpruned: {wording.percent_estimate(base)}<extra></extra>",
    )


def _percent(rate: Estimate) -> Estimate:
    bounds = {name: None if b is None else 100 * b for name, b in (("low", rate.low), ("high", rate.high))}
    return rate.model_copy(update={"value": 100 * rate.value, **bounds})


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
        y=[100 * cell.wer.value for cell in cells],
        mode="markers",
        name=name,
        legendgroup=target,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1.2, "color": colour}},
        error_y=figure_style.error_bars([cell.wer for cell in cells], 100) | {"color": colour},
        customdata=[
            [name, wording.removed_names(cell.plan), wording.percent_estimate(cell.wer)] for cell in cells
        ],
        hovertemplate="%{customdata[0]}: without %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    )


def _medians(cells: Sequence[HealingCell]) -> tuple[list[int], list[float]]:
    """One point for each n, should several plans remove as many."""
    groups = [(n, list(group)) for n, group in groupby(cells, key=lambda cell: len(cell.plan.layers))]
    return [n for n, _ in groups], [100 * median(cell.wer.value for cell in group) for _, group in groups]
