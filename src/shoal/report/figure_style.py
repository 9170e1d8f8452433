"""Colours, symbols, axes and the base layout of all figures; the page colours ink and grid by its theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import asinh, ceil, floor, log10
from statistics import median
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from shoal.schema import Estimate

# Okabe and Ito's palette: told apart with any common colour vision deficiency.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#8A93A0",
)
INPUTS = {"speech": BLUE, "text": VERMILLION}
INPUT_SYMBOLS = {"speech": "circle", "text": "diamond"}
STRATEGIES = {
    "contiguous": (BLUE, "circle", "solid"),
    "deepest": (ORANGE, "square", "dash"),
    "random": (GREY, "x", "dot"),
    "uniform": (VERMILLION, "triangle-up", "dashdot"),
    "lowest": (PURPLE, "diamond", "longdash"),
    "greedy": (SKY, "star", "solid"),
    "consensus": (GREEN, "hexagon", "dash"),
}
PARTS = {"layer": GREY, "attention": BLUE, "mlp": ORANGE}
PART_SYMBOLS = {"layer": "circle", "attention": "triangle-up", "mlp": "square"}
PART_NAMES = {"layer": "whole layer", "attention": "attention", "mlp": "MLP"}
OTHER = ("#9A2C5F", "pentagon", "longdashdot")
METRICS = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY, OTHER[0])
"""Given to metrics in the order in which they come."""
TARGETS = {
    "none": (GREY, "x-thin", "dot"),
    "receiver": (BLUE, "circle", "solid"),
    "projector": (ORANGE, "square", "dash"),
    "decoder": (VERMILLION, "triangle-up", "dashdot"),
    "joint": (PURPLE, "diamond", "longdash"),
    "joint-decoder": (PURPLE, "diamond-open", "dot"),
    "head": (SKY, "star", "longdashdot"),
    "replace": (OTHER[0], "hexagon-open", "longdash"),
    "linear": (BLUE, "triangle-down-open", "dot"),
    "chain": (GREEN, "triangle-up-open", "dash"),
}

# ColorBrewer YlGnBu, reversed: monotonic in lightness; the dark end is "alike", so redundancy stands out.
DISTANCE_SCALE = [
    [0.0, "#081d58"],
    [0.14, "#253494"],
    [0.28, "#225ea8"],
    [0.42, "#1d91c0"],
    [0.56, "#41b6c4"],
    [0.7, "#7fcdbb"],
    [0.84, "#c7e9b4"],
    [1.0, "#f7fbd8"],
]
# ColorBrewer PuOr: diverging, colour-blind safe, light in the middle.
DIFFERENCE_SCALE = [
    [0.0, "#7f3b08"],
    [0.15, "#b35806"],
    [0.3, "#fdb863"],
    [0.5, "#f7f7f7"],
    [0.7, "#b2abd2"],
    [0.85, "#542788"],
    [1.0, "#2d004b"],
]
# ColorBrewer Blues and Oranges, without their darkest ends so that numbers can be read on every cell.
AGREEMENT_SCALE = [[0.0, "#f7fbff"], [0.35, "#deebf7"], [0.6, "#9ecae1"], [0.8, "#4292c6"], [1.0, "#08519c"]]
LOSS_SCALE = [[0.0, "#fff5eb"], [0.35, "#fdd0a2"], [0.7, "#fd8d3c"], [1.0, "#a63603"]]

BELOW_AXIS = 50
"""Pixels that tick labels and the title of an x axis take."""
BUTTONS = 30
"""Pixels above a plot that keep its buttons clear of it."""
BEST_MARK: dict[str, Any] = {"symbol": "circle", "color": "#ffd23f", "line": {"width": 1, "color": "#1b2330"}}
CROSS_MARK: dict[str, Any] = {"symbol": "x-thin", "line": {"width": 2, "color": "#c92a2a"}}

LOG_TICKS = [step * 10**power for power in range(-6, 4) for step in (1, 2, 5)]


def strategy_style(name: str) -> tuple[str, str, str]:
    """Colour, symbol and dash of a strategy; hollow marks where it removes only a part (`contiguous, MLP`)."""
    strategy, _, part = name.partition(", ")
    colour, symbol, dash = STRATEGIES.get(strategy, OTHER)
    hollow = {PART_NAMES[key]: f"{PART_SYMBOLS[key]}-open" for key in ("attention", "mlp")}
    return (colour, hollow[part], "dot" if part == "MLP" else "dashdot") if part in hollow else (colour, symbol, dash)


def turned(scale: list[list[Any]]) -> list[list[Any]]:
    """A colour scale from its other end."""
    return [[1 - position, colour] for position, colour in reversed(scale)]


def new_figure(height: int, *, x: str, y: str, legend: bool = True) -> go.Figure:
    """An empty figure with titled axes, legend on top and no title of its own."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 8, "r": 12, "t": 8 if not legend else 32, "b": 8},
        showlegend=legend,
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        hovermode="closest",
        xaxis={"title": {"text": x, "standoff": 8}, "automargin": True, "zeroline": False},
        yaxis={"title": {"text": y, "standoff": 8}, "automargin": True, "zeroline": False},
    )
    return figure


