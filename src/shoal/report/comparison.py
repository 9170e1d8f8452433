"""How alike two audits are: rank correlations, and the overlap of the blocks they choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.heatmaps import SCOPE_NAMES
from shoal.report.parts import Control, Figure, Section
from shoal.report.units import Unit
from shoal.schema import BlockOverlap, Comparison, Estimate, Scope, ScopeComparison
from shoal.tables import NONE, Table

ID, TITLE, SHORT = "comparison", "Are speech and text redundant in the same layers?", "Comparison"
OTHER_TITLE = "Do the audits agree?"
PERCENT = Unit("%", 100)


def build(bundle: Bundle) -> Section:
    """One article for each comparison."""
    if not bundle.comparisons:
        missing = "Not measured: no comparison was given. “shoal compare” makes one from two audits or two inputs."
        return Section(ID, TITLE, SHORT, missing=missing)
    inputs = [{named.document.a.input, named.document.b.input} for named in bundle.comparisons]
    title = TITLE if all(len(pair) == 2 for pair in inputs) else OTHER_TITLE
    articles = [_article(named, index, bundle) for index, named in enumerate(bundle.comparisons)]
    return Section(ID, title, SHORT, template="comparison.html", view={"articles": articles}, draws=True)


def chance_overlap(depth: int, n: int) -> float:
    """Expected share of layers that two blocks of n share if both starts are drawn evenly."""
    starts = depth - n + 1
    shared = sum(max(0, n - abs(a - b)) for a in range(starts) for b in range(starts))
    return shared / (n * starts * starts)


def _article(named: Named[Comparison], index: int, bundle: Bundle) -> dict[str, Any]:
    comparison = named.document
    names = {str(scope): SCOPE_NAMES[scope] for scope in comparison.scopes}
    selected = bundle.preferred_scope if bundle.preferred_scope in names else next(iter(names), "")
    group = f"comparison-{index}"
    titles = metric_titles(comparison)
    metrics = [name for name in titles if any(_overlaps(part, name) for part in comparison.scopes.values())]
    figures = [
        Figure(
            id=f"overlap-{index}" + (f"-{name}" if number else ""),
            title="Layers shared by the two best blocks" + (f", {titles[name]}" if len(metrics) > 1 else ""),
            caption="Share of the n layers that both sides would remove; grey: two random blocks.",
            variants={str(scope): _overlap(_overlaps(part, name)) for scope, part in comparison.scopes.items()},
            default=selected,
            group=group,
        )
        for number, name in enumerate(metrics)
    ]
    return {
        "heading": f"{comparison.a.label} against {comparison.b.label}",
        "lead": _lead(comparison),
        "group": group,
        "choices": [Control("variant", "Positions that count", names, selected)] if names else [],
        "figures": figures,
        "table": _table(comparison),
        "overlap_tables": [
            {scope: _overlap_table(scope, _overlaps(part, name)) for scope, part in comparison.scopes.items()}
            for name in metrics
        ],
    }


def metric_titles(comparison: Comparison) -> dict[str, str]:
    """Every metric that was compared in some scope: name → title."""
    return {name: values.title or name for part in comparison.scopes.values() for name, values in part.metrics.items()}


def _overlaps(part: ScopeComparison, metric: str) -> list[BlockOverlap]:
    return part.metrics[metric].overlaps if metric in part.metrics else []


def _lead(comparison: Comparison) -> str:
    paired = (
        "Both sides were measured on the same utterances."
        if comparison.paired
        else "The sides were measured on different utterances."
    )
    return (
        f"{paired} Look at blocks of the same size first: distances grow with the size in any model, so the "
        "correlation over all blocks flatters. “Without noise” is the correlation without the luck of the clips; "
        "reliability says how well each side’s order repeats between halves of its clips."
    )


def _overlap(overlaps: Sequence[BlockOverlap]) -> go.Figure | str:
    if not overlaps:
        return "Not compared in this scope."
    figure = figure_style.new_figure(320, x="layers in the block n", y="shared layers (%)")
    figure.update_yaxes(range=[-3, 105])
    x = [entry.n for entry in overlaps]
    scaled = [PERCENT.scaled(entry.overlap) for entry in overlaps]
    texts = [f"{wording.percent(e.overlap.value)}<br>starts {e.a} and {e.b}" for e in overlaps]
    figure_style.add_line(figure, x, scaled, texts, "chosen blocks", figure_style.GREEN)
    figure.add_scatter(
        x=x,
        y=[round(100 * chance_overlap(max(x), n), 2) for n in x],
        mode="lines",
        name="by chance",
        line={"color": figure_style.GREY, "width": 2, "dash": "dot"},
        hovertemplate="by chance: %{y:.1f} %<extra></extra>",
    )
    return figure


def _table(comparison: Comparison) -> Table:
    """Of metrics of blocks three columns, of others one; a metric beside the usual one is named in its columns."""
    columns: dict[str, Callable[[ScopeComparison], str]] = {}
    for number, (name, title) in enumerate(metric_titles(comparison).items()):
        of = f", {title}" if number else ""
        if any(_overlaps(part, name) for part in comparison.scopes.values()):
            columns[f"Blocks of the same size{of}"] = partial(_cell, name, "spearman_within_n")
            columns[f"Without noise{of}"] = partial(_cell, name, "disattenuated")
            columns[f"Reliability{of}"] = partial(_reliabilities, name)
            columns[f"All blocks{of}"] = partial(_cell, name, "spearman")
            columns[f"Mean overlap{of}"] = partial(_cell, name, "mean_overlap")
        else:
            columns[f"Layers{of}"] = partial(_cell, name, "spearman")
            columns[f"Without noise{of}"] = partial(_cell, name, "disattenuated")
    rows = [
        [SCOPE_NAMES[scope], *(cell(part) for cell in columns.values())] for scope, part in comparison.scopes.items()
    ]
    return Table(["Scope", *columns], rows, "Spearman rank correlation, and overlap of the best blocks")


def _cell(metric: str, statistic: str, part: ScopeComparison) -> str:
    known = getattr(part.metrics.get(metric), statistic, None)
    value = known.value if isinstance(known, Estimate) else known
    if value is None:
        return NONE
    return wording.percent(value) if statistic == "mean_overlap" else wording.fixed(value, 2)


def _reliabilities(metric: str, part: ScopeComparison) -> str:
    """Of both sides."""
    return ", ".join(_cell(metric, side, part) for side in ("reliability_a", "reliability_b"))


def _overlap_table(scope: Scope, overlaps: Sequence[BlockOverlap]) -> Table:
    depth = max((entry.n for entry in overlaps), default=1)
    columns: dict[str, Callable[[BlockOverlap], str]] = {
        "n": lambda entry: str(entry.n),
        "First side": lambda entry: f"{entry.a}–{entry.a + entry.n - 1}",
        "Second side": lambda entry: f"{entry.b}–{entry.b + entry.n - 1}",
        "Shared layers": lambda entry: wording.percent(entry.overlap.value),
        "By chance": lambda entry: wording.percent(chance_overlap(depth, entry.n)),
    }
    return Table.of(f"Overlap of the best blocks for each n, scope “{scope}”", columns, overlaps)
