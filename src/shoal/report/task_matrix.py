"""Task against task: whether they are redundant in the same layers, and what a shared plan costs each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.parts import Control, Figure, Section
from shoal.report.units import unit_of
from shoal.schema import Estimate, TaskLoss, TaskMatrix
from shoal.tables import Table

ID, TITLE, SHORT = "tasks", "Task against task", "Tasks"
CONSENSUS = "consensus"
Cell = tuple[float | None, str, str]
"""Value (None: refused), what stands in the cell, and what the pointer shows."""
COMBINED = {"mean": "the mean of all sides", "worst": "the side that loses most"}


def build(bundle: Bundle) -> Section | None:
    """One article for each task matrix; None without one."""
    if not bundle.task_matrices:
        return None
    articles = [_article(named, index) for index, named in enumerate(bundle.task_matrices)]
    return Section(ID, TITLE, SHORT, template="task_matrix.html", view={"articles": articles}, draws=True)


def _article(named: Named[TaskMatrix], index: int) -> dict[str, Any]:
    matrix, group = named.document, f"tasks-{index}"
    sizes = list(dict.fromkeys(loss.n for loss in matrix.losses))
    selected = str(next((n for n in sizes if n > 1), sizes[0] if sizes else ""))
    names = {str(n): str(n) for n in sizes}
    return {
        "heading": named.label or "task matrix",
        "lead": _lead(matrix),
        "group": group,
        "choices": [Control("variant", "Layers removed n", names, selected)] if sizes else [],
        "selected": selected,
        "likeness": [
            _likeness(matrix, matrix.spearman, f"{group}-spearman", *SPEARMAN, zmin=-1.0),
            _likeness(matrix, matrix.overlap, f"{group}-overlap", *OVERLAP, zmin=0.0),
        ],
        "sharing": [_plans(matrix, sizes, group, selected), _excess(matrix, sizes, group, selected)] if sizes else [],
        "tables": {str(n): _table(matrix, n) for n in sizes},
        "likeness_table": _likeness_table(matrix),
    }


SPEARMAN = (
    "Rank correlation",
    "Of the angular distances among blocks of the same size, mean over n: 1 is the same order, 0 none.",
)
OVERLAP = (
    "Overlap of the best blocks",
    "Share of layers that the blocks of the smallest angular distance have in common, mean over n.",
)


def _lead(matrix: TaskMatrix) -> str:
    level = wording.level_name(matrix.level)
    return (
        f"{wording.plural(len(matrix.sides), 'side')} of one model: "
        f"{wording.listing([side.label for side in matrix.sides])}. Blocks are judged by {matrix.measure}, scope "
        f"“{matrix.scope}”; the consensus plan keeps {COMBINED[matrix.combine]} lowest. Brackets are {level} "
        f"bootstrap intervals ({matrix.replicates:,} replicates)."
    )


def _likeness(
    matrix: TaskMatrix, values: list[list[Estimate]], name: str, title: str, caption: str, *, zmin: float
) -> Figure:
    labels = [side.label for side in matrix.sides]
    cells = [[(e.value, wording.fixed(e.value, 2), wording.fixed(e.value, 3)) for e in row] for row in values]
    figure = _annotated(labels, labels, cells)
    figure.update_traces(zmin=zmin, zmax=1.0, colorscale=figure_style.AGREEMENT_SCALE)
    return Figure(name, title, caption, {"": figure})


def _annotated(columns: Sequence[str], rows: Sequence[str], cells: Sequence[Sequence[Cell]]) -> go.Figure:
    """A heatmap with a number in each cell; plotly picks black or white ink by the cell's colour."""
    figure = figure_style.new_figure(110 + 52 * len(rows), x="", y="", legend=False)
    values, texts, hovers = ([[cell[part] for cell in row] for row in cells] for part in range(3))
    figure.add_heatmap(
        x=[wrapped(name) for name in columns],
        y=[wrapped(name) for name in rows],
        z=values,
        text=texts,
        customdata=hovers,
        texttemplate="%{text}",
        textfont={"size": 13 if len(columns) < 5 else 11.5},
        hovertemplate="%{y} · %{x}<br>%{customdata}<extra></extra>",
        xgap=2,
        ygap=2,
        showscale=False,
        hoverongaps=False,
    )
    figure.update_xaxes(showgrid=False, type="category", side="top")
    figure.update_yaxes(showgrid=False, type="category", autorange="reversed", ticklabelstandoff=4)
    return figure


def wrapped(label: str, width: int = 11) -> str:
    """A label broken between words, so that it fits over a narrow column."""
    lines = [""]
    for word in label.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(figure_style.escaped(line) for line in lines)


def _plans_of(matrix: TaskMatrix, n: int) -> dict[str, list[int]]:
    """Whom a plan was made for → its layers, the consensus last."""
    layers = {loss.plan: loss.layers for loss in matrix.losses if loss.n == n}
    return dict(sorted(layers.items(), key=lambda item: item[0] == CONSENSUS))


