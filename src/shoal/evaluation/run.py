"""The evaluation: clips in, raw outputs and `scores.json` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.errors import FileFormatError
from shoal.evaluation.decode_systems import SystemsDecoder
from shoal.evaluation.export import ScoredOutputs, write_exports
from shoal.evaluation.generated_speech import without_unmeasurable_loss
from shoal.evaluation.groups import check_fields, check_sets
from shoal.evaluation.locks import Locks
from shoal.evaluation.score_systems import SystemIdentity, score_systems
from shoal.evaluation.scores.registry import headline
from shoal.evaluation.settings import DecodingSettings, ScoringSettings, TokenLimit
from shoal.evaluation.shards import Shard, ShardOutputs, open_shard, open_whole, read_whole
from shoal.evaluation.systems import System, check_can_answer, open_systems
from shoal.progress import Progress
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
    decoding: DecodingSettings,
    scoring: ScoringSettings,
    *,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Scores:
    """See `shoal.evaluation.evaluate`."""
    task = asked_of(data, task, loaded, against)
    comet = scoring.scorer(task, out)
    check_fields(scoring.group_by, data.rows)
    if scoring.out_of_domain:
        check_sets(scoring.out_of_domain, {row.data for row in data.rows})
    systems = decode_systems(
        loaded, data, task, decoding, plans=plans, against=against, out=out, progress=progress
    )
    outputs, ids = [system.outputs.outputs for system in systems], data.ids()
    summary = score_systems([system.identity for system in systems], outputs, ids, task, scoring, comet=comet)
    settings = header(loaded, data, task, decoding.limit)["decoding"]
    scores = Scores(
        provenance=provenance(device=str(loaded.device), dtype=loaded.dtype_name),
        model=loaded.info(),
        data=data.info(),
        task=task.name,
        task_settings=tasks.settings_to_keep(task),
        decoding={**settings, "eos_ids": list(loaded.eos_ids), "batch_size": decoding.batch_size},
        **asdict(scoring.resampling),
        **vars(summary),
    )
    if out is not None:
        _write(out, ScoredOutputs(scores, outputs, ids, task), scoring.exports)
    return scores


def decode_systems(
    loaded: LoadedModel,
    data: Dataset,
    task: Task,
    decoding: DecodingSettings,
    *,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    out: Path | None = None,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> list[System]:
    """The systems, the baseline first, with an output for every clip (of a shard) that can be used.

    Args:
        loaded: the model that plans prune.
        data: all clips, which decide the header of the outputs.
        task: what is asked of these clips, see `asked_of`.
        decoding: batch size and token limit.
        plans: systems besides the unpruned model.
        against: another checkpoint, to be the baseline.
        out: folder for `outputs/`; what is there is not decoded again. None keeps outputs in memory.
        shard: the clips to decode; None decodes all.
        progress: called with ("transcribe", clips × systems done, in all).
    """
    settings = header(loaded, data, task, decoding.limit)
    part = data if shard is None else shard.rows_of(data)
    with Locks() as locks:
        opened = partial(open_whole, locks=locks)
        if shard is not None:
            opened = partial(open_shard, shard=shard, locks=locks)
        systems = open_systems(loaded, plans, against=against, out=out, header=settings, opened=opened)
        SystemsDecoder(part, task, decoding.limit, decoding.batch_size).run(systems, progress)
    return systems


def run_shard(
    loaded: LoadedModel,
    data: Dataset,
    task: Task | str,
    decoding: DecodingSettings,
    shard: Shard,
    *,
    plans: Sequence[Plan],
    against: LoadedModel | None,
    out: Path,
    progress: Progress | None,
) -> ShardOutputs:
    """See `shoal.evaluation.evaluate_shard`."""
    # All rows decide what the task is and what the header says, so that it is the same for every shard.
    task = asked_of(data, task, loaded, against)
    systems = decode_systems(
        loaded, data, task, decoding, plans=plans, against=against, out=out, shard=shard, progress=progress
    )
    files = {system.outputs.path: system.outputs for system in systems if system.outputs.path is not None}
    decoded = sum(file.added for file in files.values())
    return ShardOutputs(shard, len(shard.rows_of(data).rows), decoded, list(files))


def asked_of(
    data: Dataset, task: Task | str, loaded: LoadedModel, against: LoadedModel | None = None
) -> Task:
    """The task as these clips ask it, once the models are known to be able to answer it."""
    task = (tasks.get(task) if isinstance(task, str) else task).on(data.rows)
    headline(task)
    for model in (loaded, against):
        if model is not None:
            check_can_answer(model, task)
            if task.input == "speech":
                model.check_lengths(data)
            task = without_unmeasurable_loss(task, model, data.rows)
    return task


def run_rescore(folder: Path, scoring: ScoringSettings) -> Scores:
    """See `shoal.evaluation.rescore`."""
    before = Scores.load(folder / SCORES_FILE)
    task = tasks.restored(before.task, before.task_settings)
    comet = scoring.scorer(task, folder)
    files = [system.outputs_file for system in before.systems]
    missing = [name for name in files if name is None or not (folder / name).is_file()]
    if missing:
        raise FileFormatError(
            f"the raw outputs {missing[0] or ''} are not there", where=str(folder), fix="evaluate again"
        )
    outputs = [read_whole(folder / name) for name in files if name is not None]
    ids = [clip for clip in outputs[0] if all(clip in system for system in outputs)]
    identities = [
        SystemIdentity(system.name, system.model_ref, system.plan, system.outputs_file)
        for system in before.systems
    ]
    summary = score_systems(identities, outputs, ids, task, scoring, comet=comet)
    seconds = round(sum(outputs[0][clip].duration for clip in ids), 3)
    scores = before.model_copy(
        update={
            "provenance": provenance(device=before.provenance.device, dtype=before.provenance.dtype),
            "data": before.data.model_copy(update={"clips": len(ids), "seconds": seconds}),
            **asdict(scoring.resampling),
            **vars(summary),
        }
    )
    _write(folder, ScoredOutputs(scores, outputs, ids, task), scoring.exports)
    return scores


def _write(folder: Path, stored: ScoredOutputs, exports: Sequence[str]) -> None:
    stored.scores.save(folder / SCORES_FILE)
    write_exports(folder, stored, exports)


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
