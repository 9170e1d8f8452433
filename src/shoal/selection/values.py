"""What a metric says of going without some layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shoal.errors import UsageError
from shoal.schema import Estimate, Importance, InputAudit, Part, Quantity, Scope, ScopeAudit

IMPORTANCE: Mapping[str, tuple[str, Quantity]] = {
    "gradient": ("gradient", "absolute"),
    "gradient-signed": ("gradient", "signed"),
    "ablation": ("ablation", "loss"),
    "ablation-kl": ("ablation", "kl"),
    "ablation-score": ("ablation", "score"),
}
"""Metrics that a plan can be chosen by besides `angular` and `influence` → metric and quantity in the audit."""


def find_importance(measured: InputAudit, metric: str, part: Part, scope: Scope | None) -> Importance:
    """What the audit measured under the name `metric`: of the wanted scope, or of the first there is.

    Raises:
        UsageError: it was not measured.
    """
    kind, quantity = IMPORTANCE[metric]
    found = [
        item
        for item in measured.importance
        if (item.metric, item.quantity, item.part) == (kind, quantity, part) and scope in (None, item.scope)
    ]
    if not found:
        where = "" if scope is None else f" in scope {scope}"
        of = "" if part == "layer" else f" of the {part} of layers"
        raise UsageError(
            f"the audit did not measure {kind} {quantity}{of}{where} with {measured.input} input",
            where="metric",
            fix=f"measure it: shoal audit --metric {kind}" + ("" if part == "layer" else f" --part {part}"),
        )
    return found[0]


def value_of(
    metric: str | None,
    measured: ScopeAudit,
    importance: Importance | None,
    layers: Sequence[int],
    level: float,
) -> Estimate | None:
    """The value of `metric` without `layers` (one, or a block); None if it was refused, or dropped by a race.

    A race measures what it drops on fewer clips, so that its mean stands beside none of the others. Influence of a
    block is the sum over its layers. So is a gradient importance of a block that was not measured itself, being of
    first order. Sums have no interval.

    Raises:
        UsageError: it was not measured.
    """
    if importance is not None:
        return _importance(importance, list(layers), level)
    if metric == "influence":
        return _influence(measured, layers, level)
    return angular_distance(measured, layers, level)


def angular_distance(measured: ScopeAudit, layers: Sequence[int], level: float) -> Estimate:
    """Of a block, with its interval."""
    first, n = layers[0], len(layers)
    low, high = (
        None if triangle is None else triangle[n - 1][first]
        for triangle in (measured.angular_low, measured.angular_high)
    )
    return Estimate(value=measured.angular[n - 1][first], low=low, high=high, level=level)


def _influence(measured: ScopeAudit, layers: Sequence[int], level: float) -> Estimate:
    if len(layers) > 1:
        return Estimate(value=sum(measured.influence[layer] for layer in layers), level=level)
    low, high = (
        None if bounds is None else bounds[layers[0]]
        for bounds in (measured.influence_low, measured.influence_high)
    )
    return Estimate(value=measured.influence[layers[0]], low=low, high=high, level=level)


def _importance(item: Importance, layers: list[int], level: float) -> Estimate | None:
    if layers in item.candidates:
        return _candidate(item, item.candidates.index(layers), level)
    if item.metric == "gradient" and len(layers) > 1:
        parts = [_importance(item, [layer], level) for layer in layers]
        known = [part.value for part in parts if part is not None]
        return Estimate(value=sum(known), level=level) if len(known) == len(layers) else None
    raise UsageError(
        f"the audit did not measure the {item.name} without {_named(layers)}",
        where="metric",
        fix=f"measure all of them: shoal audit --metric {item.metric} --block-sizes {len(layers)}",
    )


def _candidate(item: Importance, place: int, level: float) -> Estimate | None:
    value = item.values[place]
    if value is None or place in item.refused or item.clips[place] < max(item.clips):
        return None
    low, high = (None if bounds is None else bounds[place] for bounds in (item.low, item.high))
    return Estimate(value=value, low=low, high=high, level=level)


def _named(layers: Sequence[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {layers[0]} to {layers[-1]}"
