"""Rates against layers removed, one line for each heal target."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style, score_lines
from shoal.report.healing_cells import put_back
from shoal.report.healing_words import target_order
from shoal.report.parts import Figure
from shoal.schema import Healing, HealingCell
from shoal.schema.heal import NONE

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


def _axes(healing: Healing) -> list[str]:
    return score_lines.axes([healing.baseline, *(cell.score for cell in healing.cells)])


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
        parts.append("A target that puts layers back stands where its plan does, though it is less deep a cut.")
    if _beyond(healing):
        limit = wording.percent(CLIP, 0)
        parts.append(
            f"Some rates are above {limit}, so the linear axis ends there"
            + ("; the logarithmic one shows all." if "log" in _axes(healing) else "; the table has all.")
        )
    return " ".join([*parts, "Click a name to hide a line."])


def _draw(healing: Healing, axis: str) -> go.Figure:
    plot = score_lines.new_plot(520, healing.score_name, healing.baseline, axis)
    sizes = sorted({len(cell.plan.layers) for cell in healing.cells})
    gap = min((b - a for a, b in pairwise(sizes)), default=1)
    ends = [sizes[0] - 0.5 * gap, sizes[-1] + 0.5 * gap]
    plot.update_xaxes(tickvals=sizes, range=ends)
    if axis == "linear" and _beyond(healing):
        plot.update_yaxes(range=[0, 100 * CLIP])
    score_lines.draw_unpruned(plot, healing.baseline, UNPRUNED, ends)
    names = target_order([cell.target for cell in healing.cells])
    for index, name in enumerate(names):
        shift = SPREAD * gap * ((index + 0.5) / len(names) - 0.5)
        _draw_target(plot, name, [cell for cell in healing.cells if cell.target == name], shift)
    return plot


def _draw_target(plot: go.Figure, target: str, cells: Sequence[HealingCell], shift: float) -> None:
    name = figure_style.escaped(UNHEALED if target == NONE else target)
    marks = [
        score_lines.Mark(len(cell.plan.layers), cell.score, (name, wording.removed_names(cell.plan))) for cell in cells
    ]
    style = figure_style.TARGETS.get(target, figure_style.OTHER)
    hover = "%{customdata[0]}: without %{customdata[1]}<br>%{customdata[2]}"
    score_lines.draw_line(plot, name, style, marks, hover=hover, shift=shift)