def _plans(matrix: TaskMatrix, sizes: list[int], group: str, selected: str) -> Figure:
    layers = [layer for loss in matrix.losses for layer in loss.layers]
    span = (min(layers, default=0), max(layers, default=1))
    return Figure(
        id=f"{group}-plans",
        title="The layers that each plan removes",
        caption="The plan made for each side, and the one for all of them together (orange).",
        variants={str(n): _plan_bars(_plans_of(matrix, n), span) for n in sizes},
        default=selected,
        group=group,
    )


def _plan_bars(plans: dict[str, list[int]], span: tuple[int, int]) -> go.Figure:
    figure = figure_style.new_figure(110 + 52 * max(1, len(plans) - 1), x="decoder layer", y="", legend=False)
    bars = [(name, start, stop) for name, layers in plans.items() for start, stop in wording.runs(layers)]
    figure.add_bar(
        y=[wrapped(name) for name, _, _ in bars],
        x=[stop - start for _, start, stop in bars],
        base=[start - 0.5 for _, start, _ in bars],
        orientation="h",
        marker={"color": [figure_style.ORANGE if name == CONSENSUS else figure_style.BLUE for name, _, _ in bars]},
        customdata=[wording.layer_names(plans[name]) for name, _, _ in bars],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
        text=[f"{start}–{stop - 1}" if stop - start > 1 else str(start) for _, start, stop in bars],
        textposition="auto",
        textangle=0,
    )
    figure.update_layout(barmode="overlay", bargap=0.45, margin_t=figure_style.BUTTONS)
    room = 2.5 + 0.3 * (span[1] - span[0])  # for the numbers behind the last bar, on a phone too
    figure.update_xaxes(range=[span[0] - 2.5, span[1] + room], showgrid=True, tickformat="d")
    figure.update_yaxes(showgrid=False, type="category", autorange="reversed", ticklabelstandoff=4)
    return figure


def _excess(matrix: TaskMatrix, sizes: list[int], group: str, selected: str) -> Figure:
    unit = unit_of(matrix.unit)
    return Figure(
        id=f"{group}-excess",
        title="What each side loses under another’s plan",
        caption=(
            f"Rows lose, columns are plans: {unit.name or matrix.measure} more than under the side’s own plan, both "
            "chosen on half of the clips and measured on the other half. "
            "A star: the interval lies above 0; empty: the side refused that block. Intervals are in the table."
        ),
        variants={str(n): _excess_map(matrix, n) for n in sizes},
        default=selected,
        group=group,
    )


def _excess_map(matrix: TaskMatrix, n: int) -> go.Figure:
    rows, columns = [side.label for side in matrix.sides], list(_plans_of(matrix, n))
    losses = {(loss.task, loss.plan): loss for loss in matrix.losses if loss.n == n}
    cells = [[_excess_cell(matrix, losses.get((row, column))) for column in columns] for row in rows]
    figure = _annotated(columns, rows, cells)
    most = max((abs(value) for row in cells for value, _, _ in row if value is not None), default=0.0)
    figure.update_traces(zmin=0, zmax=most or 1.0, colorscale=figure_style.LOSS_SCALE)
    return figure


def _excess_cell(matrix: TaskMatrix, loss: TaskLoss | None) -> Cell:
    if loss is None:
        return None, "", ""
    unit = unit_of(matrix.unit)
    return unit.scaled(loss.excess).value, _excess_text(matrix, loss), unit.write(loss.excess, sign=True)


def _excess_text(matrix: TaskMatrix, loss: TaskLoss) -> str:
    if loss.task == loss.plan:
        return "own"
    certain = loss.excess.low is not None and loss.excess.low > 0
    return unit_of(matrix.unit).value(loss.excess, sign=True) + ("*" if certain else "")


def _table(matrix: TaskMatrix, n: int) -> Table:
    unit = unit_of(matrix.unit)
    columns: dict[str, Callable[[TaskLoss], str]] = {
        "Side that loses": lambda loss: loss.task,
        "Plan made for": lambda loss: loss.plan,
        "Layers removed": lambda loss: wording.layer_names(loss.layers).partition(" ")[2],
        "Loses": lambda loss: unit.bare(loss.loss),
        "More than under its own plan": lambda loss: (
            "own plan" if loss.task == loss.plan else unit.bare(loss.excess, sign=True)
        ),
    }
    caption = f"Plans of {wording.plural(n, 'layer')}; {matrix.measure}, {unit.name}"
    losses = [loss for loss in matrix.losses if loss.n == n]
    return Table.of(caption, columns, losses, ["Plan made for", "Layers removed"])


def _likeness_table(matrix: TaskMatrix) -> Table:
    labels = [side.label for side in matrix.sides]
    columns: dict[str, Callable[[tuple[int, int]], str]] = {
        "Sides": lambda pair: f"{labels[pair[0]]} and {labels[pair[1]]}",
        "Rank correlation": lambda pair: wording.fixed(matrix.spearman[pair[0]][pair[1]].value, 2),
        "Overlap of the best blocks": lambda pair: wording.percent(matrix.overlap[pair[0]][pair[1]].value),
    }
    return Table.of("How alike the sides are", columns, combinations(range(len(labels)), 2))
