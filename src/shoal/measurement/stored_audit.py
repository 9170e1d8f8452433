"""What an audit's folder holds already: kept where it was asked for before, extended, and never silently replaced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.data import fingerprint
from shoal.decoder.stock_inputs import first_ids
from shoal.errors import FileFormatError
from shoal.measurement.importance import ImportanceSums, extended, lengthened
from shoal.measurement.metric_types import ImportanceMetric, ImportanceOptions, ImportanceRequest
from shoal.measurement.metrics import importance_named, metric_slices
from shoal.measurement.sums import SumsFile, load_sums, save_sums
from shoal.measurement.trust import aligned
from shoal.schema.files import check_same, first_difference, holds_another

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

SUMS_FILE = "audit.npz"
MEASURE_VERSION = 2
"""Raised when the numbers in the `.npz` change meaning, so that they are not mixed with older ones."""


def measured_on(model: LoadedModel, rows: Sequence[Row], task: Task) -> dict[str, Any]:
    """What the sums of these rows depend on, and nothing else (not the bootstrap).

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """
    return {
        "clips": f"{len(rows)}, fingerprint {fingerprint(rows)[:12]}",
        "dtype": model.dtype_name,
        "languages": _fingerprint(model.languages_told(task, [row.lang for row in rows])),
        "model": f"fingerprint {(model.info().fingerprint or 'unknown')[:12]}",
        "prompt": f"{task.asked}, after token {first_ids(model.tokenizer)[0]}" if task.plain_text else task.asked,
        "right answers": _fingerprint([task.target(row) for row in rows]),
        "task": task.name,
        "version of the numbers": MEASURE_VERSION,
    }


def _fingerprint(values: Sequence[str | None]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12] if values else "none"


def open_stored(out: Path | None, model: LoadedModel, data: Dataset, task: Task, *, force: bool) -> SumsFile:
    """What an earlier audit of the same clips, or of some of them, left in `out`; empty if nothing there can be used.

    Args:
        out: the audit's folder; None keeps nothing.
        model: to be measured.
        data: on which clips.
        task: makes prompt and response.
        force: ignore an audit of something else instead of refusing.

    Raises:
        UsageError: it holds an audit of something else.
        ManifestError: a row does not hold the task's right answer.
    """
    now = measured_on(model, data.rows, task)
    if out is None or not (out / SUMS_FILE).is_file():
        return SumsFile({})
    try:
        stored = load_sums(out / SUMS_FILE)
    except FileFormatError:
        return SumsFile({})
    if not stored.measured_on and not force:
        raise holds_another(out, "an audit by an older version of Shoal")
    some = measured_on(model, _rows_in(stored, data.rows), task)
    if first_difference(stored.measured_on, some) is None or check_same(
        out, "an audit", stored.measured_on, now, force=force
    ):
        return stored
    return SumsFile({})


def keep(stored: SumsFile, out: Path | None, model: LoadedModel, data: Dataset, task: Task) -> None:
    """Write down what is measured so far, and of which clips."""
    if out is not None:
        stored.measured_on = measured_on(model, _rows_in(stored, data.rows), task)
        save_sums(out / SUMS_FILE, stored)


def _rows_in(stored: SumsFile, rows: Sequence[Row]) -> list[Row]:
    """Those that every input has sums of."""
    measured = [set(sums.utterances) for sums in stored.inputs.values()]
    return [row for row in rows if all(row.id in known for known in measured)]


def rows_without(data: Dataset, measured: Iterable[str]) -> list[Row]:
    """Those that were not measured: rows that have come in since, or that had bad audio then."""
    known = set(measured)
    return [] if known.issuperset(data.ids()) else [row for row in data.rows if row.id not in known]


def has_all_metrics(stored: SumsFile) -> bool:
    """Whether its cosine metrics are those that there are today; importance is kept all the same."""
    return all(sums.slices == metric_slices(sums.depth) for sums in stored.inputs.values())


def check_options(stored: SumsFile, metric: ImportanceMetric, request: ImportanceRequest, *, force: bool) -> None:
    """Make sure that an importance was not measured in a way that cannot be extended to what is asked for.

    Raises:
        UsageError: another scope, or the one in a race and the other not.
    """
    check_same(request.out, metric.name, *_fixed(stored, metric, request), force=force)


def _fixed(
    stored: SumsFile, metric: ImportanceMetric, request: ImportanceRequest
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that nothing can be added to, as the file has them and as they are asked for."""
    before, now = stored.importance_options.get(_name(metric, request), {}), _options_of(metric, request)
    names = [name for name in ("race", "scope") if name in before]
    return {name: before[name] for name in names}, {name: now[name] for name in names}


def stored_requests(
    stored: SumsFile, like: ImportanceRequest, *, besides: Iterable[tuple[ImportanceMetric, ImportanceRequest]]
) -> list[tuple[ImportanceMetric, ImportanceRequest]]:
    """What the importances in the file, but those of `besides`, were asked for with; `like` has all else."""
    requests, names = [], {_name(*pair) for pair in besides}
    for name, options in stored.importance_options.items():
        for kind in stored.inputs:
            metric = importance_named(name.removeprefix(f"{kind}:"))
            asked = replace(like, input=kind, options=_with(like.options, options))
            if metric.quantities and name not in names:
                requests.append((metric, asked))
    return requests


def add_importance(stored: SumsFile, metric: ImportanceMetric, request: ImportanceRequest) -> bool:
    """Measure what the file lacks of one importance with one input, clips or candidates; whether it lacked anything.

    What contradicts is measured anew: `check_options` has refused it, unless it was forced.
    """
    name, now = _name(metric, request), _options_of(metric, request)
    items = stored.importance.get(request.input, [])
    known = [item for item in items if item.metric == metric.name]
    # An older version did not measure what plans are chosen by first today, and one pass gives all quantities.
    older = bool(known) and all(item.quantity != metric.quantities[0].name for item in known)
    anew = older or first_difference(*_fixed(stored, metric, request))
    before = None if anew else stored.importance_options.get(name)
    union = now if before is None else _union(before, now)
    rows = rows_without(request.data, known[0].utterances) if known else []
    if union == before and not rows:
        return False
    utterances = stored.inputs[request.input].utterances

    def measured(options: ImportanceOptions, data: Dataset) -> list[ImportanceSums]:
        return [aligned(item, utterances) for item in metric.measure(replace(request, options=options, data=data))]

    # A race is of all candidates and clips at once, and decoding needs their losses: those are measured in full again.
    decode = union.get("decode")
    if before is None or before.get("race") or decode != before.get("decode") or (decode and rows):
        sums = measured(_with(request.options, union), request.data)
    else:
        sums = [aligned(item, utterances) for item in known]
        if rows:
            sums = lengthened(sums, measured(_with(request.options, before), replace(request.data, rows=rows)))
        if union != before:
            sums = extended(sums, measured(_missing(_with(request.options, now), before), request.data))
    stored.importance[request.input] = [item for item in items if item.metric != metric.name] + sums
    stored.importance_options[name] = union
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
