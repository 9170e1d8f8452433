"""What the task loses without each layer, beside what the cheaper metrics say of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.best_blocks import layer_panels
from shoal.report.bundle import Bundle, Named
from shoal.report.by_layer import PANEL, Panels, Series, input_panels, layer_table, panel_title, single_layers, stacked
from shoal.report.heatmaps import KINDS, group_of, measured_scopes, metric_names, scope_choice, values_of
from shoal.report.importance_blocks import best_table, block_figures
from shoal.report.parts import Figure, Section
from shoal.report.units import score_text
from shoal.schema import Audit, Estimate, Importance, InputAudit, InputKind, Scope
from shoal.tables import Table

ID, TITLE, SHORT = "importance", "What the task loses without each layer", "Importance"
FIRST = 3
"""Layers circled in each row of the orders."""
PANELS = (
    "Layer by layer: what was measured, and what the metrics say",
    "Top: what the task really loses without the layer. Below: the metrics that need no such trial, for the "
    "positions chosen above. Whiskers are intervals; a cross marks a layer that was refused. Axes are "
    "logarithmic away from zero where a few layers tower over the rest.",
)
ORDERS = (
    "The order each of them gives",
    "Dark: among the first to go; pale: among the last. Circles: its first 3. Where columns are dark from top "
    "to bottom, all agree; empty: refused or not measured.",
)


def build(bundle: Bundle) -> Section | None:
    """One article for each audit that measured importance; None where none did."""
    articles = [
        _article(named, index, bundle)
        for index, named in enumerate(bundle.audits)
        if any(part.importance for part in named.document.inputs.values())
    ]
    if not articles:
        return None
    return Section(ID, TITLE, SHORT, template="importance.html", view={"articles": articles}, draws=True)


def _article(named: Named[Audit], index: int, bundle: Bundle) -> dict[str, Any]:
    audit = named.document
    choice = scope_choice(audit, bundle.preferred_scope)
    by_scope = {str(scope): panels(audit, scope) for scope in measured_scopes(audit)}

    def figure(what: str, words: tuple[str, str], draw: Callable[[Panels, int], go.Figure]) -> Figure:
        nothing = "Not measured: no single layer was tried."
        variants = {scope: draw(rows, audit.depth) if rows else nothing for scope, rows in by_scope.items()}
        return Figure(f"{what}-{index}", *words, variants, choice.selected, group_of(index))

    caption = "Importance of each layer; influence and distance in scope “{}”"
    return {
        "heading": named.heading,
        "lead": _lead(audit),
        "group": group_of(index),
        "choices": [choice],
        "panels": figure("importance", PANELS, stacked),
        "orders": figure("orders", ORDERS, _order_map),
        "parts": _part_figures(audit, index),
        "blocks": block_figures(audit, index),
        "best": best_table(audit),
        "tables": {scope: layer_table(rows, audit.depth, caption.format(scope)) for scope, rows in by_scope.items()},
        "refused": _refused(audit),
    }


def _lead(audit: Audit) -> str:
    items = [item for part in audit.inputs.values() for item in part.importance]
    what = (
        "Ablation leaves layers out and measures what the task loses. "
        if any(item.measured for item in items)
        else "No layer was left out for these figures: the gradient says what leaving it out would cost, to "
        "first order. "
    )
    tokens = wording.listing(list(dict.fromkeys(_full_words(item, item.full) for item in items if item.full)))
    unpruned = f" The unpruned model: {tokens}." if tokens else ""
    clips = max(item.utterances for item in items)
    first = "lower" if all(item.low_is_redundant for item in items) else "darker in the orders below"
    return f"{what}The {first}, the safer to remove. Up to {wording.plural(clips, 'clip')}.{unpruned}"


def _full_words(item: Importance, full: Estimate) -> str:
    if item.noun:
        return f"{item.quantity} {wording.number_estimate(full)} {item.unit}"
    return f"{item.unit} {score_text(item.unit, full)}"


def panels(audit: Audit, scope: Scope) -> Panels:
    """Title → input → values by layer: importance first, the measured ones on top, then cosines over `scope`."""
    items = [(item, kind) for kind, part in _inputs(audit) for item in part.usual_importance() if item.part == "layer"]
    rows = input_panels((panel_title(item), kind, single_layers(item)) for item, kind in _ordered(items))
    return rows and rows | layer_panels(audit, scope) | _single_layers_of_blocks(audit, scope)


def _ordered(items: Sequence[tuple[Importance, InputKind]]) -> list[tuple[Importance, InputKind]]:
    """What was measured in earnest, errors before nats, then the rest."""
    return sorted(items, key=lambda pair: (not pair[0].measured, bool(pair[0].noun)))


def _single_layers_of_blocks(audit: Audit, scope: Scope) -> Panels:
    return input_panels(
        (f"{title.capitalize()} of the single layer", kind, Series.of(values.of_layers(), low=values.low_is_redundant))
        for name, title in metric_names(audit, "block").items()
        for kind in KINDS
        if not isinstance(values := values_of(audit, kind, scope, name), str)
    )


def _inputs(audit: Audit) -> list[tuple[InputKind, InputAudit]]:
    return [(kind, audit.inputs[kind]) for kind in KINDS if kind in audit.inputs]


def _order_map(rows: Panels, depth: int) -> go.Figure:
    lines = [
        (f"{_short(title)}<br>{kind}", series.order())
        for title, kinds in rows.items()
        for kind, series in kinds.items()
    ]
    plot = 34 * len(lines)
    figure = figure_style.new_figure(plot + 118, x="decoder layer", y="", legend=False)
    figure.update_layout(margin_t=figure_style.BUTTONS)
    figure.add_heatmap(
        x=list(range(depth)),
        y=[name for name, _ in lines],
        z=[[_share(order, layer) for layer in range(depth)] for _, order in lines],
        zmin=0,
        zmax=1,
        colorscale=figure_style.DISTANCE_SCALE,
        xgap=1,
        ygap=2,
        hoverongaps=False,
        customdata=[[_rank(order, layer) for layer in range(depth)] for _, order in lines],
        hovertemplate="layer %{x}: %{customdata} to go<extra></extra>",
        colorbar=figure_style.flat_bar([0, 1], ["first to go", "last to go"], plot=plot),
    )
    first = [(layer, name) for name, order in lines for layer in order[:FIRST]]
    figure_style.add_marks(figure, first, figure_style.BEST_MARK)
    figure.update_xaxes(showgrid=False, range=[-0.6, depth - 0.4])
    figure.update_yaxes(showgrid=False, autorange="reversed", ticklabelstandoff=4)
    return figure


def _short(title: str) -> str:
    """Labels must leave a phone some room for the figure."""
    name = title.partition(" (")[0].replace(": rise of the ", ": ").replace(": rise of ", ": ")
    for end in (
        ": absolute value of each clip",
        " value of each position",
        " of the single layer",
        " from the full model",
    ):
        name = name.removesuffix(end)
    return name.replace("Block i", "I")


def _share(order: Sequence[int], layer: int) -> float | None:
    if layer not in order:
        return None
    return round(order.index(layer) / max(1, len(order) - 1), 4)


def _rank(order: Sequence[int], layer: int) -> str:
    return f"number {order.index(layer) + 1} of {len(order)}" if layer in order else ""


def _part_figures(audit: Audit, index: int) -> list[Figure]:
    """One for each input of which attention or MLP was measured: title → part → values."""
    figures = []
    for kind, part in _inputs(audit):
        lines: Panels = {}
        for item, _ in _ordered([(item, kind) for item in part.usual_importance()]):
            lines.setdefault(panel_title(item), {})[item.part] = single_layers(item)
        if lines := {title: parts for title, parts in lines.items() if parts.keys() - {"layer"}}:
            figure = stacked(lines, audit.depth, PANEL + 30)
            title = f"Attention and MLP apart, {kind} input"
            caption = "What is lost without only the attention, only the MLP, or the whole layer, with interval."
            figures.append(Figure(f"parts-{index}-{kind}", title, caption, {"": figure}))
    return figures


def _refused(audit: Audit) -> Table | None:
    rows = [
        [f"{item.name}, {kind}", wording.layer_names(item.candidates[index]), reason]
        for kind, part in _inputs(audit)
        for item in part.importance
        for index, reason in item.refused.items()
    ]
    columns = ["Measure", "Without", "Why it has no value and must not be chosen"]
    return Table(columns, rows, "Refused", text_columns=frozenset({1, 2})) if rows else None
