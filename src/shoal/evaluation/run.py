"""The evaluation: clips in, raw outputs and `scores.json` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.errors import FileFormatError
from shoal.evaluation.export import Stored, write_exports
from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.groups import check_fields, check_sets
from shoal.evaluation.locks import Locks
from shoal.evaluation.measures import headline
from shoal.evaluation.settings import Extras, Resampling, TokenLimit
from shoal.evaluation.shards import Shard, ShardOutputs, open_shard, open_whole, read_whole
from shoal.evaluation.summary import SystemIdentity, summarise
from shoal.evaluation.systems import check_can_answer, open_systems
from shoal.evaluation.transcribe import Transcriber
from shoal.progress import Progress
from shoal.provenance import provenance
from shoal.schema import Scores

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.evaluation.engine import BatchSize
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task

SCORES_FILE = "scores.json"
NO_EXTRAS = Extras()


def run_evaluate(
    loaded: LoadedModel,
    data: Dataset,
    task: Task | str,
    *,
    plans: Sequence[Plan],
    against: LoadedModel | None,
    batch_size: BatchSize,
    limit: TokenLimit,
    out: Path | None,
    resampling: Resampling,
    group_by: Sequence[str] | None,
    progress: Progress | None,
    extras: Extras = NO_EXTRAS,
) -> Scores:
    """See `shoal.evaluation.evaluate`."""
    task = _checked(task, data, loaded, against)
    comet = extras.scorer(task, out)
    check_fields(group_by, data.rows)
    if extras.out_of_domain:
        check_sets(extras.out_of_domain, {row.data for row in data.rows})
    settings = header(loaded, data, task, limit)
    with Locks() as locks:
        opened = partial(open_whole, locks=locks)
        systems = open_systems(loaded, plans, against=against, out=out, header=settings, opened=opened)
        Transcriber(data, task, limit, batch_size).run(systems, progress)
    ids = data.ids()
    outputs = [system.outputs.outputs for system in systems]
    summary = summarise(
        [system.identity for system in systems],
        outputs,
        ids,
        task,
        resampling=resampling,
        group_by=group_by,
        out_of_domain=extras.out_of_domain,
        comet=comet,
    )
    scores = Scores(
        provenance=provenance(device=str(loaded.device), dtype=loaded.dtype_name),
        model=loaded.info(),
        data=data.info(),
        task=task.name,
        task_settings=tasks.settings_to_keep(task),
        decoding={**settings["decoding"], "eos_ids": list(loaded.eos_ids), "batch_size": batch_size},
        **asdict(resampling),
        **vars(summary),
    )
    if out is not None:
        scores.save(out / SCORES_FILE)
        write_exports(out, Stored(scores, outputs, ids, task), extras.exports)
    return scores


def run_shard(
    loaded: LoadedModel,
    data: Dataset,
    task: Task | str,
    shard: Shard,
    *,
    plans: Sequence[Plan],
    against: LoadedModel | None,
    batch_size: BatchSize,
    limit: TokenLimit,
    out: Path,
    progress: Progress | None,
) -> ShardOutputs:
    """See `shoal.evaluation.evaluate_shard`."""
    # All rows decide what the task is and what the header says, so that it is the same for every shard.
    task = _checked(task, data, loaded, against)
    settings, part = header(loaded, data, task, limit), shard.rows_of(data)
    with Locks() as locks:
        opened = partial(open_shard, shard=shard, locks=locks)
        systems = open_systems(loaded, plans, against=against, out=out, header=settings, opened=opened)
        Transcriber(part, task, limit, batch_size).run(systems, progress)
    files = {system.outputs.path: system.outputs for system in systems if system.outputs.path is not None}
    decoded = sum(each.added for each in files.values())
    return ShardOutputs(shard, len(part.rows), decoded, list(files))


def _checked(task: Task | str, data: Dataset, loaded: LoadedModel, against: LoadedModel | None) -> Task:
    """The task as these clips ask it, once the models are known to be able to answer it."""
    task = (tasks.get(task) if isinstance(task, str) else task).on(data.rows)
    headline(task)
    for each in (loaded, against):
        if each is not None:
            check_can_answer(each, task)
            if task.input == "speech":
                each.check_lengths(data.rows)
            task = without_unmeasurable_loss(task, each, data.rows)
    return task


def run_rescore(
    folder: Path, *, resampling: Resampling, group_by: Sequence[str] | None, extras: Extras = NO_EXTRAS
) -> Scores:
    """See `shoal.evaluation.rescore`."""
    before = Scores.load(folder / SCORES_FILE)
    task = tasks.restored(before.task, before.task_settings)
    comet = extras.scorer(task, folder)
    files = [system.outputs_file for system in before.systems]
    missing = [name for name in files if name is None or not (folder / name).is_file()]
    if missing:
        raise FileFormatError(
            f"the raw outputs {missing[0] or ''} are not there", where=str(folder), fix="evaluate again"
        )
    outputs = [read_whole(folder / name) for name in files if name is not None]
    ids = [clip for clip in outputs[0] if all(clip in found for found in outputs)]
    summary = summarise(
        [
            SystemIdentity(system.name, system.model_ref, system.plan, system.outputs_file)
            for system in before.systems
        ],
        outputs,
        ids,
        task,
        resampling=resampling,
        group_by=group_by,
        out_of_domain=extras.out_of_domain,
        comet=comet,
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
    write_exports(folder, Stored(scores, outputs, ids, task), extras.exports)
    return scores


def header(loaded: LoadedModel, data: Dataset, task: Task, limit: TokenLimit) -> dict[str, Any]:
    """What decides raw outputs, besides the system: the same header, the same outputs."""
    info = data.info()
    return {
        "task": task.decides,
        "decoding": {"strategy": "greedy", "max_new_tokens": limit.label},
        "dtype": loaded.dtype_name,
        "device": loaded.device.type,
        "audio": {"decoder": info.audio_decoder, "resampler": info.resampler},
        "note": {"manifests": info.manifests, "data_fingerprint": info.fingerprint},
    }
