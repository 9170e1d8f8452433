"""What the task loses without each measured block of more than one layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.by_layer import fewer_clips, panel_title
from shoal.report.figure_style import stretch_for
from shoal.report.parts import Figure
from shoal.report.units import unit_of
from shoal.schema import Audit, BestBlock, Estimate, Importance, InputKind
from shoal.tables import NONE, Table
from shoal.terms import is_block
from shoal.wording import may_also_begin, percent

Cell = tuple[Estimate | None, str]
"""The value as it is drawn (None: refused), and what the pointer adds."""


def block_figures(audit: Audit, index: int) -> list[Figure]:
    """One heatmap for each input, quantity and part that was measured in earnest on larger blocks."""
    figures = []
    for kind, part in audit.inputs.items():
        for number, item in enumerate(part.importance):
            rows = rows_of(item)
            if item.measured and any(n > 1 for n in rows):
                figures.append(_figure(item, rows, kind, f"{item.metric}-{index}-{kind}-{number}", audit.depth))
    return figures


def best_table(audit: Audit) -> Table | None:
    """The best measured block of each size, on clips that it was not chosen on; None where none is known."""
    rows = [
        (kind, item, block) for kind, part in audit.inputs.items() for item in part.importance for block in item.best
    ]
    columns: dict[str, Callable[[tuple[InputKind, Importance, BestBlock]], str]] = {
        "Input": lambda row: row[0],
        "What is lost": lambda row: f"{row[1].title or row[1].name} ({unit_of(row[1].unit).name})",
        "n": lambda row: str(row[2].n),
        "Layers": lambda row: wording.without_noun(wording.layer_names(range(row[2].layer, row[2].layer + row[2].n))),
        "On other clips": lambda row: _lost(row[1], row[2].held_out),
        "On its own clips": lambda row: _lost(row[1], row[2].distance),
        "First in": lambda row: NONE if row[2].selection_frequency is None else percent(row[2].selection_frequency, 0),
        "May also begin at": lambda row: may_also_begin(row[2].rivals) if row[2].confidence_set else NONE,
    }
    caption = (
        "The best measured block of each size that leaves the last layer in place, and where else the best may begin. "
        "On other clips: chosen on half of the clips and measured on the other half; on its own clips a choice looks "
        "too good"
    )
    return Table.of(caption, columns, rows, ["Input", "What is lost", "May also begin at"]) if rows else None


def _lost(item: Importance, estimate: Estimate | None) -> str:
    return NONE if estimate is None else unit_of(item.unit).bare(estimate, sign=True)


def rows_of(item: Importance) -> dict[int, dict[int, Cell]]:
    """Size n → first layer → cell, for the candidates that are blocks; only sizes that were measured."""
    rows: dict[int, dict[int, Cell]] = defaultdict(dict)
    unit = unit_of(item.unit)
    for index, layers in enumerate(item.candidates):
        if is_block(layers):
            estimate = item.estimate(index)
            note = item.refused.get(index) or fewer_clips(item, index)
            rows[len(layers)][layers[0]] = (unit.scaled(estimate) if estimate else None, note)
    return dict(sorted(rows.items()))


def _figure(item: Importance, rows: dict[int, dict[int, Cell]], kind: str, name: str, depth: int) -> Figure:
    part = "" if item.part == "layer" else f"{figure_style.PART_NAMES[item.part]} of "
    return Figure(
        id=name,
        title=f"{item.noun or item.unit} without {part}each block, {kind} input",
        caption=(
            f"{panel_title(item)}. Rows: the sizes n that were measured. Circles: the block of each n without "
            "which least is lost; crosses: refused. Intervals show under the pointer."
        ),
        variants={"": _draw(item, rows, depth)},
    )


def _draw(item: Importance, rows: dict[int, dict[int, Cell]], depth: int) -> go.Figure:
    figure = figure_style.new_figure(
        _plot_height(rows) + 136, x="first layer l of the block", y="layers n", legend=False
    )
    figure.update_layout(margin_t=figure_style.BUTTONS)
    known = [cell.value for cells in rows.values() for cell, _ in cells.values() if cell]
    stretch, scale = stretch_for(known), figure_style.DISTANCE_SCALE
    ticks = stretch.ticks(known) if known else {}
    figure.add_heatmap(
        x=list(range(depth)),
        y=[str(n) for n in rows],
        z=[[_height(cells.get(layer), stretch) for layer in range(depth)] for cells in rows.values()],
        zmin=stretch(min(known, default=0.0)),
        zmax=stretch(max(known, default=1.0)),
        colorscale=scale if item.low_is_redundant else figure_style.turned(scale),
        hoverongaps=False,
        customdata=[[_hover(item, layer, n, cells.get(layer)) for layer in range(depth)] for n, cells in rows.items()],
        hovertemplate="%{customdata}<extra></extra>",
        colorbar=figure_style.flat_bar(ticks.get("tickvals"), ticks.get("ticktext"), plot=_plot_height(rows)),
    )
    _mark(figure, item, rows)
    figure.update_xaxes(showgrid=False, range=[-0.6, depth - 0.4])
    figure.update_yaxes(
        showgrid=False, type="category", range=[-0.5, len(rows) - 0.5], dtick=1 if len(rows) <= 12 else None
    )
    return figure


def _plot_height(rows: dict[int, dict[int, Cell]]) -> int:
    return max(60, min(330, 30 * len(rows)))


def _height(cell: Cell | None, stretch: Any) -> float | None:
    return None if cell is None or cell[0] is None else round(stretch(cell[0].value), 5)


def _hover(item: Importance, layer: int, n: int, cell: Cell | None) -> str:
    if cell is None:
        return ""
    estimate, note = cell
    names = wording.layer_names(range(layer, layer + n))
    unit = unit_of(item.unit).name
    value = f"refused: {note}" if estimate is None else f"{unit_of('').bare(estimate)} {unit}"
    return f"without {names}: {value}" + (f"<br>{note}" if estimate and note else "")


def _mark(figure: go.Figure, item: Importance, rows: dict[int, dict[int, Cell]]) -> None:
    best: list[tuple[float, str]] = []
    refused: list[tuple[float, str]] = []
    first = min if item.low_is_redundant else max
    for n, cells in rows.items():
        known = {layer: cell.value for layer, (cell, _) in cells.items() if cell}
        best += [(first(known, key=known.__getitem__), str(n))] if known else []
        refused += [(layer, str(n)) for layer, (cell, _) in cells.items() if cell is None]
    figure_style.add_marks(figure, best, figure_style.BEST_MARK)
    figure_style.add_marks(figure, refused, figure_style.CROSS_MARK)
