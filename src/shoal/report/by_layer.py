"""Values by layer, with intervals and the layers that were refused: as panels one above the other, and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.figure_style import Stretch, stretch_for
from shoal.report.units import PLAIN, Unit, unit_of
from shoal.schema import Estimate, Importance, InputKind
from shoal.tables import Table

PANEL = 118
"""Pixels of a panel."""


@dataclass(frozen=True)
class Series:
    """Layer → estimate as it is drawn, and layer → why it has none."""

    values: dict[int, Estimate]
    refused: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    """Layer → what else a reader must know, such as that it was measured on fewer clips."""
    unit: Unit = PLAIN
    low: bool = True
    """A low value goes first."""

    @classmethod
    def of(cls, estimates: Sequence[Estimate], *, low: bool) -> Series:
        """One estimate for each layer, none refused."""
        return cls(dict(enumerate(estimates)), low=low)

    def spread(self) -> list[tuple[int, Estimate | None]]:
        """All layers from the first to the last, so that a line breaks where one has no value."""
        layers = range(min(self.values, default=0), max(self.values, default=-1) + 1)
        return [(layer, self.values.get(layer)) for layer in layers]

    def bounds(self) -> list[float]:
        """Every number that must find room on the axis."""
        triples = [(e.low, e.value, e.high) for e in self.values.values()]
        return [bound for triple in triples for bound in triple if bound is not None]

    def order(self) -> list[int]:
        """Layers from the safest to remove to the most needed."""
        return sorted(self.values, key=lambda layer: self.values[layer].value * (1 if self.low else -1))

    def hover(self, layer: int) -> str:
        """What the pointer shows."""
        note = f"<br>{self.notes[layer]}" if layer in self.notes else ""
        unit = f" {self.unit.name}" if self.unit.name else ""
        return f"layer {layer}: {self.cell(layer)}{unit}{note}"

    def cell(self, layer: int) -> str:
        """The value with its interval, `refused`, or a dash."""
        if layer in self.values:
            return PLAIN.bare(self.values[layer])
        return "refused" if layer in self.refused else "–"


Panels: TypeAlias = dict[str, dict[str, Series]]
"""Title of a panel → line (an input, or a part of layers) → its values."""

STYLES: Mapping[str, dict[str, Any]] = {
    kind: {"name": f"{kind} input", "color": figure_style.INPUTS[kind], "symbol": figure_style.INPUT_SYMBOLS[kind]}
    for kind in figure_style.INPUTS
} | {
    part: {"name": name, "color": figure_style.PARTS[part], "symbol": figure_style.PART_SYMBOLS[part]}
    for part, name in figure_style.PART_NAMES.items()
}
"""Line of a panel → how it is drawn."""


def input_panels(lines: Iterable[tuple[str, InputKind, Series]]) -> Panels:
    """(title, input, values) as panels, without what has neither a value nor a reason for none."""
    panels: Panels = {}
    for title, kind, series in lines:
        if series.values or series.refused:
            panels.setdefault(title, {})[kind] = series
    return panels


def panel_title(item: Importance) -> str:
    """Such as `Ablation: rise of the loss (nats a token)`."""
    unit = unit_of(item.unit).name
    scope = "" if item.scope == "response" else f", {item.scope} tokens"
    return f"{item.metric.capitalize()}: {item.title or item.quantity}{scope}" + (f" ({unit})" if unit else "")


def single_layers(item: Importance) -> Series:
    """The candidates of one layer."""
    unit = unit_of(item.unit)
    index_of = {layers[0]: index for index, layers in enumerate(item.candidates) if len(layers) == 1}
    estimates = {layer: item.estimate(index) for layer, index in index_of.items()}
    return Series(
        values={layer: unit.scaled(estimate) for layer, estimate in sorted(estimates.items()) if estimate},
        refused={layer: item.refused[index] for layer, index in index_of.items() if index in item.refused},
        notes={layer: note for layer, index in index_of.items() if (note := fewer_clips(item, index))},
        unit=unit,
        low=item.low_is_redundant,
    )


def fewer_clips(item: Importance, index: int) -> str:
    """Says so where a race dropped a candidate before all clips were measured."""
    clips = item.clips[index]
    return "" if clips >= item.utterances else f"on {clips} of {wording.plural(item.utterances, 'clip')}"


def stacked(panels: Panels, depth: int, height: int = PANEL) -> go.Figure:
    """The panels one above the other; an axis is stretched where a few values tower over the rest."""
    figure = figure_style.new_stack(list(panels), height, x="decoder layer")
    for row, lines in enumerate(panels.values(), start=1):
        _draw_panel(figure, row, lines)
    figure.update_xaxes(range=[-0.6, depth - 0.4])
    return figure


def _draw_panel(figure: go.Figure, row: int, lines: dict[str, Series]) -> None:
    bounds = [bound for series in lines.values() for bound in series.bounds()]
    stretch = stretch_for(estimate.value for series in lines.values() for estimate in series.values.values())
    shift = 0.22 / max(1, len(lines))
    for number, (key, series) in enumerate(lines.items()):
        style = STYLES[key] | {"offset": shift * (number - (len(lines) - 1) / 2), "row": row}
        _draw_line(figure, series, style, stretch)
    top = stretch(max(bounds, default=1.0))
    for key, series in lines.items():
        _draw_refused(figure, series, STYLES[key] | {"row": row}, top)
    figure.update_yaxes(**stretch.ticks(bounds) if bounds else {}, row=row, col=1)


def _draw_line(figure: go.Figure, series: Series, style: dict[str, Any], stretch: Stretch) -> None:
    known = series.spread()
    figure.add_scatter(
        x=[layer + style["offset"] for layer, _ in known],
        y=[None if estimate is None else stretch(estimate.value) for _, estimate in known],
        error_y=figure_style.error_bars(
            [stretch.of(estimate) if estimate else Estimate(value=0.0) for _, estimate in known]
        )
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


def layer_table(panels: Panels, depth: int, caption: str) -> Table:
    """A row for each layer, a column for each line of each panel."""
    lines = [(f"{title}, {key}", series) for title, lines in panels.items() for key, series in lines.items()]
    rows = [[str(layer), *(series.cell(layer) for _, series in lines)] for layer in range(depth)]
    return Table(["Layer", *(name for name, _ in lines)], rows, caption)