def new_stack(titles: Sequence[str], height: int, *, x: str) -> go.Figure:
    """Panels one above the other that share the x axis, each under its own title.

    Args:
        titles: of the panels, from the top.
        height: of each panel.
        x: title of the shared axis.
    """
    total = height * len(titles) + 90
    gap = min(0.5 / max(1, len(titles) - 1), 36 / total)
    figure = make_subplots(len(titles), 1, shared_xaxes=True, vertical_spacing=gap, subplot_titles=list(titles))
    base = new_figure(total, x="", y="").layout.to_plotly_json()
    figure.update_layout({key: value for key, value in base.items() if key not in ("xaxis", "yaxis")})
    figure.update_layout(margin_t=62, legend_y=1 + 24 / (total - 66))
    figure.update_annotations(x=0, xanchor="left", font={"size": 12.5}, yshift=1)
    figure.update_xaxes(zeroline=False, automargin=True)
    figure.update_yaxes(zeroline=False, automargin=True)
    figure.update_xaxes(title={"text": x, "standoff": 8}, row=len(titles), col=1)
    return figure


def flat_bar(tickvals: Sequence[float] | None, ticktext: Sequence[str] | None, *, plot: int) -> dict[str, Any]:
    """A colour bar that lies under a heatmap and its x axis.

    Args:
        tickvals: where its ticks are; None leaves that to plotly.
        ticktext: what they say.
        plot: pixels that the heatmap itself is high, about.
    """
    ticks = {} if tickvals is None else {"tickvals": list(tickvals), "ticktext": list(ticktext or [])}
    return {
        "orientation": "h",
        "y": -BELOW_AXIS / plot,
        "yanchor": "top",
        "thickness": 10,
        "len": 0.7,
        "outlinewidth": 0,
    } | ticks


def error_bars(estimates: Sequence[Estimate], scale: float = 1.0) -> dict[str, Any]:
    """Asymmetric error bars; of length 0 where there is no interval."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [scale * ((e.value if e.high is None else e.high) - e.value) for e in estimates],
        "arrayminus": [scale * (e.value - (e.value if e.low is None else e.low)) for e in estimates],
        "thickness": 1.4,
        "width": 3,
    }


def add_marks(figure: go.Figure, points: Sequence[tuple[float, float | str]], marker: dict[str, Any]) -> None:
    """Small marks on the cells of a heatmap, without a legend and silent under the pointer."""
    figure.add_scatter(
        x=[x for x, _ in points],
        y=[y for _, y in points],
        mode="markers",
        hoverinfo="skip",
        showlegend=False,
        marker=marker | {"size": 6},
    )


def add_band(figure: go.Figure, x: Sequence[float], estimates: Sequence[Estimate], colour: str, name: str) -> None:
    """The intervals of a line as a translucent band; nothing if one of them is missing."""
    if any(e.low is None or e.high is None for e in estimates):
        return
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[e.high for e in estimates] + [e.low for e in reversed(estimates)],
        mode="lines",
        fill="toself",
        fillcolor=translucent(colour, 0.18),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=name,
        name=name,
    )


def add_line(
    figure: go.Figure,
    x: Sequence[int],
    estimates: Sequence[Estimate],
    texts: Sequence[str],
    name: str,
    colour: str,
    *,
    symbol: str = "circle",
    dash: str = "solid",
) -> None:
    """Estimates by n as a line in its band; the pointer shows the texts."""
    add_band(figure, x, estimates, colour, name)
    figure.add_scatter(
        x=list(x),
        y=[estimate.value for estimate in estimates],
        customdata=list(texts),
        hovertemplate="n = %{x}: %{customdata}<extra></extra>",
        mode="lines+markers",
        name=name,
        legendgroup=name,
        line={"color": colour, "width": 2, "dash": dash},
        marker={"symbol": symbol, "size": 6, "color": colour},
    )


def escaped(text: str) -> str:
    """Text from data inside plotly's labels, which know a few tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:.2f})"


TOWERS = 8.0
"""Largest value over the median from which a linear axis would flatten what matters."""
MOST_TICKS = 5


@dataclass(frozen=True)
class Stretch:
    """The scale of one axis; plain if `linear` is None, else linear up to about `linear`."""

    linear: float | None

    def __call__(self, value: float) -> float:
        """Where a value stands on the axis."""
        return value if self.linear is None else asinh(value / self.linear)

    def of(self, estimate: Estimate) -> Estimate:
        """Where an estimate and its bounds stand on the axis."""
        low, high = (None if bound is None else self(bound) for bound in (estimate.low, estimate.high))
        return estimate.model_copy(update={"value": self(estimate.value), "low": low, "high": high})

    def ticks(self, values: Sequence[float]) -> dict[str, Any]:
        """Plotly's `tickvals` and `ticktext` for the span of `values`; empty where the axis is plain."""
        if self.linear is None:
            return {}
        shown = _labels(self.linear, min(values), max(values))
        return {"tickvals": [self(tick) for tick in shown], "ticktext": [_text(tick) for tick in shown]}


def stretch_for(values: Iterable[float]) -> Stretch:
    """Plain unless the largest size of a value is many times the median size."""
    sizes = sorted(abs(value) for value in values if value)
    if not sizes or sizes[-1] <= TOWERS * median(sizes):
        return Stretch(None)
    return Stretch(median(sizes))


def _labels(linear: float, low: float, high: float) -> list[float]:
    """Zero, and powers of ten on either side, thinned out from below where they are many."""
    top = max(abs(low), abs(high))
    powers = [10.0**power for power in range(ceil(log10(linear)), floor(log10(top)) + 1)]
    step = max(1, ceil(len(powers) / MOST_TICKS))
    kept = (powers or [float(f"{top:.1g}")])[::-1][::step]
    return sorted([0.0, *(p for p in kept if p <= high), *(-p for p in kept if -p >= low)])


def _text(value: float) -> str:
    return f"{value:g}".replace("-", "−")
