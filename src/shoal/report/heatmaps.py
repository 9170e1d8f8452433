"""What a metric says of every block, for speech, for text, and their difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style
from shoal.report.bundle import Bundle, Named, removable
from shoal.report.parts import Control, Figure, Section
from shoal.schema import SCOPES, Audit, Estimate, InputKind, MetricValues, Scope, Triangle

ID, TITLE, SHORT = "redundancy", "Which layers are redundant", "Redundancy"
HEIGHT = 430
SCOPE_NAMES: dict[Scope, str] = {
    "all": "All positions",
    "audio": "Audio",
    "prompt": "Prompt",
    "response": "Response",
    "last": "Last before response",
}
SCALES = {"raw": "Distance", "row": "Normalised for each n"}
KINDS: tuple[InputKind, ...] = ("speech", "text")
DIFFERENCE = (
    "Orange: the block is more redundant for speech; purple: more redundant for text. The difference itself has no "
    "interval here; the comparison below has."
)


def build(bundle: Bundle) -> Section:
    """One article for each audit and metric of blocks, with its controls and three heatmaps."""
    if not bundle.audits:
        return Section(ID, TITLE, SHORT, missing="Not measured: no audit was given. “shoal audit” makes one.")
    articles = [
        _article(named, index, metric, f"heatmap-{index}{suffix}", bundle)
        for index, named in enumerate(bundle.audits)
        for metric, suffix in block_metrics(named.document)
    ]
    return Section(ID, TITLE, SHORT, template="redundancy.html", view={"articles": articles}, draws=True)


def group_of(index: int) -> str:
    """Name of the controls of the audit at `index`."""
    return f"audit-{index}"


def measured_scopes(audit: Audit) -> list[Scope]:
    """Scopes with positions in at least one input, in the usual order."""
    return [scope for scope in SCOPES if any(scope in part.scopes for part in audit.inputs.values())]


def metric_names(audit: Audit, per: str) -> dict[str, str]:
    """The metrics of blocks, or of layers, that an audit holds anywhere: name → title."""
    scopes = [scope for part in audit.inputs.values() for scope in part.scopes.values()]
    return {
        name: values.title or name for scope in scopes for name, values in scope.metrics.items() if values.per == per
    }


def block_metrics(audit: Audit) -> Iterator[tuple[str, str]]:
    """Every metric of blocks, and what its figures' names end with: nothing for the usual one."""
    for number, name in enumerate(metric_names(audit, "block")):
        yield name, f"-{name}" if number else ""


def scope_choice(audit: Audit, preferred: Scope) -> Control:
    """The control that chooses the scope."""
    scopes = measured_scopes(audit)
    selected = preferred if preferred in scopes else next(iter(scopes), "")
    values = {str(scope): SCOPE_NAMES[scope] for scope in scopes}
    return Control("variant", "Positions that count", values, selected)


def heading(named: Named[Audit], title: str = "") -> str:
    """Names an audit, and a metric of it, among others."""
    return " · ".join(filter(None, (named.heading, title)))


def values_of(audit: Audit, kind: InputKind, scope: Scope, metric: str) -> MetricValues | str:
    """What was measured, or why there is nothing."""
    if kind not in audit.inputs:
        return f"Not measured: the audit has no {kind} input."
    part = audit.inputs[kind]
    if scope in part.scopes and metric in part.scopes[scope].metrics:
        return part.scopes[scope].metrics[metric]
    return f"Not measured in this scope: {part.empty_scopes.get(scope, 'no position')}."


def _article(named: Named[Audit], index: int, metric: str, name: str, bundle: Bundle) -> dict[str, Any]:
    audit = named.document
    titles = metric_names(audit, "block")
    choice = scope_choice(audit, bundle.preferred_scope)
    usual = metric == next(iter(titles))
    captions = {(kind,): _caption(audit, metric) for kind in KINDS} | {KINDS: DIFFERENCE}
    return {
        "heading": heading(named, "" if usual else titles[metric]),
        "group": group_of(index),
        # The metrics of an audit share its controls.
        "choices": [choice, Control("scale", "Colours show", SCALES, "raw")] if usual else [],
        "lead": _lead(audit),
        "figures": [
            Figure(
                id=f"{name}-{'difference' if len(kinds) > 1 else kinds[0]}",
                title="Speech minus text" if len(kinds) > 1 else f"{kinds[0].capitalize()} input",
                caption=caption,
                variants={str(scope): _heatmap(audit, kinds, scope, metric) for scope in measured_scopes(audit)},
                default=choice.selected,
                group=group_of(index),
            )
            for kinds, caption in captions.items()
        ],
    }


def _lead(audit: Audit) -> str:
    clips = f"{wording.plural(audit.data.clips, 'clip')} ({wording.duration(audit.data.seconds)})"
    over = dict.fromkeys(wording.drawn_over(part.drawn, audit.cluster) for part in audit.inputs.values())
    resampled = (
        f"Brackets are {wording.level_name(audit.level)} bootstrap intervals over {' or '.join(over)} "
        f"({audit.replicates:,} replicates)."
        if audit.replicates
        else "No intervals: there was nothing to resample."
    )
    stopped = f" The audit {wording.stopped(audit.until)}." if audit.until is not None else ""
    return (
        "Each cell is a block of n layers that starts at layer l. Dark: what enters the block and what "
        f"leaves it point the same way, so the block changes little. Measured on {clips}.{stopped} {resampled}"
    )


