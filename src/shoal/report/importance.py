"""What the task loses without each layer, beside what the cheaper metrics say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.best_blocks import influences
from shoal.report.bundle import Bundle, Named
from shoal.report.heatmaps import KINDS, group_of, heading, measured_scopes, scope_choice, scope_of
from shoal.report.importance_blocks import block_figures
from shoal.report.importance_series import Series, panel_title, single_layers
from shoal.report.parts import Figure, Section, Table
from shoal.report.stretch import stretch_for
from shoal.report.units import score_text
from shoal.schema import Audit, Estimate, Importance, InputAudit, InputKind, Scope, ScopeAudit

ID, TITLE, SHORT = "importance", "What the task loses without each layer", "Importance"
PANEL = 118
SHOWN = (
    ("ablation", "score"),
    ("ablation", "loss"),
    ("ablation", "kl"),
    ("gradient", "absolute"),
)
"""Metric and quantity, the measured ones first."""
FIRST = 3
"""Layers circled in each row of the orders."""
Panels = dict[str, dict[InputKind, Series]]


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
    scopes = measured_scopes(audit)
    return {
        "heading": heading(named),
        "lead": _lead(audit),
        "group": group_of(index),
        "choices": [choice],
        "panels": Figure(
            f"importance-{index}", *PANELS, _variants(audit, _stack), choice.selected, group_of(index)
        ),
        "orders": Figure(
            f"orders-{index}", *ORDERS, _variants(audit, _order_map), choice.selected, group_of(index)
        ),
        "parts": _part_figures(audit, index),
        "blocks": block_figures(audit, index),
        "tables": {str(scope): _table(audit, scope) for scope in scopes},
        "refused": _refused(audit),
    }


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


def _variants(audit: Audit, draw: Any) -> dict[str, go.Figure | str]:
    found = {str(scope): panels(audit, scope) for scope in measured_scopes(audit)}
    nothing = "Not measured: no single layer was tried."
    return {scope: draw(rows, audit.depth) if rows else nothing for scope, rows in found.items()}


def _lead(audit: Audit) -> str:
    items = [item for part in audit.inputs.values() for item in part.importance]
    ablation = any(item.metric == "ablation" for item in items)
    what = (
        "Ablation leaves layers out and measures what the task loses. "
        if ablation
        else "No layer was left out for these figures: the gradient says what leaving it out would cost, to "
        "first order. "
    )
    tokens = wording.listing(list(dict.fromkeys(_full_words(item, item.full) for item in items if item.full)))
    unpruned = f" The unpruned model: {tokens}." if tokens else ""
    clips = max(item.utterances for item in items)
    return f"{what}The lower, the safer to remove. Up to {wording.plural(clips, 'clip')}.{unpruned}"


def _full_words(item: Importance, full: Estimate) -> str:
    if item.quantity == "score":
        return f"{item.unit} {score_text(item.unit, full)}"
    return f"{item.quantity} {wording.number_estimate(full)} {item.unit}"


def panels(audit: Audit, scope: Scope) -> Panels:
    """Title → input → values by layer: importance first, then influence and distance over `scope`."""
    found: Panels = {}
    for metric, quantity in SHOWN:
        for kind, part in _inputs(audit):
            for item in part.importance:
                if (item.metric, item.quantity, item.part) == (metric, quantity, "layer"):
                    _put(found, panel_title(item), kind, single_layers(item))
    for kind in KINDS:
        measured = scope_of(audit, kind, scope)
        if found and isinstance(measured, ScopeAudit):
            _put(found, "Block influence", kind, Series.of(influences(measured)))
            _put(found, "Angular distance of the single layer", kind, Series.of(_distances(measured)))
    order = ("Block influence", "Angular distance of the single layer")
    return {title: found[title] for title in sorted(found, key=lambda t: t in order and order.index(t) + 1)}


def _inputs(audit: Audit) -> list[tuple[InputKind, InputAudit]]:
    return [(kind, audit.inputs[kind]) for kind in KINDS if kind in audit.inputs]


def _put(found: Panels, title: str, kind: InputKind, series: Series) -> None:
    if series.values or series.refused:
        found.setdefault(title, {})[kind] = series


def _distances(part: ScopeAudit) -> list[Estimate]:
    values = part.angular[0]
    nothing: list[float | None] = [None] * len(values)
    low = part.angular_low[0] if part.angular_low else nothing
    high = part.angular_high[0] if part.angular_high else nothing
    return [Estimate(value=v, low=a, high=b) for v, a, b in zip(values, low, high, strict=True)]


def _stack(rows: Panels, depth: int) -> go.Figure:
    figure = figure_style.new_stack(list(rows), PANEL, x="decoder layer")
    for row, inputs in enumerate(rows.values(), start=1):
        styles: dict[str, dict[str, Any]] = {
            kind: {
                "name": f"{kind} input",
                "color": figure_style.INPUTS[kind],
                "symbol": figure_style.INPUT_SYMBOLS[kind],
            }
            for kind in inputs
        }
        draw_panel(figure, row, {str(kind): series for kind, series in inputs.items()}, styles)
    figure.update_xaxes(range=[-0.6, depth - 0.4])
    return figure


def draw_panel(
    figure: go.Figure, row: int, lines: dict[str, Series], styles: dict[str, dict[str, Any]]
) -> None:
    """The lines of one panel on one axis, which is stretched where a few values tower over the rest."""
    bounds = [bound for series in lines.values() for bound in series.bounds()]
    stretch = stretch_for(value for series in lines.values() for value in series.sizes())
    shift = 0.22 / max(1, len(lines))
    for place, (key, series) in enumerate(lines.items()):
        style = styles[key] | {"offset": shift * (place - (len(lines) - 1) / 2), "row": row}
        _draw_line(figure, series, style, stretch)
    top = stretch(max(bounds, default=1.0))
    for key, series in lines.items():
        _draw_refused(figure, series, styles[key] | {"row": row}, top)
    figure.update_yaxes(**stretch.ticks(bounds) if bounds else {}, row=row, col=1)


def _draw_line(figure: go.Figure, series: Series, style: dict[str, Any], stretch: Any) -> None:
    known = series.spread()
    figure.add_scatter(
        x=[layer + style["offset"] for layer, _ in known],
        y=[None if estimate is None else stretch(estimate.value) for _, estimate in known],
        error_y=figure_style.error_bars([_stretched(estimate, stretch) for _, estimate in known])
        | {"color": figure_style.translucent(style["color"], 0.55), "width": 0},
        mode="lines+markers",
        name=style["name"],
        legendgroup=style["name"],
        showlegend=not any(trace.name == style["name"] for trace in figure.data),
        line={"color": figure_style.translucent(style["color"], 0.45), "width": 1.2},
        marker={"color": style["color"], "symbol": style["symbol"], "size": 6},
        customdata=[series.hover(layer) for layer, _ in known],
        hovertemplate=f"%{{customdata}}<extra>{style['name']}</extra>",
        row=style["row"],
        col=1,
    )


def _stretched(estimate: Estimate | None, stretch: Any) -> Estimate:
    if estimate is None:
        return Estimate(value=0.0)
    low, high = (None if bound is None else stretch(bound) for bound in (estimate.low, estimate.high))
    return Estimate(value=stretch(estimate.value), low=low, high=high)


def _draw_refused(figure: go.Figure, series: Series, style: dict[str, Any], top: float) -> None:
    if not series.refused:
        return
    figure.add_scatter(
        x=list(series.refused),
        y=[top] * len(series.refused),
        mode="markers",
        name="refused",
        legendgroup="refused",
        showlegend=False,
        marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": style["color"]}},
        customdata=list(series.refused.values()),
        hovertemplate=f"layer %{{x}} refused: %{{customdata}}<extra>{style['name']}</extra>",
        row=style["row"],
        col=1,
    )


def _order_map(rows: Panels, depth: int) -> go.Figure:
    lines = [
        (f"{_short(title)}<br>{kind}", series)
        for title, kinds in rows.items()
        for kind, series in kinds.items()
    ]
    plot = 34 * len(lines)
    figure = figure_style.new_figure(plot + 118, x="decoder layer", y="", legend=False)
    figure.update_layout(margin_t=figure_style.BUTTONS)
    names = [name for name, _ in lines]
    orders = [series.order() for _, series in lines]
    figure.add_heatmap(
        x=list(range(depth)),
        y=names,
        z=[[_share(order, layer) for layer in range(depth)] for order in orders],
        zmin=0,
        zmax=1,
        colorscale=figure_style.DISTANCE_SCALE,
        xgap=1,
        ygap=2,
        hoverongaps=False,
        customdata=[[_place(order, layer) for layer in range(depth)] for order in orders],
        hovertemplate="layer %{x}: %{customdata} to go<extra></extra>",
        colorbar=figure_style.flat_bar([0, 1], ["first to go", "last to go"], plot=plot),
    )
    first = [(layer, name) for name, order in zip(names, orders, strict=True) for layer in order[:FIRST]]
    figure_style.add_marks(figure, first, figure_style.BEST_MARK)
    figure.update_xaxes(showgrid=False, range=[-0.6, depth - 0.4])
    figure.update_yaxes(showgrid=False, autorange="reversed", ticklabelstandoff=4)
    return figure


def _short(title: str) -> str:
    """Labels must leave a phone some room for the figure."""
    name = title.partition(" (")[0].replace(": absolute", "")
    for long, short in (("Ablation: rise of the ", "Ablation: "), ("Ablation: rise of ", "Ablation: ")):
        name = name.replace(long, short)
    return (
        name.replace(" of the single layer", "").replace(" from the full model", "").replace("Block i", "I")
    )


def _share(order: Sequence[int], layer: int) -> float | None:
    if layer not in order:
        return None
    return round(order.index(layer) / max(1, len(order) - 1), 4)


def _place(order: Sequence[int], layer: int) -> str:
    return f"number {order.index(layer) + 1} of {len(order)}" if layer in order else ""


def _part_figures(audit: Audit, index: int) -> list[Figure]:
    found = []
    for kind, part in _inputs(audit):
        lines = _part_lines(part.importance)
        if lines:
            found.append(_part_figure(lines, kind, f"parts-{index}-{kind}", audit.depth))
    return found


def _part_lines(items: Sequence[Importance]) -> dict[str, dict[str, Series]]:
    """Title → part → values, for what was measured of attention or MLP."""
    lines: dict[str, dict[str, Series]] = {}
    for metric, quantity in SHOWN:
        for item in items:
            if (item.metric, item.quantity) == (metric, quantity):
                lines.setdefault(panel_title(item), {})[item.part] = single_layers(item)
    return {title: parts for title, parts in lines.items() if parts.keys() - {"layer"}}


def _part_figure(lines: dict[str, dict[str, Series]], kind: InputKind, name: str, depth: int) -> Figure:
    figure = figure_style.new_stack(list(lines), PANEL + 30, x="decoder layer")
    for row, parts in enumerate(lines.values(), start=1):
        styles: dict[str, dict[str, Any]] = {
            part: {
                "name": figure_style.PART_NAMES[part],
                "color": figure_style.PARTS[part],
                "symbol": figure_style.PART_SYMBOLS[part],
            }
            for part in parts
        }
        draw_panel(figure, row, parts, styles)
    figure.update_xaxes(range=[-0.6, depth - 0.4])
    caption = "What is lost without only the attention, only the MLP, or the whole layer, with interval."
    return Figure(name, f"Attention and MLP apart, {kind} input", caption, {"": figure})


def _table(audit: Audit, scope: Scope) -> Table:
    columns, rows = ["Layer"], [[str(layer)] for layer in range(audit.depth)]
    for title, kinds in panels(audit, scope).items():
        for kind, series in kinds.items():
            columns.append(f"{title}, {kind}")
            for layer, row in enumerate(rows):
                row.append(series.cell(layer))
    caption = f"Importance of each layer; influence and distance in scope “{scope}”"
    return Table(caption=caption, columns=columns, rows=rows)


def _refused(audit: Audit) -> Table | None:
    rows = [
        [f"{item.name}, {kind}", wording.layer_names(item.candidates[place]), reason]
        for kind, part in _inputs(audit)
        for item in part.importance
        for place, reason in item.refused.items()
    ]
    if not rows:
        return None
    columns = ["Measure", "Without", "Why it has no value and must not be chosen"]
    return Table("Refused", columns, rows, text_columns=frozenset({1, 2}))
