"""Which metric to trust: the regret of each, against the best block that was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, groupby
from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named
from shoal.report.figure_style import stretch_for
from shoal.report.heatmaps import KINDS
from shoal.report.parts import Control, Figure, Section
from shoal.report.units import Unit, unit_of
from shoal.schema import Audit, Estimate, InputKind, MetricTrust, Trust
from shoal.schema.plan import DISTANCE_METRIC
from shoal.tables import NONE, Table
from shoal.terms import DEFAULT_SCOPE

ID, TITLE, SHORT = "trust", "Which metric to trust", "Trust"
DEFAULT = (DISTANCE_METRIC, DEFAULT_SCOPE)
"""Metric and scope that `select` uses unless told."""
ROW = 25
"""Pixels of a row of the figures."""


def build(bundle: Bundle) -> Section | None:
    """One article for each audit whose metrics were held against a measured truth; None where none were."""
    articles = [
        {"heading": named.heading, "truths": truths}
        for index, named in enumerate(bundle.audits)
        if (truths := _truths(named, index, bundle))
    ]
    if not articles:
        return None
    return Section(ID, TITLE, SHORT, template="trust.html", view={"articles": articles}, draws=True)


def _truths(named: Named[Audit], index: int, bundle: Bundle) -> list[dict[str, Any]]:
    inputs = named.document.inputs
    truths = [(kind, trust) for kind in KINDS if kind in inputs for trust in inputs[kind].trust if trust.metrics]
    depths = [len(plan.layers) for plan in bundle.all_plans]
    return [_truth(kind, trust, f"trust-{index}-{n}", depths) for n, (kind, trust) in enumerate(truths)]


def _truth(kind: InputKind, trust: Trust, group: str, depths: list[int]) -> dict[str, Any]:
    sizes = by_size(trust)
    selected = str(next((n for n in depths if n in sizes), min(sizes, key=lambda n: abs(n - 2))))
    unit = unit_of(trust.unit)
    measured = trust.truth.partition(" ")[2] or trust.truth
    colours = dict(zip(dict.fromkeys(m.metric for m in trust.metrics), cycle(figure_style.METRICS), strict=False))

    def figure(what: str, words: tuple[str, str], draw: Callable[[Sequence[MetricTrust]], go.Figure]) -> Figure:
        variants = {str(n): draw(metrics) for n, metrics in sizes.items()}
        return Figure(f"{group}-{what}", *words, variants, selected, group)

    return {
        "title": f"Against the measured {measured} ({trust.unit}), {kind} input",
        "group": group,
        "choices": [Control("variant", "Layers in the block n", {str(n): str(n) for n in sizes}, selected)],
        "selected": selected,
        "sentences": {str(n): sentences(metrics, unit) for n, metrics in sizes.items()},
        "figures": [
            figure("regret", REGRET, lambda metrics: _regrets(metrics, unit, colours)),
            figure("rank", RANK, lambda metrics: _ranks(metrics, colours)),
        ],
        "tables": {str(n): _table(n, metrics, unit, measured) for n, metrics in sizes.items()},
    }


REGRET = (
    "Regret: what its choice loses",
    "The measured loss without the block that the metric chooses, minus that without the best measured block. Both are "
    "chosen on half of the clips and measured on the other half, so it may be negative. Filled: its first choice; "
    "hollow: the best of its first few, once verified. An interval that reaches 0 cannot be told apart from the best. "
    "Where one metric fails by far, the axis is logarithmic away from zero.",
)
RANK = (
    "How well it orders the blocks",
    "Spearman rank correlation with the measured order of the same blocks: 1 is the same order, 0 none. Filled: as "
    "observed, which the noise of the clips lowers; hollow: without that noise, where both orders repeat well enough "
    "between halves of the clips. Rows are in the order of the regret.",
)


def by_size(trust: Trust) -> dict[int, list[MetricTrust]]:
    """Size n → metrics from the least regret to the most, ties by rank correlation."""
    ranked = sorted(trust.metrics, key=lambda m: (m.n, m.regret.value, -m.spearman.value))
    return {n: list(group) for n, group in groupby(ranked, key=lambda m: m.n)}


def _canvas(metrics: Sequence[MetricTrust], x: str) -> go.Figure:
    names = [f"{_short(m.metric)} · {m.scope}" for m in metrics]
    figure = figure_style.new_figure(100 + ROW * len(metrics), x=x, y="", legend=False)
    figure.update_layout(margin_t=figure_style.BUTTONS)
    figure.update_yaxes(
        tickvals=list(range(len(metrics))), ticktext=names, range=[len(metrics) - 0.5, -0.5], ticklabelstandoff=6
    )
    figure.add_vline(x=0, line={"color": figure_style.GREY, "width": 1.5, "dash": "dash"})
    return figure


def _short(metric: str) -> str:
    """Labels must leave a phone some room for the figure."""
    for quantity, short in {" clip-absolute": "", " absolute": " by position", " signed": " ±"}.items():
        metric = metric.replace(quantity, short)
    return metric


def _regrets(metrics: Sequence[MetricTrust], unit: Unit, colours: Mapping[str, str]) -> go.Figure:
    figure = _canvas(metrics, f"regret ({unit.name})")
    scaled = [unit.scaled(m.regret) for m in metrics]
    # A metric that fails completely would flatten what tells the others apart.
    axis = stretch_for(estimate.value for estimate in scaled)
    ends = [end for e in scaled for end in (e.value, e.low, e.high) if end is not None]
    if ends and (ticks := axis.ticks(ends)):
        figure.update_xaxes(**ticks)
    for row, m in enumerate(metrics):
        if (left := m.top_k_regret) is not None:
            text = f"best of its first {m.top_k}: {unit.write(left)}"
            _draw(figure, m, row + 0.26, axis.of(unit.scaled(left)), text, colours[m.metric], hollow=True)
    for row, m in enumerate(metrics):
        text = f"{_choice(m)}<br>regret {unit.write(m.regret)}"
        _draw(figure, m, row, axis.of(unit.scaled(m.regret)), text, colours[m.metric])
    return figure


def _ranks(metrics: Sequence[MetricTrust], colours: Mapping[str, str]) -> go.Figure:
    figure = _canvas(metrics, "rank correlation")
    for row, m in enumerate(metrics):
        if m.disattenuated is not None:
            text = f"without noise {wording.fixed(m.disattenuated, 2)}"
            _draw(figure, m, row + 0.26, Estimate(value=m.disattenuated), text, colours[m.metric], hollow=True)
        _draw(figure, m, row, m.spearman, f"rank correlation {_two(m.spearman.value)}", colours[m.metric])
    return figure


def _two(value: float | None) -> str:
    return NONE if value is None else wording.fixed(value, 2)


def _draw(
    figure: go.Figure,
    metric: MetricTrust,
    row: float,
    estimate: Estimate,
    text: str,
    colour: str,
    *,
    hollow: bool = False,
) -> None:
    bar = {"color": figure_style.translucent(colour, 0.5), "width": 0} if hollow else {"color": colour, "width": 3}
    figure.add_scatter(
        x=[estimate.value],
        y=[row],
        mode="markers",
        marker={"color": colour, "symbol": "circle-open" if hollow else "circle", "size": 6 if hollow else 9},
        error_x=figure_style.error_bars([estimate]) | bar,
        customdata=[f"{metric_name(metric)}, {wording.plural(metric.candidates, 'candidate')}<br>{text}"],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _choice(metric: MetricTrust) -> str:
    return f"chooses {_block(metric.picked, metric.n)}; best measured {_block(metric.best, metric.n)}"


def _block(start: int, n: int) -> str:
    return wording.layer_names(range(start, start + n))


def _table(n: int, metrics: Sequence[MetricTrust], unit: Unit, measured: str) -> Table:
    columns: dict[str, Callable[[MetricTrust], str]] = {
        "Metric": lambda m: m.metric,
        "Scope": lambda m: m.scope,
        "Candidates": lambda m: str(m.candidates),
        "Chooses layers": lambda m: _block(m.picked, n).partition(" ")[2],
        "Best measured layers": lambda m: _block(m.best, n).partition(" ")[2],
        "Regret": lambda m: unit.bare(m.regret),
        "After verifying its first (how many)": lambda m: (
            f"{unit.bare(m.top_k_regret)} ({m.top_k})" if m.top_k_regret else NONE
        ),
        "Rank correlation": lambda m: _two(m.spearman.value),
        "Without noise": lambda m: _two(m.disattenuated),
        "Reliability: metric": lambda m: _two(m.reliability),
        "Reliability: truth": lambda m: _two(m.truth_reliability),
    }
    caption = f"Metrics against the measured {measured}, n = {n}; regret in {unit.name}"
    return Table.of(caption, columns, metrics, ["Scope"])


def sentences(metrics: Sequence[MetricTrust], unit: Unit) -> list[str]:
    """What to say of blocks of one size: the metric with the least regret, then the default if it is another.

    Another trial would spare no trial, so it is named only if there is nothing else.

    Args:
        metrics: all for one n, the least regret first.
        unit: of the regret.
    """
    best = next((m for m in metrics if not m.measured), metrics[0])
    default = next((m for m in metrics if (m.metric, m.scope) == DEFAULT), None)
    if default is best or default is None:
        return [_said(best, unit)]
    return [_said(best, unit), f"The default: {_said(default, unit, 'choosing')}"]


def metric_name(metric: MetricTrust) -> str:
    """Such as `angular distance (scope response)`."""
    return f"{metric.title} (scope {metric.scope})"


def _said(metric: MetricTrust, unit: Unit, verb: str = "Choosing") -> str:
    size = "the layer" if metric.n == 1 else f"the block of {metric.n} layers"
    choosing = f"{verb} {size} by {metric_name(metric)}"
    return f"{choosing} {_cost(metric, unit)}{_verified(metric, unit)}."


def _cost(metric: MetricTrust, unit: Unit) -> str:
    """Nothing is said to cost anything unless its interval excludes 0."""
    best = f"the best measured block ({_block(metric.best, metric.n)})"
    regret = unit.write(metric.regret)
    if metric.costs:
        return f"costs {regret} against {best}"
    if metric.picked == metric.best:
        return f"finds {best} itself; regret {regret}"
    if metric.regret.low is None:
        return f"has a regret of {regret} against {best}; without an interval nobody can tell whether that is chance"
    return f"cannot be told apart from {best}: regret {regret}"


def _verified(metric: MetricTrust, unit: Unit) -> str:
    """What is left once the first few are measured; nothing where there is nothing to win."""
    left = metric.top_k_regret
    if left is None or metric.picked == metric.best:
        return ""
    leaves = "nothing" if left.value == 0 and not left.high else unit.bare(left)
    return f"; verifying its first {wording.plural(metric.top_k, 'choice')} leaves {leaves}"
