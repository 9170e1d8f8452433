"""From an audit and a strategy to a plan."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal

from pydantic import ValidationError

from shoal.errors import PlanError, UsageError
from shoal.provenance import provenance
from shoal.schema import (
    Audit,
    Estimate,
    Importance,
    InputKind,
    Part,
    Plan,
    PlanSource,
    Scope,
    ScopeAudit,
    plan_problem,
)
from shoal.selection.consensus import check_one_model, check_weights
from shoal.selection.settings import REGISTRY, SelectSettings
from shoal.selection.strategy import Choice, Request, Strategy
from shoal.selection.values import IMPORTANCE, angular_distance, find_importance
from shoal.settings import takes


@dataclass(frozen=True)
class AuditView:
    """The part of an audit that a choice rests on."""

    audit: Audit
    path: str
    input: InputKind
    scope: Scope
    measured: ScopeAudit
    importance: Importance | None

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
        The plan. A block has its distance with interval; `stability` is known for `contiguous` by `angular` only.

    Raises:
        UsageError: an unknown strategy, metric, input, scope or part, a number of layers that does not fit, a metric
            that was not measured, or audits that cannot share a plan.
    """
    settings = SelectSettings.of(settings, options)
    audits = [audit] if isinstance(audit, Audit) else list(audit)
    paths = [source_path] * len(audits) if isinstance(source_path, str) else list(source_path)
    part, seed, allow_last = settings.part, settings.seed, settings.allow_last
    usual = "consensus" if len(audits) > 1 else "contiguous" if part == "layer" else "lowest"
    strategy = get(settings.strategy or usual)
    _check_sides(audits, strategy, paths, settings.weights)
    metric = _metric(strategy, settings.metric, part)
    looks = [
        _look(each, path, metric, part, settings.input, settings.scope)
        for each, path in zip(audits, paths, strict=True)
    ]
    count = layer_count(audits[0].depth, layers)
    requests = [_request(look, count, metric, seed, allow_last) for look in looks]
    choice = strategy.choose(
        replace(
            requests[0],
            others=tuple(requests[1:]),
            combine=settings.combine,
            weights=settings.weights,
        )
    )
    model = audits[0].model
    return Plan(
        provenance=provenance(),
        model_ref=model.ref,
        depth=model.depth,
        layers=choice.layers,
        part=part,
        strategy=strategy.name,
        allow_last=allow_last,
        seed=seed if strategy.draws else None,
        distance=_distance(looks, choice, part),
        importance=choice.importance,
        stability=choice.stability,
        source=_source(looks, metric, settings.combine, settings.weights),
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
    wanted = sorted(layers)
    if problem := plan_problem(wanted, depth, allow_last=allow_last):
        raise PlanError(problem, where="layers to remove", fix="give 0-based indices, each once")
    try:
        return Plan(
            provenance=provenance(), model_ref=model_ref, depth=depth, layers=wanted, allow_last=allow_last
        )
    except ValidationError as error:
        raise PlanError(error.errors()[0]["msg"], where="layers to remove") from None


def get(name: str) -> Strategy:
    """The strategy called `name`.

    Raises:
        UsageError: there is none.
    """
    if name not in REGISTRY:
        raise UsageError(
            f"unknown strategy {name!r}", where="--strategy", fix=f"use one of {', '.join(REGISTRY)}"
        )
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


def block_distance(measured: ScopeAudit, layers: Sequence[int], level: float) -> Estimate | None:
    """The distance of `layers` with its interval, if they are one block; None if not."""
    if list(layers) != list(range(layers[0], layers[0] + len(layers))):
        return None
    return angular_distance(measured, layers, level)


def _check_sides(
    audits: Sequence[Audit],
    strategy: Strategy,
    paths: Sequence[str],
    weights: Sequence[float] | None,
) -> None:
    if not audits or len(audits) != len(paths):
        raise UsageError(
            f"{len(audits)} audits and {len(paths)} paths", where="source_path", fix="give one each"
        )
    if strategy.several:
        check_weights(weights, len(audits))
        check_one_model(
            [audit.model for audit in audits], [path or f"audit {place}" for place, path in enumerate(paths)]
        )
    elif len(audits) > 1 or weights is not None:
        raise UsageError(
            f"{strategy.name} chooses from one audit",
            where="strategy",
            fix="use consensus, which takes several and weighs them",
        )


def _look(
    audit: Audit, path: str, metric: str | None, part: Part, input: InputKind | None, scope: Scope | None
) -> AuditView:
    """A metric that has a scope of its own (whose tokens its loss is taken over) decides, unless one is wanted."""
    importance = None
    kind = _input(audit, input)
    if metric is not None and metric in IMPORTANCE:
        importance = find_importance(audit.inputs[kind], metric, part, scope)
    own = "all" if importance is None else importance.scope
    return AuditView(audit, path, kind, scope or own, _measured(audit, kind, scope or own), importance)


def _request(look: AuditView, count: int, metric: str | None, seed: int, allow_last: bool) -> Request:
    audit = look.audit
    return Request(audit.depth, count, look.measured, metric, seed, allow_last, look.importance, audit.level)


def _distance(looks: Sequence[AuditView], choice: Choice, part: Part) -> Estimate | None:
    """None for several audits, which have several, and for a part of layers, of which the triangle knows nothing."""
    if len(looks) > 1 or part != "layer":
        return None
    return choice.distance or block_distance(looks[0].measured, choice.layers, looks[0].audit.level)


def _source(
    looks: Sequence[AuditView],
    metric: str | None,
    combine: Literal["mean", "worst"],
    weights: Sequence[float] | None,
) -> PlanSource:
    first, *others = (look.source(metric) for look in looks)
    if not others:
        return first
    for source, weight in zip((first, *others), check_weights(weights, len(looks)), strict=True):
        source.weight = weight
    first.combine, first.others = combine, others
    return first


def _input(audit: Audit, wanted: InputKind | None) -> InputKind:
    kind: InputKind = wanted or ("speech" if "speech" in audit.inputs else "text")
    if kind not in audit.inputs:
        raise UsageError(
            f"the audit did not measure {kind!r}",
            where="input",
            fix=f"use {' or '.join(audit.inputs) or 'another'}",
        )
    return kind


def _measured(audit: Audit, kind: InputKind, scope: Scope) -> ScopeAudit:
    scopes = audit.inputs[kind].scopes
    if scope not in scopes:
        reason = audit.inputs[kind].empty_scopes.get(scope, "not measured")
        raise UsageError(
            f"no {scope!r} positions in the {kind} input ({reason})",
            where="scope",
            fix=f"use {', '.join(scopes)}",
        )
    return scopes[scope]


def _metric(strategy: Strategy, metric: str | None, part: Part) -> str | None:
    """What is ranked by: as wanted, else the strategy's own, and of a part of a layer its ablation."""
    if part != "layer":
        return _metric_of_parts(strategy, metric, part)
    if metric is None:
        return strategy.metrics[0] if strategy.metrics else None
    if metric not in strategy.metrics:
        can = ", ".join(strategy.metrics) or "nothing: it does not look at the measurement"
        raise UsageError(
            f"{strategy.name} cannot rank by {metric!r}", where="metric", fix=f"leave it out ({can})"
        )
    return metric


def _metric_of_parts(strategy: Strategy, metric: str | None, part: str) -> str:
    if not strategy.parts:
        raise UsageError(f"{strategy.name} takes whole layers", where="part", fix="use strategy lowest")
    if (metric := metric or "ablation") not in IMPORTANCE:
        raise UsageError(
            f"{metric!r} does not measure the {part} alone",
            where="metric",
            fix=f"use {', '.join(IMPORTANCE)}",
        )
    return metric
