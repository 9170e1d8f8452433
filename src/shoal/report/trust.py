"""Which metric to trust: what choosing by each of them costs against the best block that was measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.heatmaps import KINDS, heading
from shoal.report.parts import Control, Figure, Section, Table
from shoal.report.stretch import Stretch, stretch_for
from shoal.report.trust_words import metric_name, sentences
from shoal.report.units import Unit, unit_of
from shoal.schema import Audit, Estimate, InputKind, MetricTrust, Trust

ID, TITLE, SHORT = "trust", "Which metric to trust", "Trust"
ROW = 25
"""Pixels of a row of the figures."""


def build(bundle: Bundle) -> Section | None:
    """One article for each audit whose metrics were held against a measured truth; None where none were."""
    articles = [
        {"heading": heading(named), "truths": truths}
        for index, named in enumerate(bundle.audits)
        if (truths := _truths(named, index, bundle))
    ]
    if not articles:
        return None
    return Section(ID, TITLE, SHORT, template="trust.html", view={"articles": articles}, draws=True)


def _truths(named: Named[Audit], index: int, bundle: Bundle) -> list[dict[str, Any]]:
    inputs = named.document.inputs
    found = [
        (kind, trust) for kind in KINDS if kind in inputs for trust in inputs[kind].trust if trust.metrics
    ]
    wanted = [len(plan.layers) for plan in bundle.all_plans]
    return [
        _truth(kind, trust, f"trust-{index}-{place}", wanted) for place, (kind, trust) in enumerate(found)
    ]


def _truth(kind: InputKind, trust: Trust, group: str, wanted: list[int]) -> dict[str, Any]:
    sizes = by_size(trust)
    selected = str(next((n for n in wanted if n in sizes), min(sizes, key=lambda n: abs(n - 2))))
    names = {str(n): str(n) for n in sizes}
    unit = unit_of(trust.unit)
    measured = trust.truth.removeprefix("ablation ")
    regret = {str(n): _regrets(found, unit) for n, found in sizes.items()}
    ranks = {str(n): _ranks(found) for n, found in sizes.items()}
    return {
        "title": f"Against the measured {measured} ({trust.unit}), {kind} input",
        "group": group,
        "choices": [Control("variant", "Layers in the block n", names, selected)],
        "selected": selected,
        "sentences": {str(n): sentences(found, unit) for n, found in sizes.items()},
        "figures": [
            Figure(f"{group}-regret", *REGRET, regret, selected, group),
            Figure(f"{group}-rank", *RANK, ranks, selected, group),
        ],
        "tables": {str(n): _table(n, found, unit, measured) for n, found in sizes.items()},
    }


REGRET = (
    "What choosing by it costs (regret)",
    "The measured loss without the block that the metric chooses, minus that without the best measured block. "
    "Filled: its first choice; hollow: the best of its first few, once verified. An interval that reaches 0 "
    "cannot be told apart from the best. Where one metric fails by far, the axis is logarithmic away from zero.",
)
RANK = (
    "How well it orders the blocks",
    "Spearman rank correlation with the measured order of the same blocks, with interval: 1 is the same order, 0 "
    "none. Rows are in the order of the regret.",
)


def by_size(trust: Trust) -> dict[int, list[MetricTrust]]:
    """Size n → metrics from the least regret to the most, ties by rank correlation."""
    ranked = sorted(trust.metrics, key=lambda m: (m.n, m.regret.value, -m.spearman.value))
    return {n: list(group) for n, group in groupby(ranked, key=lambda m: m.n)}


def _row_names(found: Sequence[MetricTrust]) -> list[str]:
    return [f"{_short(m.metric)} · {m.scope}" for m in found]


def _short(metric: str) -> str:
    """Labels must leave a phone some room for the figure."""
    return metric.replace("gradient absolute", "gradient").replace("gradient signed", "gradient ±")


def _canvas(found: Sequence[MetricTrust], x: str) -> go.Figure:
    figure = figure_style.new_figure(100 + ROW * len(found), x=x, y="", legend=False)
    figure.update_layout(margin_t=figure_style.BUTTONS)
    figure.update_yaxes(
        tickvals=list(range(len(found))),
        ticktext=_row_names(found),
        range=[len(found) - 0.5, -0.5],
        ticklabelstandoff=6,
    )
    return figure


def _regrets(found: Sequence[MetricTrust], unit: Unit) -> go.Figure:
    figure = _canvas(found, f"regret ({unit.name})")
    figure.add_vline(x=0, line={"color": figure_style.GREY, "width": 1.5, "dash": "dash"})
    verified = [(row, m, m.top_k_regret) for row, m in enumerate(found) if m.top_k_regret is not None]
    ends = [unit.scaled(m.regret) for m in found]
    # A metric that fails completely would flatten what tells the others apart.
    axis = stretch_for(end.value for end in ends)
    _mark(figure, axis, ends)
    _draw(
        figure,
        [row + 0.26 for row, _, _ in verified],
        [
            (m, _on(axis, unit.scaled(regret)), f"best of its first {m.top_k}: {unit.write(regret)}")
            for _, m, regret in verified
        ],
        hollow=True,
    )
    points = [
        (m, _on(axis, unit.scaled(m.regret)), f"{_choice(m)}<br>regret {unit.write(m.regret)}") for m in found
    ]
    _draw(figure, [float(row) for row in range(len(found))], points, hollow=False)
    return figure


def _on(axis: Stretch, estimate: Estimate) -> Estimate:
    """Where the estimate and its bounds stand on the axis."""
    low, high = (None if end is None else axis(end) for end in (estimate.low, estimate.high))
    return Estimate(value=axis(estimate.value), low=low, high=high, level=estimate.level)


def _mark(figure: go.Figure, axis: Stretch, estimates: Sequence[Estimate]) -> None:
    ends = [end for each in estimates for end in (each.value, each.low, each.high) if end is not None]
    if ends and (ticks := axis.ticks(ends)):
        figure.update_xaxes(**ticks)


def _ranks(found: Sequence[MetricTrust]) -> go.Figure:
    figure = _canvas(found, "rank correlation")
    figure.add_vline(x=0, line={"color": figure_style.GREY, "width": 1.5, "dash": "dash"})
    points = [(m, m.spearman, f"rank correlation {wording.number_estimate(m.spearman, 2)}") for m in found]
    _draw(figure, [float(row) for row in range(len(found))], points, hollow=False)
    return figure


def _draw(
    figure: go.Figure,
    rows: Sequence[float],
    points: Sequence[tuple[MetricTrust, Estimate, str]],
    *,
    hollow: bool,
) -> None:
    """One trace for each metric, so that each has its colour."""
    for metric in dict.fromkeys(m.metric for m, _, _ in points):
        own = [place for place, (m, _, _) in enumerate(points) if m.metric == metric]
        colour = figure_style.METRICS.get(metric, figure_style.OTHER[0])
        estimates = [points[place][1] for place in own]
        figure.add_scatter(
            x=[estimate.value for estimate in estimates],
            y=[rows[place] for place in own],
            mode="markers",
            marker={
                "color": colour,
                "symbol": "circle-open" if hollow else "circle",
                "size": 6 if hollow else 9,
            },
            error_x=figure_style.error_bars(estimates)
            | {
                "color": figure_style.translucent(colour, 0.5) if hollow else colour,
                "width": 0 if hollow else 3,
            },
            customdata=[f"{_about(points[place][0])}<br>{points[place][2]}" for place in own],
            hovertemplate="%{customdata}<extra></extra>",
        )


def _about(metric: MetricTrust) -> str:
    return f"{metric_name(metric)}, {wording.plural(metric.candidates, 'candidate')}"


def _choice(metric: MetricTrust) -> str:
    return f"chooses {_block(metric.picked, metric.n)}; best {_block(metric.best, metric.n)}"


def _block(start: int, n: int) -> str:
    return wording.layer_names(range(start, start + n))


def _table(n: int, found: Sequence[MetricTrust], unit: Unit, measured: str) -> Table:
    rows = [
        [
            m.metric,
            m.scope,
            str(m.candidates),
            _block(m.picked, n).partition(" ")[2],
            _block(m.best, n).partition(" ")[2],
            unit.bare(m.regret),
            f"{unit.bare(m.top_k_regret)} ({m.top_k})" if m.top_k_regret else "–",
            wording.number_estimate(m.spearman, 2),
        ]
        for m in found
    ]
    columns = [
        "Metric",
        "Scope",
        "Candidates",
        "Chooses layers",
        "Best layers",
        "Regret",
        "After verifying its first (how many)",
        "Rank correlation",
    ]
    caption = f"Metrics against the measured {measured}, n = {n}; regret in {unit.name}"
    return Table(caption, columns, rows, text_columns=frozenset({1}))
