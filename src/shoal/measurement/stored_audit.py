"""What an audit's folder holds already: kept where it was asked for before, extended, and never silently replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import FileFormatError, UsageError
from shoal.measurement.importance import extended
from shoal.measurement.metric_types import ImportanceMetric, ImportanceOptions, ImportanceRequest
from shoal.measurement.metrics import metric_slices
from shoal.measurement.sums import SumsFile, load_sums
from shoal.schema.files import Difference, first_difference

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

MEASURE_VERSION = 2
"""Raised when the numbers in the `.npz` change meaning, so that they are not mixed with older ones."""


def measured_on(model: LoadedModel, data: Dataset, task: Task) -> dict[str, Any]:
    """What the sums depend on, and nothing else (not the bootstrap).

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """
    info, weights = data.info(), model.info().fingerprint
    return {
        "clips": f"{info.clips}, fingerprint {info.fingerprint[:12]}",
        "dtype": model.dtype_name,
        "languages": _fingerprint(model.languages_told(task, [row.lang for row in data.rows])),
        "model": f"fingerprint {(weights or 'unknown')[:12]}",
        "prompt": task.asked,
        "right answers": _fingerprint([task.target(row) for row in data.rows]),
        "task": task.name,
        "version of the numbers": MEASURE_VERSION,
    }


def _fingerprint(values: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12] if values else "none"


def open_stored(out: Path | None, about: dict[str, Any], *, force: bool) -> SumsFile | None:
    """What an earlier audit of the same left in `out`; None if there is nothing that can be used.

    Args:
        out: the audit's folder; None keeps nothing.
        about: from `measured_on`.
        force: ignore an audit of something else instead of refusing.

    Raises:
        UsageError: it holds an audit of something else.
    """
    if out is None or not (out / "audit.npz").is_file():
        return None
    try:
        stored = load_sums(out / "audit.npz")
    except FileFormatError:
        return None
    difference = first_difference(stored.measured_on, about)
    if difference is None:
        return stored
    if force:
        return None
    raise _refusal(out, f"another {difference}" if stored.measured_on else "an older version of Shoal made it")


def has_all_metrics(stored: SumsFile) -> bool:
    """Whether its cosine metrics are those that there are today; importance is kept all the same."""
    return all(sums.slices == metric_slices(sums.depth) for sums in stored.inputs.values())


def check_options(stored: SumsFile, metric: ImportanceMetric, request: ImportanceRequest, *, force: bool) -> None:
    """Make sure that an importance was not measured in a way that cannot be extended to what is asked for.

    Raises:
        UsageError: another scope, or the one in a race and the other not.
    """
    if not force and (difference := _contradiction(stored, metric, request)):
        raise _refusal(request.out, f"{metric.name} with another {difference}")


def _contradiction(stored: SumsFile, metric: ImportanceMetric, request: ImportanceRequest) -> Difference | None:
    before, now = stored.importance_options.get(_name(metric, request), {}), _options_of(metric, request)
    fixed = [name for name in ("race", "scope") if name in before]
    return first_difference({name: before[name] for name in fixed}, {name: now[name] for name in fixed})


def add_importance(stored: SumsFile, metric: ImportanceMetric, request: ImportanceRequest) -> bool:
    """Measure what the file lacks of one importance with one input; whether it lacked anything.

    What contradicts is measured anew: `check_options` has refused it, unless it was forced.
    """
    name, now = _name(metric, request), _options_of(metric, request)
    before = None if _contradiction(stored, metric, request) else stored.importance_options.get(name)
    items = stored.importance.get(request.input, [])
    others = [item for item in items if item.metric != metric.name]
    known = [item for item in items if item.metric == metric.name]
    if before is None:
        measured = metric.measure(request)
    else:
        union = _union(before, now)
        if union == before:
            return False
        # A race is of all candidates at once, and decoding needs their losses: those are measured in full again.
        whole = before.get("race") or union.get("decode") != before.get("decode")
        options = _with(request.options, union) if whole else _missing(_with(request.options, now), before)
        more = metric.measure(replace(request, options=options))
        measured, now = more if whole else extended(known, more), union
    stored.importance[request.input] = others + measured
    stored.importance_options[name] = now
    return True


def _name(metric: ImportanceMetric, request: ImportanceRequest) -> str:
    return f"{request.input}:{metric.name}"


def _options_of(metric: ImportanceMetric, request: ImportanceRequest) -> dict[str, Any]:
    """The options that its numbers depend on, as JSON gives them back; sizes in the clear where all are asked for."""
    options, depth = request.options, len(request.model.layers)
    known = {name: getattr(options, name) for name in ("scope", *metric.depends_on)}
    if "block_sizes" in known:
        known["block_sizes"] = sorted(set(options.block_sizes or range(1, depth)))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in known.items()}


def _union(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What was measured and what is asked for: lists are joined, switches stay on."""
    union: dict[str, Any] = {}
    for name, value in before.items():
        if isinstance(value, list):
            union[name] = value + [item for item in now[name] if item not in value]
        else:
            union[name] = value or now[name]
    if "block_sizes" in union:
        union["block_sizes"] = sorted(union["block_sizes"])
    return union


def _with(options: ImportanceOptions, known: dict[str, Any]) -> ImportanceOptions:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in known.items()}
    return replace(options, **values)


def _missing(options: ImportanceOptions, before: dict[str, Any]) -> ImportanceOptions:
    """Parts that were not measured, and blocks of sizes that were not; blocks are of whole layers."""
    parts = [part for part in options.parts if part not in before.get("parts", ())]
    if "layer" in parts or "layer" not in options.parts:
        return replace(options, parts=tuple(parts))
    sizes = tuple(size for size in options.block_sizes or () if size not in before.get("block_sizes", ()))
    return replace(options, block_sizes=sizes, parts=("layer", *parts) if sizes else tuple(parts))


def _refusal(out: Path | None, what: str) -> UsageError:
    return UsageError(
        f"it holds an audit of something else: {what}",
        where=str(out),
        fix="choose another folder with --out, or replace it with --force",
    )