def _caption(audit: Audit, metric: str) -> str:
    scopes = [scope for part in audit.inputs.values() for scope in part.scopes.values()]
    values = next(scope.metrics[metric] for scope in scopes if metric in scope.metrics)
    unit = f" ({values.unit})" if values.unit else ""
    return (
        f"{(values.title or metric).capitalize()}{unit}. Circles: the best block of each n that leaves the last "
        "layer in place; crosses: where a block with the last layer is better still."
    )


def _heatmap(audit: Audit, kinds: tuple[InputKind, ...], scope: Scope, metric: str) -> go.Figure | str:
    """Of one input, or the first minus the second; the page can switch between the grids kept in `meta`."""
    sides: list[MetricValues] = []
    for kind in kinds:
        values = values_of(audit, kind, scope, metric)
        if isinstance(values, str):
            return values if len(kinds) == 1 else "Not measured: both inputs are needed in this scope."
        sides.append(values)
    raw, row = sides[0].values, row_normalised(sides[0].values)
    limits = {"raw": _limits(audit, scope, metric), "row": [0.0, 1.0]}
    scale = figure_style.DISTANCE_SCALE
    if len(sides) > 1:
        raw = difference(raw, sides[1].values)
        row = difference(row, row_normalised(sides[1].values))
        largest = {name: max(abs(v) for cells in grid for v in cells) for name, grid in (("raw", raw), ("row", row))}
        ends = {name: round(end, 4) or 0.01 for name, end in largest.items()}
        limits = {name: [-end, end] for name, end in ends.items()}
        scale = figure_style.DIFFERENCE_SCALE
    depth, grids = len(raw), {"raw": to_grid(raw), "row": to_grid(row)}
    figure = figure_style.new_figure(HEIGHT, x="first layer l of the block", y="layers in the block n", legend=False)
    figure.update_xaxes(showgrid=False, range=[-0.6, depth - 0.4])
    figure.update_yaxes(showgrid=False, range=[0.4, depth + 0.6])
    figure.add_heatmap(
        x=list(range(depth)),
        y=list(range(1, depth + 1)),
        z=grids["raw"],
        zmin=limits["raw"][0],
        zmax=limits["raw"][1],
        meta={"scales": grids, "limits": limits},
        colorscale=scale if sides[0].low_is_redundant else figure_style.turned(scale),
        hoverongaps=False,
        customdata=[[_hover(sides, start, n) for start in range(depth)] for n in range(1, depth + 1)],
        hovertemplate="block (l = %{x}, n = %{y}): %{customdata}<extra></extra>",
        colorbar=figure_style.flat_bar(None, None, plot=312) | {"len": 0.9},
    )
    if len(sides) == 1:
        _mark_best(figure, sides[0])
    return figure


def _limits(audit: Audit, scope: Scope, metric: str) -> list[float]:
    """The same ends of the colour scale for speech and text, so that they can be compared by eye."""
    sides = [values_of(audit, kind, scope, metric) for kind in KINDS]
    known = [number for side in sides if not isinstance(side, str) for row in side.values for number in row]
    return [round(min(0.0, *known), 4), round(max(known), 4) or 1.0]


def _hover(sides: list[MetricValues], layer: int, n: int) -> str | None:
    if layer + n > len(sides[0].values):
        return None
    layers = range(layer, layer + n)
    estimates = [side.estimate(layers) for side in sides]
    numbers = [wording.fixed(e.value, 4) + _bounds(e) for e in estimates]
    if len(sides) == 1:
        return f"{wording.layer_names(layers)}<br>distance {numbers[0]}"
    gap = wording.signed(wording.fixed(estimates[0].value - estimates[1].value, 4))
    return f"{wording.layer_names(layers)}<br>speech {numbers[0]}<br>text {numbers[1]}<br>difference {gap}"


def _bounds(estimate: Estimate) -> str:
    bounds = wording.interval(estimate, lambda value: wording.fixed(value, 4))
    return f" {bounds}" if bounds else ""


def _mark_best(figure: go.Figure, values: MetricValues) -> None:
    depth = len(values.values)
    kept = [(block.layer, block.n) for block in removable(values) if block.layer + block.n < depth]
    last = [(block.layer, block.n) for block in values.best if block.layer + block.n == depth]
    figure_style.add_marks(figure, kept, figure_style.BEST_MARK)
    figure_style.add_marks(figure, last, figure_style.CROSS_MARK)


Grid: TypeAlias = list[list[float | None]]
"""(L, L): row n-1, column l; None where l + n > L."""

DIGITS = 5


def to_grid(triangle: Triangle) -> Grid:
    """A triangle as a square, filled up with None."""
    depth = len(triangle)
    return [[round(v, DIGITS) for v in row] + [None] * (depth - len(row)) for row in triangle]


def row_normalised(triangle: Triangle) -> Triangle:
    """Each row n scaled to 0 … 1 over its blocks, as in the heatmaps of arXiv 2403.17887, figure 4."""
    return [_unit(row) for row in triangle]


def _unit(row: Sequence[float]) -> list[float]:
    low, high = min(row), max(row)
    return [(value - low) / (high - low) if high > low else 0.0 for value in row]


def difference(a: Triangle, b: Triangle) -> Triangle:
    """`a - b`, block by block; both of the same depth."""
    return [[x - y for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]
