"""The best block of each size, how sure it is, and the influence of single layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from statistics import median
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named, removable
from shoal.report.heatmaps import KINDS, group_of, heading, measured_scopes, scope_choice, scope_of
from shoal.report.parts import Figure, Section, Table
from shoal.schema import Audit, BestBlock, Estimate, InputKind, Scope, ScopeAudit

ID, TITLE, SHORT = "blocks", "The best block of each size, and how sure it is", "Best blocks"
Drawn = Callable[[go.Figure, InputKind, ScopeAudit], None]


def build(bundle: Bundle) -> Section:
    """One article for each audit; shares the scope control with the heatmaps."""
    if not bundle.audits:
        return Section(ID, TITLE, SHORT, missing="Not measured: no audit was given.")
    articles = [_article(named, index, bundle) for index, named in enumerate(bundle.audits)]
    return Section(ID, TITLE, SHORT, template="blocks.html", view={"articles": articles}, draws=True)


def _article(named: Named[Audit], index: int, bundle: Bundle) -> dict[str, Any]:
    audit = named.document
    choice = scope_choice(audit, bundle.preferred_scope)

    def figure(name: str, title: str, caption: str, canvas: Callable[[], go.Figure], draw: Drawn) -> Figure:
        variants = {str(scope): _drawn(audit, scope, canvas, draw) for scope in measured_scopes(audit)}
        return Figure(f"{name}-{index}", title, caption, variants, choice.selected, group_of(index))

    return {
        "heading": heading(named),
        "group": group_of(index),
        "choices": [choice],
        "spans": figure("spans", *SPANS, lambda: _spans_canvas(audit.depth), _draw_spans),
        "small": [
            figure("stability", *STABILITY, lambda: _stability_canvas(audit.depth), _draw_stability),
            figure("distance", *DISTANCE, lambda: _distance_canvas(audit.depth), _draw_distance),
        ],
        "influence": figure("influence", *INFLUENCE, _influence_canvas, _draw_influence),
        "tables": {scope: _table(audit, scope) for scope in measured_scopes(audit)},
        "influence_tables": {scope: _influence_table(audit, scope) for scope in measured_scopes(audit)},
    }


SPANS = (
    "Layers that each n would remove",
    "One row for each n. A bar covers the layers of the best block that leaves the last layer in place; the "
    "paler it is, the less often it was the best when the clips were resampled.",
)
STABILITY = (
    "How often the choice holds",
    "Share of bootstrap replicates in which the same block is the best of its size.",
)
DISTANCE = (
    "Distance of the best block",
    "How far the best block of each size turns its input, with interval.",
)
INFLUENCE = (
    "Influence of each layer",
    "Block influence (BI): 1 minus the cosine of a layer’s input and output, with interval. Low: the layer "
    "changes little.",
)


def _drawn(audit: Audit, scope: Scope, canvas: Callable[[], go.Figure], draw: Drawn) -> go.Figure:
    figure = canvas()
    for kind in KINDS:
        part = scope_of(audit, kind, scope)
        if isinstance(part, ScopeAudit):
            draw(figure, kind, part)
    return figure


def spans_height(depth: int) -> int:
    """Room for two bars a row."""
    return min(900, 120 + 17 * depth)


def small_height(depth: int) -> int:
    """Two of these, with their titles and captions, stand as tall beside the spans."""
    return max(230, min(380, (spans_height(depth) - 126) // 2))


def _spans_canvas(depth: int) -> go.Figure:
    figure = figure_style.new_figure(spans_height(depth), x="decoder layer", y="layers removed n")
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.1)
    figure.update_xaxes(range=[-0.02 * depth, depth], showgrid=True)
    figure.update_yaxes(range=[0.3, depth + 0.7], showgrid=False)
    return figure


def _draw_spans(figure: go.Figure, kind: InputKind, part: ScopeAudit) -> None:
    colour = figure_style.INPUTS[kind]
    blocks = removable(part)
    figure.add_bar(
        y=[block.n for block in blocks],
        x=[block.n for block in blocks],
        base=[block.layer for block in blocks],
        orientation="h",
        name=f"{kind} input",
        marker={"color": [figure_style.translucent(colour, _opacity(block)) for block in blocks]},
        customdata=[
            [_span_name(block), _stability(block), wording.number_estimate(block.distance)]
            for block in blocks
        ],
        hovertemplate=(
            "n = %{y}: %{customdata[0]}<br>distance %{customdata[2]}<br>"
            f"best in %{{customdata[1]}} of replicates<extra>{kind}</extra>"
        ),
    )


def _opacity(block: BestBlock) -> float:
    return 0.9 if block.stability is None else 0.2 + 0.75 * block.stability


def _span_name(block: BestBlock) -> str:
    return wording.layer_names(range(block.layer, block.layer + block.n))


def _stability(block: BestBlock) -> str:
    return "–" if block.stability is None else wording.percent(block.stability, 0)


def _line(kind: InputKind) -> dict[str, Any]:
    colour = figure_style.INPUTS[kind]
    return {
        "mode": "lines+markers",
        "name": f"{kind} input",
        "legendgroup": kind,
        "line": {"color": colour, "width": 2, "dash": "solid" if kind == "speech" else "dash"},
        "marker": {"symbol": figure_style.INPUT_SYMBOLS[kind], "size": 6, "color": colour},
    }


def _stability_canvas(depth: int) -> go.Figure:
    figure = figure_style.new_figure(
        small_height(depth), x="layers in the block n", y="share of replicates (%)"
    )
    figure.update_yaxes(range=[-3, 105])
    return figure


def _draw_stability(figure: go.Figure, kind: InputKind, part: ScopeAudit) -> None:
    known = [(block.n, 100 * block.stability) for block in removable(part) if block.stability is not None]
    figure.add_scatter(
        x=[n for n, _ in known],
        y=[round(share, 2) for _, share in known],
        hovertemplate="n = %{x}: %{y:.1f} %<extra></extra>",
        **_line(kind),
    )


def _distance_canvas(depth: int) -> go.Figure:
    return figure_style.new_figure(small_height(depth), x="layers in the block n", y="angular distance")


def _draw_distance(figure: go.Figure, kind: InputKind, part: ScopeAudit) -> None:
    blocks = removable(part)
    x, estimates = [block.n for block in blocks], [block.distance for block in blocks]
    _draw_estimates(figure, kind, x, estimates, "n = %{x}: %{customdata}<extra></extra>")


def _influence_canvas() -> go.Figure:
    return figure_style.new_figure(300, x="decoder layer", y="block influence")


def _draw_influence(figure: go.Figure, kind: InputKind, part: ScopeAudit) -> None:
    estimates = influences(part)
    if _spans_decades(estimates):
        figure.update_yaxes(type="log", tickvals=figure_style.LOG_TICKS)
    _draw_estimates(
        figure, kind, list(range(len(estimates))), estimates, "layer %{x}: %{customdata}<extra></extra>"
    )


def _draw_estimates(
    figure: go.Figure, kind: InputKind, x: list[int], estimates: list[Estimate], hover: str
) -> None:
    figure_style.add_band(figure, x, estimates, figure_style.INPUTS[kind], kind)
    figure.add_scatter(
        x=x,
        y=[estimate.value for estimate in estimates],
        customdata=[wording.number_estimate(estimate, 4) for estimate in estimates],
        hovertemplate=hover,
        **_line(kind),
    )


def _spans_decades(estimates: list[Estimate]) -> bool:
    """Whether one or two strong layers would flatten all others on a linear axis."""
    least = min(estimate.value if estimate.low is None else estimate.low for estimate in estimates)
    values = [estimate.value for estimate in estimates]
    return least > 0 and max(values) > 8 * median(values)


def influences(part: ScopeAudit) -> list[Estimate]:
    """The influence of each layer with its interval."""
    nothing = [None] * len(part.influence)
    bounds = zip(part.influence, part.influence_low or nothing, part.influence_high or nothing, strict=True)
    return [Estimate(value=value, low=low, high=high) for value, low, high in bounds]


def _table(audit: Audit, scope: Scope) -> Table:
    parts = {kind: part for kind in KINDS if isinstance(part := scope_of(audit, kind, scope), ScopeAudit)}
    columns, rows = ["n"], [[str(n)] for n in range(1, audit.depth + 1)]
    for kind, part in parts.items():
        columns += [
            f"{kind}: layers",
            "angular distance",
            "best in",
            "runner-up starts at",
            "if the last may go",
        ]
        for row, block in zip_longest(rows, removable(part)):
            row += _cells(block, part.best[int(row[0]) - 1])
    return Table(
        caption=f"Best block for each n that leaves the last layer in place, scope “{scope}”",
        columns=columns,
        rows=rows,
        text_columns=frozenset({1, 5, 6, 10}),
    )


def _cells(block: BestBlock | None, best: BestBlock) -> list[str]:
    """`block` is None for n = L: only the whole stack has that size."""
    anywhere = _span_name(best).partition(" ")[2]
    if block is None:
        return ["–", "–", "–", "–", anywhere]
    runner = "–" if block.runner_up is None else str(block.runner_up)
    name = _span_name(block).partition(" ")[2]
    same = "the same" if block.layer == best.layer else anywhere
    return [name, wording.number_estimate(block.distance), _stability(block), runner, same]


def _influence_table(audit: Audit, scope: Scope) -> Table:
    columns, rows = ["Layer"], [[str(layer)] for layer in range(audit.depth)]
    for kind in KINDS:
        part = scope_of(audit, kind, scope)
        if isinstance(part, ScopeAudit):
            columns.append(f"{kind} input")
            for row, estimate in zip(rows, influences(part), strict=False):
                row.append(wording.number_estimate(estimate, 4))
    return Table(caption=f"Block influence of each layer, scope “{scope}”", columns=columns, rows=rows)
