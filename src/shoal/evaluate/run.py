"""The evaluation: clips in, raw outputs and `scores.json` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.errors import FileFormatError
from shoal.evaluate.outputs import read_outputs
from shoal.evaluate.quality import headline
from shoal.evaluate.settings import Resampling, TokenLimit
from shoal.evaluate.summary import Identity, summarise
from shoal.evaluate.systems import check_hears, open_systems
from shoal.evaluate.transcribe import Progress, Transcriber
from shoal.provenance import provenance
from shoal.schema import Scores

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task

SCORES_FILE = "scores.json"


def run_evaluate(
    loaded: LoadedModel,
    data: Dataset,
    task: Task | str,
    *,
    plans: Sequence[Plan],
    against: LoadedModel | None,
    batch_size: int,
    limit: TokenLimit,
    out: Path | None,
    resampling: Resampling,
    group_by: Sequence[str] | None,
    progress: Progress | None,
) -> Scores:
    """See `shoal.evaluate.evaluate`."""
    task = tasks.get(task) if isinstance(task, str) else task
    headline(task)
    for each in (loaded, against):
        if each is not None:
            check_hears(each)
            each.check_lengths(data.rows)
    transcriber = Transcriber(data, task, limit, batch_size)
    settings = header(loaded, data, task, limit)
    systems = open_systems(loaded, plans, against=against, out=out, header=settings)
    transcriber.run(systems, progress)
    summary = summarise(
        [system.identity for system in systems],
        [system.outputs.outputs for system in systems],
        [row.id for row in data.rows],
        task,
        resampling=resampling,
        group_by=group_by,
    )
    scores = Scores(
        provenance=provenance(device=str(loaded.device), dtype=loaded.dtype_name),
        model=loaded.info(),
        data=data.info(),
        task=task.name,
        decoding={**settings["decoding"], "eos_ids": list(loaded.eos_ids), "batch_size": batch_size},
        **asdict(resampling),
        **vars(summary),
    )
    if out is not None:
        scores.save(out / SCORES_FILE)
    return scores


def run_rescore(folder: Path, *, resampling: Resampling, group_by: Sequence[str] | None) -> Scores:
    """See `shoal.evaluate.rescore`."""
    before = Scores.load(folder / SCORES_FILE)
    files = [system.outputs_file for system in before.systems]
    missing = [name for name in files if name is None or not (folder / name).is_file()]
    if missing:
        raise FileFormatError(
            f"the raw outputs {missing[0] or ''} are not there", where=str(folder), fix="evaluate again"
        )
    outputs = [read_outputs(folder / name) for name in files if name is not None]
    ids = [clip for clip in outputs[0] if all(clip in found for found in outputs)]
    summary = summarise(
        [
            Identity(system.name, system.model_ref, system.plan, system.outputs_file)
            for system in before.systems
        ],
        outputs,
        ids,
        tasks.get(before.task),
        resampling=resampling,
        group_by=group_by,
    )
    seconds = round(sum(outputs[0][clip].duration for clip in ids), 3)
    scores = before.model_copy(
        update={
            "provenance": provenance(device=before.provenance.device, dtype=before.provenance.dtype),
            "data": before.data.model_copy(update={"clips": len(ids), "seconds": seconds}),
            **asdict(resampling),
            **vars(summary),
        }
    )
    scores.save(folder / SCORES_FILE)
    return scores


def header(loaded: LoadedModel, data: Dataset, task: Task, limit: TokenLimit) -> dict[str, Any]:
    """What decides raw outputs, besides the system: the same header, the same outputs."""
    info = data.info()
    return {
        "task": {"name": task.name, "instruction": task.instruction},
        "decoding": {"strategy": "greedy", "max_new_tokens": limit.label},
        "dtype": loaded.dtype_name,
        "device": loaded.device.type,
        "audio": {"decoder": info.audio_decoder, "resampler": info.resampler},
        "note": {"manifests": info.manifests, "data_fingerprint": info.fingerprint},
    }
