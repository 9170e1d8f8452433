"""The audit: batches in, `audit.json` and `audit.npz` out."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.decoder.batches import prepared_batches
from shoal.errors import FileFormatError, UsageError
from shoal.machine import writing
from shoal.measurement.blocks import block_candidates
from shoal.measurement.collector import collect
from shoal.measurement.metric_types import ImportanceMetric, ImportanceRequest
from shoal.measurement.metrics import metric_slices
from shoal.measurement.settings import AuditSettings
from shoal.measurement.summary import summarise
from shoal.measurement.sums import Sums, SumsFile, SumsWriter, load_sums, save_sums
from shoal.models.batch import PreparedBatch
from shoal.progress import Progress, report_progress, stage
from shoal.provenance import provenance
from shoal.schema import Audit, InputAudit, InputKind
from shoal.settings import takes

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

MEASURE_VERSION = 1
"""Raised when the numbers in the `.npz` change meaning, so that old files are measured again."""


@dataclass
class Stopwatch:
    """Wall time spent in the decoder and the metrics (not in loading, decoding or encoding audio)."""

    seconds: float = 0.0


@takes(AuditSettings)
def audit(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    settings: AuditSettings | None = None,
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Audit:
    """Measure what the decoder layers do: by similarity, by gradients, by leaving them out.

    The cosine metrics (angular distance of every block, influence of every layer) come from one forward pass, in all
    scopes, and are always there. `gradient` takes a backward pass more, and gives every block, attention and MLP.
    `ablation` leaves out every layer, or every block of the sizes asked for, and gives the true rise of the task loss
    and the divergence from the full model; with it the audit says how well each metric predicts that truth.

    Args:
        model: from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: its instruction and target make the prompt and the teacher-forced response.
        settings: what is measured, and how.
        out: folder for `audit.json` and `audit.npz`; measuring the same again there reuses the `.npz`.
        progress: called with (input, clips done, clips in all).
        **options: fields of `AuditSettings`, instead of `settings` or in their place.

    Raises:
        MeasureError: a state is not finite or zero, or the full model's loss is not finite.
        ModelError: gradient or ablation of a class whose loss is not known.
        UsageError: an input the model or the task cannot take, or an unknown metric, part or block size.
    """
    settings = AuditSettings.of(settings, options)
    folder = None if out is None else Path(out)
    task = tasks.get(task) if isinstance(task, str) else task
    inputs = _inputs(model, task, data, settings.inputs)
    if "speech" in inputs:
        model.check_clips(data, task)
    _check(settings, model, task, inputs)
    key = _key(model, data, task, inputs)
    measured = _already_measured(folder, key)
    if measured is None:
        watch = Stopwatch()
        size = settings.batch_size
        sums = {
            kind: measure(model, data, task, kind, batch_size=size, progress=progress, watch=watch, spool=folder)
            for kind in inputs
        }
        measured = SumsFile(sums, key, watch.seconds)
        _keep(measured, folder)
    for kind in inputs:
        for metric in settings.importances:
            asked = settings.options_of(metric)
            request = ImportanceRequest(model, data, task, kind, asked, folder, progress)
            if _add_importance(measured, metric, request):
                _keep(measured, folder)
    with stage(progress, "summarise"):
        summaries = {kind: _summary(measured, kind, settings) for kind in measured.inputs}
    document = Audit(
        provenance=provenance(device=str(model.device), dtype=model.dtype_name),
        model=model.info(),
        data=data.info(),
        task=task.name,
        inputs=summaries,
        replicates=settings.replicates,
        level=settings.level,
        cluster=settings.cluster,
        seed=settings.seed,
        sums_file="audit.npz" if folder else None,
        seconds=measured.seconds,
    )
    if folder is not None:
        document.save(folder / "audit.json")
    return document


def _check(settings: AuditSettings, model: LoadedModel, task: Task, inputs: Sequence[InputKind]) -> None:
    """Make sure, before anything is computed, that it can be.

    Raises:
        UsageError: block sizes that the model does not have, a scope without tokens, or decoding without speech.
    """
    if not settings.importances:
        return
    block_candidates(len(model.layers), settings.block_sizes)
    if settings.loss_scope == "audio" and "speech" in inputs:
        raise UsageError(
            "audio has no tokens to predict, so there is no loss over it",
            where="--loss-scope",
            fix="use text, or add --input text",
        )
    if settings.decode:
        from shoal.evaluation.scores.registry import headline

        headline(task)
        if "speech" not in inputs:
            raise UsageError("there is no speech to decode", where="--decode", fix="leave it out")


def _summary(measured: SumsFile, kind: InputKind, settings: AuditSettings) -> InputAudit:
    """With what was asked for of the importance that the file holds."""
    asked = [item for item in measured.importance.get(kind, []) if item.metric in settings.metrics]
    return summarise(measured.inputs[kind], kind, settings, asked)


def _add_importance(measured: SumsFile, metric: ImportanceMetric, request: ImportanceRequest) -> bool:
    """Measure one importance with one input into the file's content, unless it is there; whether it was measured."""
    name, options = f"{request.input}:{metric.name}", request.options
    depends = [metric.name, options.scope, *metric.depends_on(options)]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()
    if measured.importance_keys.get(name) == key:
        return False
    others = [item for item in measured.importance.get(request.input, []) if item.metric != metric.name]
    measured.importance[request.input] = others + metric.measure(request)
    measured.importance_keys[name] = key
    return True


