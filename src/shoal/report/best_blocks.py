"""The best block of each size, how sure it is, and the metrics of single layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named, removable
from shoal.report.by_layer import Panels, Series, input_panels, layer_table, stacked
from shoal.report.heatmaps import (
    KINDS,
    block_metrics,
    group_of,
    heading,
    measured_scopes,
    metric_names,
    scope_choice,
    values_of,
)
from shoal.report.parts import Figure, Section
from shoal.schema import Audit, BestBlock, Estimate, InputKind, MetricValues, Scope
from shoal.tables import Table

ID, TITLE, SHORT = "blocks", "The best block of each size, and how sure it is", "Best blocks"
SPANS = (
    "Layers that each n would remove",
    "One row for each n. A bar covers the layers of the best block that leaves the last layer in place; the "
    "paler it is, the less often it was the best when the clips were resampled. Ticks: where other blocks begin that "
    "these clips cannot tell from the best.",
)
FREQUENCY = (
    "Selection frequency",
    "Share of bootstrap replicates in which the same block is the best of its size. It is no confidence: which blocks "
    "may be the best is in the table.",
)
DISTANCE = ("Distance of the best block", "What the metric says of the best block of each size, with interval.")
LAYERS = (
    "Influence of each layer",
    "What each metric of single layers says, with interval. Block influence (BI) is 1 minus the cosine of a layer’s "
    "input and output; low: the layer changes little. Axes are logarithmic away from zero where a few layers tower "
    "over the rest.",
)
COLUMNS = ("first in", "the best may also begin at", "if the last may go")


def build(bundle: Bundle) -> Section:
    """One article for each audit and metric of blocks; shares the scope control with the heatmaps."""
    if not bundle.audits:
        return Section(ID, TITLE, SHORT, missing="Not measured: no audit was given.")
    articles = [
        _article(named, index, metric, f"{index}{suffix}", bundle)
        for index, named in enumerate(bundle.audits)
        for metric, suffix in block_metrics(named.document)
    ]
    return Section(ID, TITLE, SHORT, template="blocks.html", view={"articles": articles}, draws=True)


def _article(named: Named[Audit], index: int, metric: str, name: str, bundle: Bundle) -> dict[str, Any]:
    audit, scopes = named.document, measured_scopes(named.document)
    titles, choice = metric_names(audit, "block"), scope_choice(audit, bundle.preferred_scope)
    usual = metric == next(iter(titles))

    def figure(what: str, words: tuple[str, str], draw: Callable[[Scope], go.Figure | str]) -> Figure:
        variants = {str(scope): draw(scope) for scope in scopes}
        return Figure(f"{what}-{name}", *words, variants, choice.selected, group_of(index))

    layers = {scope: layer_panels(audit, scope) for scope in scopes} if usual else {}
    return {
        "heading": heading(named, "" if usual else titles[metric]),
        "group": group_of(index),
        "choices": [choice] if usual else [],
        "selected": choice.selected,
        "spans": figure("spans", SPANS, lambda scope: _spans(audit, scope, metric)),
        "small": [
            figure("frequency", FREQUENCY, lambda scope: _frequencies(audit, scope, metric)),
            figure("distance", DISTANCE, lambda scope: _distances(audit, scope, metric, titles[metric])),
        ],
        "tables": {scope: _table(audit, scope, metric, titles[metric]) for scope in scopes},
        "layers": figure("influence", LAYERS, lambda scope: stacked(layers[scope], audit.depth))
        if any(layers.values())
        else None,
        "layer_tables": {
            scope: layer_table(panels, audit.depth, f"Metrics of each layer, scope “{scope}”")
            for scope, panels in layers.items()
        },
    }


def layer_panels(audit: Audit, scope: Scope) -> Panels:
    """Title → input → values by layer, of the metrics that have values of layers only."""
    return input_panels(
        (title.capitalize(), kind, Series.of(values.of_layers(), low=values.low_is_redundant))
        for name, title in metric_names(audit, "layer").items()
        for kind, values in _inputs(audit, scope, name)
    )


def _inputs(audit: Audit, scope: Scope, metric: str) -> list[tuple[InputKind, MetricValues]]:
    sides = [(kind, values_of(audit, kind, scope, metric)) for kind in KINDS]
    return [(kind, values) for kind, values in sides if not isinstance(values, str)]


def spans_height(depth: int) -> int:
    """Room for two bars a row."""
    return min(900, 120 + 17 * depth)


def small_height(depth: int) -> int:
    """Two of these, with their titles and captions, stand as tall beside the spans."""
    return max(230, min(380, (spans_height(depth) - 126) // 2))


def _spans(audit: Audit, scope: Scope, metric: str) -> go.Figure:
    depth = audit.depth
    figure = figure_style.new_figure(spans_height(depth), x="decoder layer", y="layers removed n")
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.1)
    figure.update_xaxes(range=[-0.02 * depth, depth], showgrid=True)
    figure.update_yaxes(range=[0.3, depth + 0.7], showgrid=False)
    for kind, values in _inputs(audit, scope, metric):
        blocks = removable(values)
        colours = [figure_style.translucent(figure_style.INPUTS[kind], _opacity(block)) for block in blocks]
        figure.add_bar(
            y=[block.n for block in blocks],
            x=[block.n for block in blocks],
            base=[block.layer for block in blocks],
            orientation="h",
            name=f"{kind} input",
            marker={"color": colours},
            customdata=[
                [_span_name(block), _frequency(block), wording.number_estimate(block.distance), _others(block)]
                for block in blocks
            ],
            hovertemplate=(
                "n = %{y}: %{customdata[0]}<br>distance %{customdata[2]}<br>"
                f"first in %{{customdata[1]}} of replicates<br>the best may also begin at %{{customdata[3]}}"
                f"<extra>{kind}</extra>"
            ),
        )
        figure.add_scatter(
            x=[start for block in blocks for start in block.rivals],
            y=[block.n for block in blocks for _ in block.rivals],
            mode="markers",
            marker={"symbol": "line-ns", "size": 7, "line": {"width": 2.5, "color": figure_style.INPUTS[kind]}},
            showlegend=False,
            hoverinfo="skip",
        )
    return figure


def _opacity(block: BestBlock) -> float:
    return 0.9 if block.selection_frequency is None else 0.2 + 0.75 * block.selection_frequency


def _span_name(block: BestBlock) -> str:
    return wording.layer_names(range(block.layer, block.layer + block.n))


def _frequency(block: BestBlock) -> str:
    return "–" if block.selection_frequency is None else wording.percent(block.selection_frequency, 0)


def _others(block: BestBlock) -> str:
    return wording.may_also_begin(block.rivals) if block.confidence_set else "–"


def _frequencies(audit: Audit, scope: Scope, metric: str) -> go.Figure:
    figure = figure_style.new_figure(small_height(audit.depth), x="layers in the block n", y="share of replicates (%)")
    figure.update_yaxes(range=[-3, 105])
    for kind, values in _inputs(audit, scope, metric):
        known = [(block.n, share) for block in removable(values) if (share := block.selection_frequency) is not None]
        shares = [Estimate(value=round(100 * share, 2)) for _, share in known]
        _add_line(figure, kind, [n for n, _ in known], shares, [f"{e.value:.1f} %" for e in shares])
    return figure


def _distances(audit: Audit, scope: Scope, metric: str, title: str) -> go.Figure:
    figure = figure_style.new_figure(small_height(audit.depth), x="layers in the block n", y=title)
    for kind, values in _inputs(audit, scope, metric):
        blocks = removable(values)
        estimates = [block.distance for block in blocks]
        texts = [wording.number_estimate(estimate, 4) for estimate in estimates]
        _add_line(figure, kind, [block.n for block in blocks], estimates, texts)
    return figure


def _add_line(figure: go.Figure, kind: InputKind, x: list[int], estimates: list[Estimate], texts: list[str]) -> None:
    symbol, dash = figure_style.INPUT_SYMBOLS[kind], "solid" if kind == "speech" else "dash"
    name, colour = f"{kind} input", figure_style.INPUTS[kind]
    figure_style.add_line(figure, x, estimates, texts, name, colour, symbol=symbol, dash=dash)


def _table(audit: Audit, scope: Scope, metric: str, title: str) -> Table:
    columns, rows = ["n"], [[str(n)] for n in range(1, audit.depth + 1)]
    for kind, values in _inputs(audit, scope, metric):
        columns += [f"{kind}: layers", title, *COLUMNS]
        for row, block, best in zip_longest(rows, removable(values), values.best):
            row += _cells(block, best)
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
    name = _span_name(block).partition(" ")[2]
    same = "the same" if block.layer == best.layer else anywhere
    return [name, wording.number_estimate(block.distance), _frequency(block), _others(block), same]
