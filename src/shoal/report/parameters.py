"""Where the parameters are: encoder, projector, decoder layers, embeddings and head."""

from __future__ import annotations

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle
from shoal.report.parts import Figure, Section
from shoal.schema import ModelInfo
from shoal.tables import Table

ID, TITLE, SHORT = "parameters", "Where the parameters are", "Parameters"


def build(bundle: Bundle) -> Section:
    """One bar and one table; nothing is measured here, these are counts."""
    model = bundle.model
    if model is None or not model.total_parameters:
        missing = "Not measured: no audit, scores or bench with parameter counts was given."
        return Section(ID, TITLE, SHORT, missing=missing)
    view = {
        "lead": _lead(model),
        "legend": [(name, colour, wording.percent(n / model.total_parameters)) for name, n, colour in parts(model)],
        "figure": _figure(model),
        "table": _table(model),
    }
    return Section(ID, TITLE, SHORT, template="parameters.html", view=view, draws=True)


def parts(model: ModelInfo) -> list[tuple[str, int, str]]:
    """Name, count and colour of each part that has parameters, in the order data flows through them."""
    layers = sum(model.decoder_layer_parameters)
    known = [
        ("Encoder", model.encoder_parameters, figure_style.SKY),
        ("Projector", model.projector_parameters, figure_style.ORANGE),
        (f"Decoder layers ({model.depth})", layers, figure_style.BLUE),
        ("Embeddings, head and norms", model.decoder_other_parameters, figure_style.GREY),
    ]
    rest = model.total_parameters - sum(count for _, count, _ in known)
    if rest > 0:
        known.append(("Elsewhere", rest, figure_style.PURPLE))
    return [part for part in known if part[1] > 0]


def _lead(model: ModelInfo) -> str:
    layers = model.decoder_layer_parameters
    share = sum(layers) / model.total_parameters
    layer = f" One layer is {wording.percent(max(layers) / model.total_parameters)} of the model." if layers else ""
    return (
        f"{wording.percent(share)} of {wording.count(model.total_parameters)} parameters sit in the "
        f"{model.depth} decoder layers, the only part that this report considers removing.{layer}"
    )


def _figure(model: ModelInfo) -> Figure:
    figure = figure_style.new_figure(140, x="share of all parameters (%)", y="", legend=False)
    for name, count, colour in parts(model):
        share = 100 * count / model.total_parameters
        figure.add_bar(
            x=[share],
            y=[""],
            name=name,
            orientation="h",
            marker={"color": colour, "line": {"width": 0}},
            text=f"{share:.0f} %" if share >= 6 else "",
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={
                "color": "#ffffff" if colour in (figure_style.BLUE, figure_style.PURPLE) else "#1b2330",
                "size": 13,
            },
            hovertemplate=f"{name}<br>{count:,} parameters<br>{share:.2f} %<extra></extra>",
        )
    _finish(figure)
    return Figure(
        id="parameters-figure",
        title="Share of each part",
        caption="Exact counts; weights used twice (a tied head) are counted once.",
        variants={"": figure},
    )


def _finish(figure: go.Figure) -> None:
    figure.update_layout(barmode="stack", bargap=0, margin_t=28)
    figure.update_xaxes(range=[0, 100], showgrid=False)
    figure.update_yaxes(showticklabels=False, showgrid=False, fixedrange=True)


def _table(model: ModelInfo) -> Table:
    total = model.total_parameters
    rows = [[name, f"{count:,}", wording.percent(count / total)] for name, count, _ in parts(model)]
    rows.append(["All", f"{total:,}", wording.percent(1.0)])
    return Table(
        caption=f"Parameters of {model.class_name}",
        columns=["Part", "Parameters", "Share"],
        rows=rows,
        highlight=frozenset({len(rows) - 1}),
    )
