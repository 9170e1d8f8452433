"""The audit: batches in, `audit.json` and `audit.npz` out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.decoder.batches import prepared_batches
from shoal.errors import UsageError
from shoal.machine import writing
from shoal.measurement.collector import collect
from shoal.measurement.metric_types import ImportanceOptions, ImportanceRequest
from shoal.measurement.settings import AuditSettings
from shoal.measurement.stopping import in_random_order, look, looks_at, stable
from shoal.measurement.stored_audit import (
    SUMS_FILE,
    add_importance,
    check_options,
    has_all_metrics,
    keep,
    open_stored,
    rows_without,
    stored_requests,
)
from shoal.measurement.summary import summarise
from shoal.measurement.sums import Sums, SumsFile, SumsWriter, load_sums
from shoal.models.batch import PreparedBatch
from shoal.progress import Progress, report_progress, stage
from shoal.provenance import provenance
from shoal.schema import Audit, InputKind, Look, Until
from shoal.settings import takes

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task


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
        out: folder for `audit.json` and `audit.npz`. What was measured there stays: the same again measures nothing,
            more clips, inputs, metrics, sizes or parts are added. The intervals are always those asked for last.
        progress: called with (input, clips done, clips in all).
        **options: fields of `AuditSettings`, instead of `settings` or in their place.

    Raises:
        MeasureError: a state is not finite or zero, or the full model's loss is not finite.
        ModelError: gradient or ablation of a class whose loss is not known.
        UsageError: an input the model or the task cannot take, or an unknown metric, part or block size; or `out`
            holds an audit of something else.
    """
    settings = AuditSettings.of(settings, options)
    if settings.until is not None:
        return _until_stable(model, data, task, settings, settings.until, out, progress)
    folder = None if out is None else Path(out)
    task = tasks.get(task) if isinstance(task, str) else task
    inputs = _inputs(model, task, data, settings.inputs)
    if "speech" in inputs:
        model.check_clips(data, task)
    _check(settings, model, task, inputs)
    stored = open_stored(folder, model, data, task, force=settings.force)
    requests = [
        (metric, ImportanceRequest(model, data, task, kind, settings.options_of(metric), folder, progress))
        for kind in inputs
        for metric in settings.importances
    ]
    for metric, request in requests:
        check_options(stored, metric, request, force=settings.force)
    # More clips are measured for all that the file holds, whatever is asked for this time.
    plain = ImportanceOptions(seed=settings.seed, batch_size=settings.batch_size)
    like = ImportanceRequest(model, data, task, inputs[0], plain, folder, progress)
    before = stored_requests(stored, like, besides=requests)
    _measure_cosines(stored, model, data, task, inputs, settings, folder, progress)
    for metric, request in [*requests, *before]:
        if add_importance(stored, metric, request):
            keep(stored, folder, model, data, task)
        elif metric.name in settings.metrics:
            report_progress(progress, metric.name, len(data.rows), len(data.rows))
    with stage(progress, "summarise"):
        summaries = {
            kind: summarise(stored.inputs[kind], kind, settings, stored.importance.get(kind, []))
            for kind in model.inputs
            if kind in stored.inputs
        }
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
        seconds=stored.seconds,
    )
    if folder is not None:
        document.save(folder / "audit.json")
    return document


