"""From per-utterance sums to the numbers of an audit: means, intervals, the best blocks and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shoal.measurement.best_blocks import best_blocks, best_measured
from shoal.measurement.blocks import to_triangle
from shoal.measurement.importance import ImportanceSums
from shoal.measurement.metric_types import CosineMetric
from shoal.measurement.metrics import cosine_metrics, importance_named
from shoal.measurement.settings import AuditSettings
from shoal.measurement.sums import Sums, units_of
from shoal.measurement.trust import aligned, cost_rows, trust_of
from shoal.schema import (
    SCOPES,
    Estimate,
    Importance,
    InputAudit,
    InputKind,
    MetricValues,
    Scope,
    ScopeAudit,
    Triangle,
)
from shoal.schema.record import with_caution
from shoal.statistics import Floats, Resampler, make_resampler, mean_bounds

EMPTY_SCOPE = {
    "audio": "nothing stands in the audio slot",
    "prompt": "a text that stands alone has no prompt",
    "response": "the clips have no response",
}


def summarise(
    sums: Sums, kind: InputKind, settings: AuditSettings, importance: Sequence[ImportanceSums] = ()
) -> InputAudit:
    """Every scope of one input, and what else was measured with it; see `ScopeAudit`, `Importance`, `Trust`.

    Args:
        sums: of the input.
        kind: which input.
        settings: of the bootstrap.
        importance: what else was measured.
    """
    units = units_of(sums, settings.cluster)
    resampler = make_resampler(units.clusters, replicates=settings.replicates, seed=settings.seed)
    scopes: dict[Scope, ScopeAudit] = {}
    empty: dict[Scope, str] = {}
    for scope in SCOPES:
        if sums.counts[:, SCOPES.index(scope)].sum() == 0:
            empty[scope] = EMPTY_SCOPE.get(scope, "no position")
        else:
            scopes[scope] = summarise_scope(sums, scope, resampler, settings.level)
    items = [aligned(item, sums.utterances) for item in importance]
    measured = InputAudit(
        input=kind,
        scopes=scopes,
        empty_scopes=empty,
        drawn=units.drawn,
        importance=[summarise_importance(item, sums.depth, resampler, settings.level) for item in items],
        trust=trust_of(sums, items, resampler, settings.level),
    )
    with_caution(measured, units.caution)
    return measured


def summarise_scope(sums: Sums, scope: Scope, resampler: Resampler, level: float) -> ScopeAudit:
    """One scope: every cosine metric, with intervals where there are two clusters or more."""
    counts = sums.counts[:, SCOPES.index(scope)]
    return ScopeAudit(
        positions=int(counts.sum()),
        utterances=int((counts > 0).sum()),
        metrics={
            metric.name: _metric_values(metric, sums, scope, resampler, level)
            for metric in cosine_metrics()
            if metric.name in sums.slices and scope in metric.scopes
        },
    )


def _metric_values(metric: CosineMetric, sums: Sums, scope: Scope, resampler: Resampler, level: float) -> MetricValues:
    means = sums.mean(scope, metric.name)
    columns, counts = sums.scope(scope, metric.name)

    def rows(columns: Floats) -> Triangle:
        return to_triangle(columns, sums.depth) if metric.per == "block" else [columns.tolist()]

    values = MetricValues(
        title=metric.title,
        unit=metric.unit,
        per=metric.per,
        low_is_redundant=metric.low_is_redundant,
        values=rows(means),
    )
    if resampler.clusters > 1:
        values.low, values.high = map(rows, mean_bounds(columns, counts[:, None], resampler, level))
    if metric.per == "block":
        cost = cost_rows(sums, scope, metric, resampler)
        lost = columns if metric.low_is_redundant else -columns
        for name, keep_last in (("best", False), ("best_keeping_last", True)):
            setattr(values, name, best_blocks(values, cost, lost, counts, resampler, level, keep_last=keep_last))
    return values


def summarise_importance(sums: ImportanceSums, depth: int, resampler: Resampler, level: float) -> Importance:
    """The record of an audit: means with intervals, and of what was measured in earnest the best block of each size."""
    metric = importance_named(sums.metric)
    quantity = metric.quantity(sums.quantity)
    means = sums.means()
    low = high = None
    if resampler.clusters > 1 and (usable := np.isfinite(means)).any():
        low, high = np.full_like(means, np.nan), np.full_like(means, np.nan)
        known = ~np.isnan(sums.values[:, usable])
        columns = np.where(known, sums.values[:, usable], 0)
        low[usable], high[usable] = mean_bounds(columns, known * sums.counts[:, None], resampler, level)
    importance = Importance(
        metric=sums.metric,
        quantity=sums.quantity,
        option=metric.option(quantity),
        title=quantity.title.format(unit=sums.unit),
        noun=quantity.noun,
        low_is_redundant=quantity.low_is_redundant,
        additive=metric.additive,
        measured=metric.measured,
        unit=sums.unit,
        scope=sums.scope,
        part=sums.part,
        candidates=[list(candidate) for candidate in sums.candidates],
        values=_finite(means),
        low=None if low is None else _finite(low),
        high=None if high is None else _finite(high),
        clips=(~np.isnan(sums.values)).sum(0).tolist(),
        refused=dict(sums.refused),
        utterances=len(sums.utterances),
        positions=int(sums.counts.sum()),
        full=_full(sums, resampler, level),
        method=sums.method,
    )
    if metric.measured and sums.part == "layer":
        importance.best = best_measured(importance, sums, depth, resampler, level)
    return importance


def _full(sums: ImportanceSums, resampler: Resampler, level: float) -> Estimate | None:
    if sums.full is None:
        return None
    value = Estimate(value=float(sums.full.sum() / sums.counts.sum()), level=level)
    if resampler.clusters > 1:
        low, high = mean_bounds(sums.full[:, None], sums.counts[:, None], resampler, level)
        value.low, value.high = float(low[0]), float(high[0])
    return value


def _finite(values: Floats) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
