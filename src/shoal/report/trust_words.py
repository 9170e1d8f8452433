"""Sentences about metrics, made from their numbers and no bolder than these."""

from __future__ import annotations

from collections.abc import Sequence

from shoal import wording
from shoal.report.units import Unit
from shoal.schema import MetricTrust
from shoal.schema.plan import DISTANCE_METRIC

DEFAULT = (DISTANCE_METRIC, "all")
"""Metric and scope that `select` uses unless told."""


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
    return [_said(best, unit), f"The default: {_lower(_said(default, unit))}"]


def metric_name(metric: MetricTrust) -> str:
    """Such as `text-scope angular distance`."""
    return f"{metric.scope}-scope {metric.title}"


def _said(metric: MetricTrust, unit: Unit) -> str:
    size = "the layer" if metric.n == 1 else f"the block of {metric.n} layers"
    choosing = f"Choosing {size} by {metric_name(metric)}"
    return f"{choosing} {_cost(metric, unit)}{_verified(metric, unit)}."


def _cost(metric: MetricTrust, unit: Unit) -> str:
    best = wording.layer_names(range(metric.best, metric.best + metric.n))
    if metric.picked == metric.best:
        return f"finds the best measured block itself ({best}); regret {unit.write(metric.regret)}"
    low = metric.regret.low
    against = f"against the best measured block ({best})"
    if low is None:
        return (
            f"costs {unit.write(metric.regret)} {against}; without an interval nobody can tell whether that is "
            "chance"
        )
    if low <= 0:
        return (
            f"cannot be told apart from the best measured block ({best}): regret {unit.write(metric.regret)}"
        )
    return f"costs {unit.write(metric.regret)} {against}"


def _verified(metric: MetricTrust, unit: Unit) -> str:
    """What is left once the first few are measured; nothing where there is nothing to win."""
    left = metric.top_k_regret
    if left is None or metric.picked == metric.best:
        return ""
    leaves = "nothing" if left.value == 0 and not left.high else unit.bare(left)
    return f"; verifying its first {wording.plural(metric.top_k, 'choice')} leaves {leaves}"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
