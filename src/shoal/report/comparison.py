"""How alike two audits are: rank correlations, and the overlap of the blocks they choose."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.heatmaps import SCOPE_NAMES
from shoal.report.parts import Control, Figure, Section, Table
from shoal.schema import Comparison, Estimate, Scope, ScopeComparison

ID, TITLE, SHORT = "comparison", "Are speech and text redundant in the same layers?", "Comparison"
OTHER_TITLE = "Do the audits agree?"


def build(bundle: Bundle) -> Section:
    """One article for each comparison."""
    if not bundle.comparisons:
        missing = (
            "Not measured: no comparison was given. “shoal compare” makes one from two audits or two inputs."
        )
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
    variants = {str(scope): _overlap(part) for scope, part in comparison.scopes.items()}
    figure = Figure(
        id=f"overlap-{index}",
        title="Layers shared by the two best blocks",
        caption="Share of the n layers that both sides would remove, with interval; grey: two random blocks.",
        variants=variants or {"": "No scope in common."},
        default=selected,
        group=group,
    )
    return {
        "heading": f"{comparison.a.label} against {comparison.b.label}",
        "lead": _lead(comparison),
        "group": group,
        "choices": [Control("variant", "Positions that count", names, selected)] if names else [],
        "figure": figure,
        "table": _table(comparison),
        "overlap_tables": {scope: _overlap_table(scope, part) for scope, part in comparison.scopes.items()},
    }


def _lead(comparison: Comparison) -> str:
    paired = (
        "Both sides were measured on the same utterances and resampled together."
        if comparison.paired
        else "The sides were measured on different utterances and resampled apart."
    )
    level = wording.level_name(comparison.level)
    return f"{paired} Brackets are {level} bootstrap intervals ({comparison.replicates:,} replicates)."


def _overlap(part: ScopeComparison) -> go.Figure:
    figure = figure_style.new_figure(320, x="layers in the block n", y="shared layers (%)")
    figure.update_yaxes(range=[-3, 105])
    x = [entry.n for entry in part.overlaps]
    scaled = [_percent(entry.overlap) for entry in part.overlaps]
    figure_style.add_band(figure, x, scaled, figure_style.GREEN, "chosen")
    figure.add_scatter(
        x=x,
        y=[estimate.value for estimate in scaled],
        mode="lines+markers",
        name="chosen blocks",
        legendgroup="chosen",
        line={"color": figure_style.GREEN, "width": 2},
        marker={"size": 6},
        customdata=[[e.a, e.b, wording.percent_estimate(e.overlap)] for e in part.overlaps],
        hovertemplate=(
            "n = %{x}: %{customdata[2]}<br>starts %{customdata[0]} and %{customdata[1]}<extra></extra>"
        ),
    )
    figure.add_scatter(
        x=x,
        y=[round(100 * chance_overlap(max(x), n), 2) for n in x],
        mode="lines",
        name="by chance",
        line={"color": figure_style.GREY, "width": 2, "dash": "dot"},
        hovertemplate="by chance: %{y:.1f} %<extra></extra>",
    )
    return figure


def _percent(estimate: Estimate) -> Estimate:
    bounds = [None if bound is None else 100 * bound for bound in (estimate.low, estimate.high)]
    return estimate.model_copy(update={"value": 100 * estimate.value, "low": bounds[0], "high": bounds[1]})


def _table(comparison: Comparison) -> Table:
    rows = [
        [
            SCOPE_NAMES[scope],
            wording.number_estimate(part.spearman, 2),
            wording.number_estimate(part.spearman_within_n, 2),
            wording.number_estimate(part.influence_spearman, 2),
            wording.percent_estimate(part.mean_overlap),
        ]
        for scope, part in comparison.scopes.items()
    ]
    columns = ["Scope", "All blocks", "Blocks of the same size", "Layer influence", "Mean overlap"]
    return Table(
        caption="Spearman rank correlation, and overlap of the best blocks", columns=columns, rows=rows
    )


def _overlap_table(scope: Scope, part: ScopeComparison) -> Table:
    depth = max((entry.n for entry in part.overlaps), default=1)
    rows = [
        [
            str(entry.n),
            f"{entry.a}–{entry.a + entry.n - 1}",
            f"{entry.b}–{entry.b + entry.n - 1}",
            wording.percent_estimate(entry.overlap),
            wording.percent(chance_overlap(depth, entry.n)),
        ]
        for entry in part.overlaps
    ]
    return Table(
        caption=f"Overlap of the best blocks for each n, scope “{scope}”",
        columns=["n", "First side", "Second side", "Shared layers", "By chance"],
        rows=rows,
    )
