"""What sections are made of, beside tables: figures, tiles, controls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup


@dataclass(frozen=True)
class Figure:
    """A plotly figure, in one variant or in several that a control switches between.

    Attributes:
        id: of the element; unique in the page.
        title: above the figure.
        caption: below it: what is shown, in words.
        variants: name → figure, or name → a sentence where there is nothing to draw.
        default: the variant shown first.
        group: name of the controls that switch it ("" for none).
    """

    id: str
    title: str
    caption: str
    variants: Mapping[str, go.Figure | str]
    default: str = ""
    group: str = ""

    @property
    def shown(self) -> str:
        """The variant shown first."""
        return self.default if self.default in self.variants else next(iter(self.variants))

    @property
    def height(self) -> int:
        """Pixels kept free for the plot, so that the page does not jump."""
        heights = [figure.layout.height for figure in self.variants.values() if isinstance(figure, go.Figure)]
        return max(heights, default=80)

    @property
    def payload(self) -> Markup:
        """JSON that can stand inside a script element: no `<` is left in it."""
        variants = {name: _variant(figure) for name, figure in self.variants.items()}
        text = json.dumps(
            {"default": self.shown, "variants": variants}, separators=(",", ":"), allow_nan=False, ensure_ascii=False
        )
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _variant(figure: go.Figure | str) -> dict[str, Any]:
    if isinstance(figure, str):
        return {"note": figure}
    plain: dict[str, Any] = json.loads(figure.to_json())
    plain["layout"].pop("template", None)
    return {"data": plain["data"], "layout": plain["layout"]}


@dataclass(frozen=True)
class Tile:
    """One figure of the headline."""

    value: str
    label: str
    detail: str
    interval: str = ""


@dataclass(frozen=True)
class Control:
    """One control: a name and the values to choose from (value → label)."""

    name: str
    legend: str
    values: Mapping[str, str]
    selected: str


@dataclass(frozen=True)
class Section:
    """A section of the page: a template and its view, or a sentence on what is missing."""

    id: str
    title: str
    short: str
    template: str = ""
    view: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""
    draws: bool = False
    """Whether it holds figures."""
