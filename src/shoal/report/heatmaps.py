"""Angular distance of every block, for speech, for text, and their difference."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from shoal import wording
from shoal.report import figure_style, triangles
from shoal.report.bundle import Bundle, Named, removable
from shoal.report.parts import Control, Figure, Section
from shoal.schema import SCOPES, Audit, InputKind, Scope, ScopeAudit

ID, TITLE, SHORT = "redundancy", "Which layers are redundant", "Redundancy"
HEIGHT = 430
BLOCK = "block (l = %{x}, n = %{y}): %{customdata[0]}<br>"
SCOPE_NAMES: dict[Scope, str] = {
    "all": "All positions",
    "audio": "Audio",
    "prompt": "Prompt",
    "text": "Response text",
    "last": "Last before response",
}
SCALES = {"raw": "Distance", "row": "Normalised for each n"}
KINDS: tuple[InputKind, ...] = ("speech", "text")


def build(bundle: Bundle) -> Section:
    """One article for each audit, with its controls and three heatmaps."""
    if not bundle.audits:
        return Section(ID, TITLE, SHORT, missing="Not measured: no audit was given. “shoal audit” makes one.")
    articles = [_article(named, index, bundle) for index, named in enumerate(bundle.audits)]
    return Section(ID, TITLE, SHORT, template="redundancy.html", view={"articles": articles}, draws=True)


def group_of(index: int) -> str:
    """Name of the controls of the audit at `index`."""
    return f"audit-{index}"


def measured_scopes(audit: Audit) -> list[Scope]:
    """Scopes with positions in at least one input, in the usual order."""
    return [scope for scope in SCOPES if any(scope in part.scopes for part in audit.inputs.values())]


def scope_choice(audit: Audit, preferred: Scope) -> Control:
    """The control that chooses the scope."""
    scopes = measured_scopes(audit)
    selected = preferred if preferred in scopes else next(iter(scopes), "")
    values = {str(scope): SCOPE_NAMES[scope] for scope in scopes}
    return Control("variant", "Positions that count", values, selected)


def heading(named: Named[Audit]) -> str:
    """Names an audit among others."""
    audit = named.document
    place = f" · {named.label}" if named.label else ""
    return f"{audit.model.ref} · {audit.task}{place}"


def scope_of(audit: Audit, kind: InputKind, scope: Scope) -> ScopeAudit | str:
    """What was measured, or why there is nothing."""
    if kind not in audit.inputs:
        return f"Not measured: the audit has no {kind} input."
    part = audit.inputs[kind]
    return (
        part.scopes.get(scope)
        or f"Not measured in this scope: {part.empty_scopes.get(scope, 'no position')}."
    )


def _article(named: Named[Audit], index: int, bundle: Bundle) -> dict[str, Any]:
    audit = named.document
    choice = scope_choice(audit, bundle.preferred_scope)
    return {
        "heading": heading(named),
        "group": group_of(index),
        "choices": [choice, Control("scale", "Colours show", SCALES, "raw")],
        "lead": _lead(audit),
        "figures": [
            *(_input_figure(audit, kind, index, choice.selected) for kind in KINDS),
            _difference_figure(audit, index, choice.selected),
        ],
    }


def _lead(audit: Audit) -> str:
    clips = f"{wording.plural(audit.data.clips, 'clip')} ({wording.duration(audit.data.seconds)})"
    resampled = (
        f"Brackets are {wording.level_name(audit.level)} bootstrap intervals over {audit.cluster}s "
        f"({audit.replicates:,} replicates)."
        if audit.replicates
        else "No intervals: there was nothing to resample."
    )
    return (
        "Each cell is a block of n layers that starts at layer l. Dark: what enters the block and what "
        f"leaves it point the same way, so the block changes little. Measured on {clips}. {resampled}"
    )


def _input_figure(audit: Audit, kind: InputKind, index: int, default: str) -> Figure:
    variants = {str(scope): _heatmap(audit, kind, scope) for scope in measured_scopes(audit)}
    return Figure(
        id=f"heatmap-{index}-{kind}",
        title=f"{kind.capitalize()} input",
        caption=(
            "Angular distance (share of a half turn). Circles: the best block of each n that leaves the last "
            "layer in place; crosses: where a block with the last layer is better still."
        ),
        variants=variants,
        default=default,
        group=group_of(index),
    )


def _heatmap(audit: Audit, kind: InputKind, scope: Scope) -> go.Figure | str:
    part = scope_of(audit, kind, scope)
    if isinstance(part, str):
        return part
    depth = len(part.angular)
    figure = _canvas(depth)
    grids = {
        "raw": triangles.to_grid(part.angular),
        "row": triangles.to_grid(triangles.row_normalised(part.angular)),
    }
    limits = {"raw": [0.0, round(_largest(audit, scope), 4)], "row": [0.0, 1.0]}
    figure.add_heatmap(
        **_cells(grids, limits, figure_style.DISTANCE_SCALE),
        customdata=[[_hover(part, start, n + 1) for start in range(depth)] for n in range(depth)],
        hovertemplate=f"{BLOCK}distance %{{customdata[1]}}<extra></extra>",
    )
    _mark_best(figure, part)
    return figure


def _canvas(depth: int) -> go.Figure:
    figure = figure_style.new_figure(
        HEIGHT, x="first layer l of the block", y="layers in the block n", legend=False
    )
    figure.update_xaxes(showgrid=False, range=[-0.6, depth - 0.4])
    figure.update_yaxes(showgrid=False, range=[0.4, depth + 0.6])
    return figure


def _cells(
    grids: dict[str, triangles.Grid], limits: dict[str, list[float]], scale: list[Any]
) -> dict[str, Any]:
    """Keywords of a heatmap that the page can switch between the grids kept in `meta`."""
    size = len(grids["raw"])
    return {
        "x": list(range(size)),
        "y": list(range(1, size + 1)),
        "z": grids["raw"],
        "zmin": limits["raw"][0],
        "zmax": limits["raw"][1],
        "meta": {"scales": grids, "limits": limits},
        "colorscale": scale,
        "hoverongaps": False,
        "colorbar": {
            "orientation": "h",
            "y": -0.16,
            "yanchor": "top",
            "thickness": 10,
            "len": 0.9,
            "outlinewidth": 0,
        },
    }


def _largest(audit: Audit, scope: Scope) -> float:
    """The same end of the colour scale for speech and text, so that they can be compared by eye."""
    parts = [part.scopes[scope] for part in audit.inputs.values() if scope in part.scopes]
    return max((triangles.extent(part.angular) for part in parts), default=1.0) or 1.0


def _hover(part: ScopeAudit, layer: int, n: int) -> list[str] | None:
    if layer + n > len(part.angular):
        return None
    return [wording.layer_names(range(layer, layer + n)), _distance(part, layer, n)]


def _distance(part: ScopeAudit, layer: int, n: int) -> str:
    value = wording.fixed(part.angular[n - 1][layer], 4)
    if part.angular_low is None or part.angular_high is None:
        return value
    low, high = part.angular_low[n - 1][layer], part.angular_high[n - 1][layer]
    return f"{value} [{wording.fixed(low, 4)}, {wording.fixed(high, 4)}]"


def _mark_best(figure: go.Figure, part: ScopeAudit) -> None:
    depth = len(part.angular)
    kept = [(block.layer, block.n) for block in removable(part) if block.layer + block.n < depth]
    last = [(block.layer, block.n) for block in part.best if block.layer + block.n == depth]
    figure_style.add_marks(figure, kept, figure_style.BEST_MARK)
    figure_style.add_marks(figure, last, figure_style.CROSS_MARK)


def _difference_figure(audit: Audit, index: int, default: str) -> Figure:
    return Figure(
        id=f"heatmap-{index}-difference",
        title="Speech minus text",
        caption=(
            "Orange: the block is more redundant for speech; purple: more redundant for text. The difference "
            "itself has no interval here; the comparison below has."
        ),
        variants={str(scope): _difference(audit, scope) for scope in measured_scopes(audit)},
        default=default,
        group=group_of(index),
    )


def _difference(audit: Audit, scope: Scope) -> go.Figure | str:
    speech, text = scope_of(audit, "speech", scope), scope_of(audit, "text", scope)
    if isinstance(speech, str) or isinstance(text, str):
        return "Not measured: both inputs are needed in this scope."
    raw = triangles.difference(speech.angular, text.angular)
    row = triangles.difference(
        triangles.row_normalised(speech.angular), triangles.row_normalised(text.angular)
    )
    limit, row_limit = round(triangles.extent(raw), 4) or 0.01, round(triangles.extent(row), 4) or 0.01
    size = len(raw)
    figure = _canvas(size)
    figure.add_heatmap(
        **_cells(
            {"raw": triangles.to_grid(raw), "row": triangles.to_grid(row)},
            {"raw": [-limit, limit], "row": [-row_limit, row_limit]},
            figure_style.DIFFERENCE_SCALE,
        ),
        customdata=[[_pair_hover(speech, text, start, n + 1) for start in range(size)] for n in range(size)],
        hovertemplate=(
            f"{BLOCK}speech %{{customdata[1]}}<br>"
            "text %{customdata[2]}<br>difference %{customdata[3]}<extra></extra>"
        ),
    )
    return figure


def _pair_hover(speech: ScopeAudit, text: ScopeAudit, layer: int, n: int) -> list[str] | None:
    if layer + n > len(speech.angular):
        return None
    gap = speech.angular[n - 1][layer] - text.angular[n - 1][layer]
    return [
        wording.layer_names(range(layer, layer + n)),
        _distance(speech, layer, n),
        _distance(text, layer, n),
        wording.signed(wording.fixed(gap, 4)),
    ]
