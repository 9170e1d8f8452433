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
from shoal.measurement.collector import collect
from shoal.measurement.importance_config import ImportanceConfig
from shoal.measurement.settings import AuditSettings
from shoal.measurement.summary import summarise
from shoal.measurement.sums import Sums, SumsFile, SumsWriter, load_sums, save_sums
from shoal.models.batch import PreparedBatch
from shoal.progress import Progress
from shoal.provenance import provenance
from shoal.schema import Audit, InputKind
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

    Angular distance of every block and influence of every layer come from one forward pass, in all scopes, and are
    always there. `gradient` takes a backward pass more, and gives every block, attention and MLP. `ablation` leaves
    out every layer, or every block of the sizes asked for, and gives the true rise of the task loss and the divergence
    from the full model; with it the audit says how well each metric predicts that truth.

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
    wanted, folder = ImportanceConfig.of_settings(settings), None if out is None else Path(out)
    task = tasks.get(task) if isinstance(task, str) else task
    chosen = _inputs(model, task, data, settings.inputs)
    if "speech" in chosen:
        model.check_lengths(data.rows)
    wanted.check(model, task, chosen)
    key = _key(model, data, task, chosen)
    found = _already_measured(folder, key)
    if found is None:
        watch = Stopwatch()
        measured = {
            name: measure(
                model,
                data,
                task,
                name,
                batch_size=settings.batch_size,
                progress=progress,
                watch=watch,
                spool=folder,
            )
            for name in chosen
        }
        found = SumsFile(measured, key, watch.seconds)
        _keep(found, folder)
    for name in chosen:
        for metric in wanted.metrics:
            if wanted.measure(model, data, task, name, metric, found, folder, settings.batch_size, progress):
                _keep(found, folder)
    document = Audit(
        provenance=provenance(device=str(model.device), dtype=model.dtype_name),
        model=model.info(),
        data=data.info(),
        task=task.name,
        inputs={
            name: summarise(
                sums,
                name,
                cluster=settings.cluster,
                replicates=settings.replicates,
                level=settings.level,
                seed=settings.seed,
                importance=wanted.of(found, name),
            )
            for name, sums in found.inputs.items()
        },
        replicates=settings.replicates,
        level=settings.level,
        cluster=settings.cluster,
        seed=settings.seed,
        sums_file="audit.npz" if folder else None,
        seconds=found.seconds,
    )
    if folder is not None:
        document.save(folder / "audit.json")
    return document


def _keep(found: SumsFile, out: Path | None) -> None:
    if out is not None:
        save_sums(out / "audit.npz", found)


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
        _make_folder(spool)
    writer = SumsWriter(len(model.layers), spool)
    speakers = {row.id: row.speaker for row in data.rows}
    watch = watch or Stopwatch()
    prepared = prepared_batches(model, data, task, kind, batch_size)
    for item in collect(model.decoder, model.layers, _timed_gaps(prepared, watch), state=model.family.state):
        writer.add(item)
        if progress is not None:
            progress(kind, len(writer.utterances), len(data.rows))
    if not writer.utterances:
        raise UsageError("no clip is left to measure", fix="see the skipped rows above")
    return writer.finish([speakers.get(name) for name in writer.utterances])


def _timed_gaps(prepared: Iterator[PreparedBatch], watch: Stopwatch) -> Iterator[PreparedBatch]:
    """Count the time between handing out one batch and being asked for the next."""
    for batch in prepared:
        start = time.perf_counter()
        yield batch
        watch.seconds += time.perf_counter() - start


def _inputs(
    model: LoadedModel, task: Task, data: Dataset, wanted: Sequence[InputKind] | None
) -> tuple[InputKind, ...]:
    """The inputs asked for; by default all that model, task and data have."""
    model.check_fed()
    possible = tuple(name for name in model.inputs if name in task.inputs)
    for name in wanted or ():
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
    if wanted:
        return tuple(name for name in possible if name in wanted)
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
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _already_measured(out: Path | None, key: str) -> SumsFile | None:
    if out is None or not (out / "audit.npz").is_file():
        return None
    try:
        found = load_sums(out / "audit.npz")
    except FileFormatError:
        return None
    return found if found.key == key else None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"cannot be made ({error.strerror})", where=str(folder), fix="choose another place with --out"
        ) from None
