"""From an audit and a strategy to a plan."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from pydantic import ValidationError

from shoal.errors import PlanError, UsageError
from shoal.provenance import provenance
from shoal.schema import Audit, Estimate, InputAudit, InputKind, Part, Plan, PlanSource, Scope, ScopeAudit, plan_problem
from shoal.schema.plan import DISTANCE_METRIC
from shoal.selection.consensus import check_one_model, check_weights
from shoal.selection.settings import REGISTRY, SelectSettings
from shoal.selection.strategy import Choice, Request, Strategy, Values, find_importance
from shoal.settings import takes
from shoal.terms import DEFAULT_SCOPE, is_block


@dataclass(frozen=True)
class AuditView:
    """The part of an audit that a choice rests on."""

    audit: Audit
    path: str
    input: InputKind
    scope: Scope
    measured: ScopeAudit
    values: Values | None

    def source(self, metric: str | None) -> PlanSource:
        """For the record."""
        return PlanSource(
            path=self.path,
            fingerprint=hashlib.sha256(self.audit.model_dump_json().encode()).hexdigest(),
            model_fingerprint=self.audit.model.fingerprint,
            input=self.input,
            scope=self.scope,
            metric=metric,
        )


@takes(SelectSettings)
def select(
    audit: Audit | Sequence[Audit],
    layers: int | str,
    settings: SelectSettings | None = None,
    *,
    source_path: str | Sequence[str] = "",
    **options: Any,
) -> Plan:
    """Choose layers to remove.

    Args:
        audit: the measurement to choose from; several of one model (tasks, languages) share a plan.
        layers: how many, see `layer_count`.
        settings: how they are chosen.
        source_path: where the audit lies, for the record; of several one each.
        **options: fields of `SelectSettings`, instead of `settings` or in their place.

    Returns:
        The plan. A block has its distance with interval; `selection_frequency` and `confidence_set`
        are known for `contiguous` by a metric whose best blocks the audit names.

    Raises:
        UsageError: an unknown strategy, metric, input, scope or part, a number of layers that does not fit, a metric
            that was not measured, or audits that cannot share a plan.
    """
    settings = SelectSettings.of(settings, options)
    audits = [audit] if isinstance(audit, Audit) else list(audit)
    paths = [source_path] * len(audits) if isinstance(source_path, str) else list(source_path)
    usual = "consensus" if len(audits) > 1 else "contiguous" if settings.part == "layer" else "lowest"
    strategy = get(settings.strategy or usual)
    metric = _metric(strategy, settings.metric, settings.part)
    _check_sides(audits, strategy, paths, settings.weights)
    views = [_view(side, path, metric, settings) for side, path in zip(audits, paths, strict=True)]
    count = layer_count(audits[0].depth, layers)
    requests = [
        Request(side.depth, count, metric, view.values, settings.seed, settings.allow_last, side.level)
        for side, view in zip(audits, views, strict=True)
    ]
    others = tuple(requests[1:])
    choice = strategy.choose(replace(requests[0], others=others, combine=settings.combine, weights=settings.weights))
    model = audits[0].model
    return Plan(
        provenance=provenance(),
        model_ref=model.ref,
        depth=model.depth,
        layers=choice.layers,
        part=settings.part,
        strategy=strategy.name,
        allow_last=settings.allow_last,
        seed=settings.seed if strategy.draws else None,
        distance=_distance(views, choice, metric, settings.part),
        importance=None if metric == DISTANCE_METRIC else choice.value,
        selection_frequency=choice.selection_frequency,
        confidence_set=choice.confidence_set,
        source=_source(views, metric, settings),
    )


def manual(model_ref: str, depth: int, layers: Sequence[int], *, allow_last: bool = False) -> Plan:
    """A plan that removes the layers somebody lists.

    Args:
        model_ref: the model it is for.
        depth: its number of layers.
        layers: 0-based indices, in any order.
        allow_last: the last layer may be among them.

    Raises:
        PlanError: the layers do not fit the depth.
    """
    ascending = sorted(layers)
    if problem := plan_problem(ascending, depth, allow_last=allow_last):
        raise PlanError(problem, where="layers to remove", fix="give 0-based indices, each once")
    try:
        return Plan(provenance=provenance(), model_ref=model_ref, depth=depth, layers=ascending, allow_last=allow_last)
    except ValidationError as error:
        raise PlanError(error.errors()[0]["msg"], where="layers to remove") from None


def get(name: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in REGISTRY:
        raise UsageError(f"unknown strategy {name!r}", where="--strategy", fix=f"use one of {', '.join(REGISTRY)}")
    strategy: Strategy = import_module(f"shoal.selection.{name}").STRATEGY
    return strategy


def layer_count(depth: int, layers: int | str) -> int:
    """How many layers `layers` means: `8`, `"8"`, or a percentage of the depth such as `"30%"`.

    A percentage is rounded to the nearest whole layer (halves up) and is at least one layer, unless it is 0.

    Raises:
        UsageError: not a number, or not in 1 … depth-1.
    """
    text = str(layers).strip()
    try:
        number = float(text[:-1]) / 100 * depth if text.endswith("%") else int(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{text!r} is not a number of layers", where="layers", fix="write 8 or 30%")
    count = max(math.floor(number + 0.5), 1 if number > 0 else 0)
    if not 1 <= count < depth:
        raise UsageError(
            f"{text} means {count} of {depth} layers",
            where="layers",
            fix=f"remove 1 to {depth - 1} layers" if depth > 1 else "a model of one layer cannot be pruned",
        )
    return count


def _check_sides(
    audits: Sequence[Audit], strategy: Strategy, paths: Sequence[str], weights: Sequence[float] | None
) -> None:
    if not audits or len(audits) != len(paths):
        raise UsageError(f"{len(audits)} audits and {len(paths)} paths", where="source_path", fix="give one each")
    if strategy.several:
        check_weights(weights, len(audits))
        check_one_model(
            [audit.model for audit in audits],
            [path or f"audit {number}" for number, path in enumerate(paths)],
        )
    elif len(audits) > 1 or weights is not None:
        raise UsageError(
            f"{strategy.name} chooses from one audit",
            where="strategy",
            fix="use consensus, which takes several and weighs them",
        )


def _view(audit: Audit, path: str, metric: str | None, settings: SelectSettings) -> AuditView:
    """An importance has a scope of its own (whose tokens its loss is taken over), which decides unless one is given."""
    kind, part, scope = _input(audit, settings.input), settings.part, settings.scope
    measured = audit.inputs[kind]
    values: Values | None = None
    if metric is not None and not _is_cosine(measured, metric, part):
        values = find_importance(measured, metric, part, scope)
        scope = scope or values.scope
    scope = scope or DEFAULT_SCOPE
    in_scope = _measured(measured, scope)
    if metric is not None and values is None:
        if metric not in in_scope.metrics:
            known = ", ".join(name for name, other in measured.scopes.items() if metric in other.metrics)
            raise UsageError(f"{metric} is not measured in scope {scope}", where="scope", fix=f"use {known}")
        values = in_scope.metrics[metric]
    return AuditView(audit, path, kind, scope, in_scope, values)


def _is_cosine(measured: InputAudit, metric: str, part: Part) -> bool:
    return part == "layer" and any(metric in scope.metrics for scope in measured.scopes.values())


def _distance(views: Sequence[AuditView], choice: Choice, metric: str | None, part: Part) -> Estimate | None:
    """None for several audits, which have several, and for what is no block of whole layers."""
    values = views[0].measured.metrics.get(DISTANCE_METRIC)
    if len(views) > 1 or part != "layer" or values is None or not is_block(choice.layers):
        return None
    if metric == DISTANCE_METRIC and choice.value is not None:
        return choice.value
    return values.estimate(choice.layers, views[0].audit.level)


def _source(views: Sequence[AuditView], metric: str | None, settings: SelectSettings) -> PlanSource:
    first, *others = (view.source(metric) for view in views)
    if not others:
        return first
    weights = check_weights(settings.weights, len(views))
    for source, weight in zip((first, *others), weights, strict=True):
        source.weight = weight
    first.combine, first.others = settings.combine, others
    return first


def _input(audit: Audit, asked: InputKind | None) -> InputKind:
    kind: InputKind = asked or ("speech" if "speech" in audit.inputs else "text")
    if kind not in audit.inputs:
        raise UsageError(
            f"the audit did not measure {kind!r}",
            where="input",
            fix=f"use {' or '.join(audit.inputs) or 'another'}",
        )
    return kind


def _measured(measured: InputAudit, scope: Scope) -> ScopeAudit:
    if scope not in measured.scopes:
        reason = measured.empty_scopes.get(scope, "not measured")
        raise UsageError(
            f"no {scope!r} positions in the {measured.input} input ({reason})",
            where="scope",
            fix=f"use {', '.join(measured.scopes)}",
        )
    return measured.scopes[scope]


def _metric(strategy: Strategy, metric: str | None, part: str) -> str | None:
    """What is ranked by: as asked for, else the strategy's own."""
    if part != "layer" and strategy.metric_of_parts is None:
        raise UsageError(f"{strategy.name} takes whole layers", where="part", fix="use strategy lowest")
    if strategy.metric is None and metric is not None:
        raise UsageError(
            f"{strategy.name} does not look at the measurement, so it cannot rank by {metric!r}",
            where="metric",
            fix="leave it out",
        )
    return metric or (strategy.metric if part == "layer" else strategy.metric_of_parts)
