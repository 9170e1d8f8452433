"""Colours, symbols and the base layout of all figures; the page colours ink and grid by its theme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

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
}
OTHER = ("#9A2C5F", "pentagon", "longdashdot")

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

LOG_TICKS = [step * 10**power for power in range(-6, 4) for step in (1, 2, 5)]


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


def add_band(
    figure: go.Figure, x: Sequence[float], estimates: Sequence[Estimate], colour: str, name: str
) -> None:
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


def translucent(colour: str, alpha: float) -> str:
    """`#rrggbb` with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:.2f})"
