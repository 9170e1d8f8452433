"""The metrics: one file each, with a `METRIC`, and one line here."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from shoal.errors import UsageError
from shoal.measurement.metric_types import CosineMetric, ImportanceMetric, Metric, Quantity
from shoal.settings import use_one_of

METRICS: dict[str, Metric] = {
    name: import_module(f"{__name__}.{name}").METRIC
    for name in (
        "angular",
        "influence",
        "gradient",
        "ablation",
    )
}


def cosine_metrics() -> list[CosineMetric]:
    """Those that every audit measures."""
    return [metric for metric in METRICS.values() if isinstance(metric, CosineMetric)]


def column_count(depth: int) -> int:
    """How many numbers all cosine metrics together give at one position."""
    return sum(metric.columns(depth) for metric in cosine_metrics())


def metric_slices(depth: int) -> dict[str, slice]:
    """Which columns of the per-utterance sums belong to which cosine metric."""
    slices, first = {}, 0
    for metric in cosine_metrics():
        slices[metric.name] = slice(first, first + metric.columns(depth))
        first += metric.columns(depth)
    return slices


def importances() -> list[ImportanceMetric]:
    """Those that an audit measures if asked."""
    return [metric for metric in METRICS.values() if isinstance(metric, ImportanceMetric)]


def importance_named(name: str) -> ImportanceMetric:
    """The importance called `name`; one that a file knows and this Shoal does not has no quantities of its own."""
    metric = METRICS.get(name)
    return metric if isinstance(metric, ImportanceMetric) else ImportanceMetric(name, (), lambda _: [])


def options() -> dict[str, tuple[Metric, Quantity | None]]:
    """All that plans can be chosen by: the name → the metric, and which quantity of it."""
    known: dict[str, tuple[Metric, Quantity | None]] = {}
    for metric in METRICS.values():
        if isinstance(metric, CosineMetric):
            known[metric.name] = (metric, None)
        else:
            known |= {metric.option(quantity): (metric, quantity) for quantity in metric.quantities}
    return known


def sign_of(option: str) -> int:
    """1 where a low number means redundant, -1 where a high one does: times this, the lower, the sooner it goes."""
    metric, quantity = options()[option]
    low = quantity.low_is_redundant if quantity else isinstance(metric, CosineMetric) and metric.low_is_redundant
    return 1 if low else -1


def check_known(names: Iterable[str], known: Iterable[str], where: str, what: str = "metric") -> None:
    """Every name must be one of the known ones.

    Raises:
        UsageError: one is not; the line says what may have been meant.
    """
    for name in names:
        if name not in (choices := list(known)):
            raise UsageError(f"unknown {what} {name!r}", where=where, fix=use_one_of(name, choices))