def _keep(measured: SumsFile, out: Path | None) -> None:
    if out is not None:
        save_sums(out / "audit.npz", measured)


def measure(
    model: LoadedModel,
    data: Dataset,
    task: Task,
    kind: InputKind,
    *,
    batch_size: int = 16,
    progress: Progress | None = None,
    watch: Stopwatch | None = None,
    spool: Path | None = None,
) -> Sums:
    """One forward pass over all clips with one input; the sums lie in a temporary file in `spool`."""
    if spool is not None:
        with writing(spool):
            spool.mkdir(parents=True, exist_ok=True)
    writer = SumsWriter(len(model.layers), spool)
    speakers = {row.id: row.speaker for row in data.rows}
    watch = watch or Stopwatch()
    report_progress(progress, kind, 0, len(data.rows))
    prepared = prepared_batches(model, data, task, kind, batch_size)
    for item in collect(model.decoder, model.layers, _timed_gaps(prepared, watch), state=model.family.state):
        writer.add(item)
        report_progress(progress, kind, len(writer.utterances), len(data.rows))
    if not writer.utterances:
        raise UsageError("no clip is left to measure", fix="see the skipped rows above")
    return writer.finish([speakers.get(name) for name in writer.utterances])


def _timed_gaps(prepared: Iterator[PreparedBatch], watch: Stopwatch) -> Iterator[PreparedBatch]:
    """Count the time between handing out one batch and being asked for the next."""
    for batch in prepared:
        start = time.perf_counter()
        yield batch
        watch.seconds += time.perf_counter() - start


def _inputs(model: LoadedModel, task: Task, data: Dataset, asked: Sequence[InputKind] | None) -> tuple[InputKind, ...]:
    """The inputs asked for; by default all that model, task and data have."""
    model.check_fed()
    possible = tuple(name for name in model.inputs if name in task.inputs)
    for name in asked or ():
        if name not in possible:
            by = model.ref if name not in model.inputs else f"the task {task.name}"
            raise UsageError(
                f"{by} cannot take the input {name!r}",
                where="--input",
                fix=f"it takes {', '.join(possible)}" if possible else "choose another model or task",
            )
    if not possible:
        raise UsageError(
            f"the task {task.name} takes {', '.join(task.inputs)}, and {model.ref} takes {', '.join(model.inputs)}",
            where="--task",
            fix="choose another model or task",
        )
    if asked:
        return tuple(name for name in possible if name in asked)
    # Translations may come without a transcript; then there is no text to put in the place of the audio.
    spoken = all(row.text.strip() for row in data.rows)
    return tuple(name for name in possible if spoken or name == "speech") or possible


def _key(model: LoadedModel, data: Dataset, task: Task, inputs: Sequence[InputKind]) -> str:
    """What the sums depend on, and nothing else (not the bootstrap).

    Raises:
        ManifestError: a row does not hold the task's right answer.
    """
    answers = json.dumps([task.target(row) for row in data.rows])
    parts = [
        MEASURE_VERSION,
        model.info().fingerprint,
        model.dtype_name,
        data.info().fingerprint,
        task.name,
        task.asked,
        hashlib.sha256(answers.encode()).hexdigest(),
        list(inputs),
        *model.languages_told(task, [row.lang for row in data.rows]),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _already_measured(out: Path | None, key: str) -> SumsFile | None:
    """What an earlier audit of the same left in `out`, if the cosine metrics are still the same."""
    if out is None or not (out / "audit.npz").is_file():
        return None
    try:
        measured = load_sums(out / "audit.npz")
    except FileFormatError:
        return None
    known = all(sums.slices == metric_slices(sums.depth) for sums in measured.inputs.values())
    return measured if measured.key == key and known else None