def _until_stable(
    model: LoadedModel,
    data: Dataset,
    task: Task | str,
    settings: AuditSettings,
    target: float,
    out: str | Path | None,
    progress: Progress | None,
) -> Audit:
    """Measure similarity on more and more clips until the choices are stable, and then the rest on those clips."""
    if out is None:
        with tempfile.TemporaryDirectory() as kept:
            document = _until_stable(model, data, task, settings, target, kept, progress)
            return document.model_copy(update={"sums_file": None})
    folder = Path(out)
    whole = settings.model_copy(update={"until": None})
    few = whole.model_copy(update={"metrics": (), "race": False, "decode": False})
    measured, looks = _looked(folder) if not settings.force else (set(), [])
    rows = in_random_order(data.rows, settings.seed, measured)
    for clips in looks_at(rows, len(measured)):
        part = data.only(rows[:clips])
        document = audit(model, part, task, few, out=folder, progress=progress)
        speakers = {row.speaker for row in part.rows}
        looks = [each for each in looks if each.clips < document.data.clips]
        looks.append(look(document, None if None in speakers else len(speakers)))
        few = few.model_copy(update={"force": False})
        done = stable(looks, target)
        found = Until(target=target, looks=looks, stable=done, offered=len(rows))
        document.model_copy(update={"until": found}).save(folder / "audit.json")
        if done:
            break
    if whole.metrics:
        document = audit(model, part, task, whole.model_copy(update={"force": False}), out=folder, progress=progress)
    document = document.model_copy(update={"until": found})
    document.save(folder / "audit.json")
    return document


def _looked(folder: Path) -> tuple[set[str], list[Look]]:
    """Which clips were measured in a folder, and what was seen on the way."""
    if not (folder / SUMS_FILE).is_file():
        return set(), []
    measured = {clip for sums in load_sums(folder / SUMS_FILE).inputs.values() for clip in sums.utterances}
    document = Audit.load(folder / "audit.json") if (folder / "audit.json").is_file() else None
    return measured, document.until.looks if document is not None and document.until is not None else []


def _check(settings: AuditSettings, model: LoadedModel, task: Task, inputs: Sequence[InputKind]) -> None:
    """Make sure, before anything is computed, that it can be.

    Raises:
        UsageError: block sizes that the model does not have, a scope without tokens, or decoding without speech.
    """
    settings.check_depth(len(model.layers))
    if not settings.importances:
        return
    task.check_scope(settings.loss_scope, "--loss-scope")
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


def _measure_cosines(
    stored: SumsFile,
    model: LoadedModel,
    data: Dataset,
    task: Task,
    inputs: Sequence[InputKind],
    settings: AuditSettings,
    folder: Path | None,
    progress: Progress | None,
) -> None:
    """The cosine metrics of the inputs and clips that the file lacks; of all of them where a metric is new."""
    inputs = [kind for kind in model.inputs if kind in inputs or kind in stored.inputs]
    if not has_all_metrics(stored):
        stored.inputs.clear()
    watch, size = Stopwatch(stored.seconds), settings.batch_size
    for kind in inputs:
        known = stored.inputs.get(kind)
        rows = data.rows if known is None else rows_without(data, known.utterances)
        if not rows:
            report_progress(progress, kind, len(data.rows), len(data.rows))
            continue
        sums = measure(
            model, data, task, kind, rows=rows, batch_size=size, progress=progress, watch=watch, spool=folder
        )
        if known is None and not sums.utterances:
            raise UsageError("no clip is left to measure", fix="see the skipped rows above")
        stored.inputs[kind] = sums if known is None else known.lengthened(sums)
        stored.seconds = watch.seconds
        keep(stored, folder, model, data, task)


def measure(
    model: LoadedModel,
    data: Dataset,
    task: Task,
    kind: InputKind,
    *,
    rows: Sequence[Row] | None = None,
    batch_size: int = 16,
    progress: Progress | None = None,
    watch: Stopwatch | None = None,
    spool: Path | None = None,
) -> Sums:
    """One forward pass over all clips, or those of `rows`, with one input.

    The sums lie in a temporary file in `spool`. There are none where the audio of all clips turned out bad.
    """
    if spool is not None:
        with writing(spool):
            spool.mkdir(parents=True, exist_ok=True)
    writer = SumsWriter(len(model.layers), spool)
    speakers = {row.id: row.speaker for row in data.rows}
    watch = watch or Stopwatch()
    before = 0 if rows is None else len(data.rows) - len(rows)
    report_progress(progress, kind, before, len(data.rows))
    prepared = prepared_batches(model, data, task, kind, batch_size, rows=rows)
    for item in collect(model.decoder, model.layers, _timed_gaps(prepared, watch), state=model.family.state):
        writer.add(item)
        report_progress(progress, kind, before + len(writer.utterances), len(data.rows))
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
