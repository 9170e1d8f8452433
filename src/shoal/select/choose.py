"""From an audit and a strategy to a plan."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from pydantic import ValidationError

from shoal.errors import PlanError, UsageError
from shoal.provenance import provenance
from shoal.schema import Audit, Estimate, InputKind, Plan, PlanSource, Scope, ScopeAudit, plan_problem
from shoal.select.strategy import Request, Strategy


def choose(
    audit: Audit,
    layers: int | str,
    strategy: Strategy,
    *,
    input: InputKind | None,
    scope: Scope,
    metric: str | None,
    seed: int,
    allow_last: bool,
    source_path: str,
) -> Plan:
    """See `shoal.select.select`."""
    kind, measured = _measured(audit, input, scope)
    metric = _metric(strategy, metric)
    count = count_layers(audit.depth, layers)
    choice = strategy.choose(Request(audit.depth, count, measured, metric, seed, allow_last))
    return Plan(
        provenance=provenance(),
        model_ref=audit.model.ref,
        depth=audit.depth,
        layers=choice.layers,
        strategy=strategy.name,
        allow_last=allow_last,
        seed=seed if strategy.draws else None,
        distance=choice.distance or block_distance(measured, choice.layers, audit.level),
        stability=choice.stability,
        source=PlanSource(
            path=source_path,
            fingerprint=hashlib.sha256(audit.model_dump_json().encode()).hexdigest(),
            model_fingerprint=audit.model.fingerprint,
            input=kind,
            scope=scope,
            metric=metric,
        ),
    )


def manual_plan(model_ref: str, depth: int, layers: Sequence[int], *, allow_last: bool) -> Plan:
    """See `shoal.select.manual`."""
    wanted = sorted(layers)
    if problem := plan_problem(wanted, depth, allow_last=allow_last):
        raise PlanError(problem, where="layers to remove", fix="give 0-based indices, each once")
    try:
        return Plan(
            provenance=provenance(), model_ref=model_ref, depth=depth, layers=wanted, allow_last=allow_last
        )
    except ValidationError as error:
        raise PlanError(error.errors()[0]["msg"], where="layers to remove") from None


def count_layers(depth: int, layers: int | str) -> int:
    """See `shoal.select.layer_count`."""
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
    first, n = layers[0], len(layers)
    if list(layers) != list(range(first, first + n)):
        return None
    low, high = (
        None if triangle is None else triangle[n - 1][first]
        for triangle in (measured.angular_low, measured.angular_high)
    )
    return Estimate(value=measured.angular[n - 1][first], low=low, high=high, level=level)


def _measured(audit: Audit, input: InputKind | None, scope: Scope) -> tuple[InputKind, ScopeAudit]:
    kind: InputKind = input or ("speech" if "speech" in audit.inputs else "text")
    if kind not in audit.inputs:
        raise UsageError(
            f"the audit did not measure {kind!r}",
            where="input",
            fix=f"use {' or '.join(audit.inputs) or 'another'}",
        )
    scopes = audit.inputs[kind].scopes
    if scope not in scopes:
        reason = audit.inputs[kind].empty_scopes.get(scope, "not measured")
        raise UsageError(
            f"no {scope!r} positions in the {kind} input ({reason})",
            where="scope",
            fix=f"use {', '.join(scopes)}",
        )
    return kind, scopes[scope]


def _metric(strategy: Strategy, metric: str | None) -> str | None:
    if metric is None:
        return strategy.metrics[0] if strategy.metrics else None
    if metric not in strategy.metrics:
        can = ", ".join(strategy.metrics) or "nothing: it does not look at the measurement"
        raise UsageError(
            f"{strategy.name} cannot rank by {metric!r}", where="metric", fix=f"leave it out ({can})"
        )
    return metric
