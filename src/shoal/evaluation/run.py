"""The evaluation: clips in, raw outputs and `scores.json` out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal import tasks
from shoal.evaluation.controls import ControlClips, control_clips
from shoal.evaluation.decode_systems import asked_of, decode_systems, header
from shoal.evaluation.export import ScoredOutputs, write_exports
from shoal.evaluation.groups import check_groups
from shoal.evaluation.score_systems import score_systems
from shoal.evaluation.settings import AnswerSettings, EvaluateSettings, ScoringSettings, TokenLimit
from shoal.evaluation.shards import Shard, ShardOutputs
from shoal.evaluation.stored_scores import SCORES_FILE, StoredScores, ToScore
from shoal.progress import Progress, stage
from shoal.provenance import provenance
from shoal.schema import Scores
from shoal.settings import takes
from shoal.terms import Control

if TYPE_CHECKING:
    from shoal.data import Dataset
    from shoal.evaluation.systems import System
    from shoal.models.loading import LoadedModel
    from shoal.schema import Plan
    from shoal.tasks import Task


@takes(EvaluateSettings)
def evaluate(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    settings: EvaluateSettings | None = None,
    *,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    beside: Sequence[LoadedModel] = (),
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Scores:
    """Transcribe all clips greedily with every system, and score them on the same clips.

    The first system is the baseline: `against` if given, else the unpruned model. Differences from it are
    paired.

    Args:
        model: a SpeechLLM from `shoal.load`.
        data: from `shoal.read_manifests`.
        task: what is asked, and how answers are normalised.
        settings: how clips are decoded, and outputs scored.
        plans: systems besides the unpruned model.
        against: another checkpoint, to be the baseline.
        beside: more checkpoints to score as systems, such as healed ones; each is called by the name of its folder.
        out: folder for `scores.json` and the raw outputs in `outputs/`. Running again there decodes only what is
            missing; systems, clips, groups and intervals of its `scores.json` that are not asked for stay.
        progress: called with ("transcribe", clips × systems done, in all).
        **options: fields of `EvaluateSettings`, instead of `settings` or in their place.

    Raises:
        UsageError: a text LLM, a task for which nothing is decoded, or an argument that makes no sense; or another
            process is decoding into `out`.
        PlanError: a plan for another depth.
        ManifestError: no usable clip or reference.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    settings = EvaluateSettings.of(settings, options)
    folder = None if out is None else Path(out)
    stored = None if settings.force else StoredScores.find(folder)
    if stored is not None:
        settings = stored.inherited(settings)
        extends = stored.extended_by(data.ids(), data.info())
        plans = [*plans, *stored.plans(model.info().fingerprint)]
    task = asked_of(data, task, model, against, *beside)
    comet = settings.scorer(task, folder)
    check_groups(settings, data.rows)
    systems, controls = _decoded(
        model, data, task, settings, plans=plans, against=against, beside=beside, out=folder, progress=progress
    )
    identities, outputs = [system.identity for system in systems], [system.outputs.outputs for system in systems]
    identities = [
        replace(identity, controls={name: system.identity.outputs_file for name, system in under.items()})
        for identity, under in zip(identities, controls, strict=True)
    ]
    answers = [{name: system.outputs.outputs for name, system in under.items()} for under in controls]
    scored = ToScore(identities, outputs, data.ids(), data.info(), answers)
    if stored is not None:
        scored = stored.joined(scored, extends=extends)
        comet = comet or stored.comet(task)
    with stage(progress, "score"):
        summary = score_systems(
            scored.identities,
            scored.outputs,
            scored.ids,
            task,
            settings,
            controls=scored.controls,
            comet=comet,
            limit=settings.limit,
        )
    decoding = header(model, data, task, settings.limit)["decoding"]
    scores = Scores(
        provenance=provenance(device=str(model.device), dtype=model.dtype_name),
        model=model.info(),
        data=scored.data,
        task=task.name,
        task_settings=tasks.settings_to_keep(task),
        decoding={**decoding, "eos_ids": list(model.eos_ids), "batch_size": settings.batch_size},
        **settings.intervals,
        **vars(summary),
    )
    if folder is not None:
        _write(folder, ScoredOutputs(scores, scored.outputs, scored.ids, task), settings.exports)
    return scores


def _decoded(
    model: LoadedModel,
    data: Dataset,
    task: Task,
    settings: AnswerSettings,
    *,
    progress: Progress | None,
    **options: Any,
) -> tuple[list[System], list[dict[Control, System]]]:
    """The systems, and for each of them what it says under every control that is asked for."""
    controls = control_clips(data, task) if settings.controls else []
    systems = decode_systems(model, data, task, settings, progress=progress, **options)
    under: list[dict[Control, System]] = [{} for _ in systems]
    for control in controls:
        heard = _named(progress, control)
        controlled = decode_systems(model, data, task, settings, control=control, progress=heard, **options)
        for answers, system in zip(under, controlled, strict=True):
            answers[control.name] = system
    return systems, under


def _named(progress: Progress | None, control: ControlClips) -> Progress | None:
    """Progress whose stages say which audio is heard."""
    if progress is None:
        return None
    return lambda what, done, total: progress(f"{what} with {control.name} audio", done, total)


@takes(AnswerSettings)
def evaluate_shard(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    settings: AnswerSettings | None = None,
    *,
    shard: tuple[int, int],
    out: str | Path,
    plans: Sequence[Plan] = (),
    against: LoadedModel | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ShardOutputs:
    """Decode every N-th clip, for `evaluate` to score once all shards are there.

    The shards of an evaluation can be run by several processes at the same time, in any order, again, and in another
    number; none repeats what another has finished before. `evaluate` with the same arguments and `out` then takes
    their outputs up, decodes what is missing, and scores; there is nothing to score in a part of the clips.

    Args:
        model: as for `evaluate`, and so are the arguments that are not named here.
        data: all clips, not only those of the shard.
        task: what is asked.
        settings: how clips are decoded.
        shard: (K, N) for the K-th of N parts, from 1.
        out: folder that all shards share; outputs go to `outputs/SYSTEM.shard-K-of-N.jsonl`.
        plans: systems besides the unpruned model.
        against: another checkpoint, to be the baseline.
        progress: called with ("transcribe", clips × systems done, in all), of this shard.
        **options: fields of `AnswerSettings`, instead of `settings` or in their place.

    Raises:
        UsageError: as `evaluate`; no such shard; or another process is at the same one, or at the whole.
        PlanError: a plan for another depth.
        ManifestError: a row without the task's answer, or too many clips whose audio is bad.
        FileFormatError: `out` holds outputs of another model or other settings.
    """
    part, decoding = Shard(*shard), AnswerSettings.of(settings, options)
    # All rows decide what the task is and what the header says, so that it is the same for every shard.
    task = asked_of(data, task, model, against)
    systems, controls = _decoded(
        model, data, task, decoding, plans=plans, against=against, out=Path(out), shard=part, progress=progress
    )
    systems += [system for under in controls for system in under.values()]
    files = {system.outputs.path: system.outputs for system in systems if system.outputs.path is not None}
    decoded = sum(file.added for file in files.values())
    return ShardOutputs(part, len(part.rows_of(data).rows), decoded, list(files))


@takes(ScoringSettings)
def rescore(folder: str | Path, settings: ScoringSettings | None = None, **options: Any) -> Scores:
    """Score again from the raw outputs in `folder`, without a model; `scores.json` is written anew.

    Every clip that all systems of the last `scores.json` have an output for is scored.

    Args:
        folder: the `out` of an earlier `evaluate`.
        settings: how outputs are scored; what is not set is as it was.
        **options: fields of `ScoringSettings`, instead of `settings` or in their place.

    Raises:
        FileFormatError: `scores.json` or an outputs file is missing or broken.
        UsageError: an unknown field, data set or format, or COMET cannot be used.
    """
    folder = Path(folder)
    stored = StoredScores(folder)
    before, settings = stored.scores, stored.inherited(ScoringSettings.of(settings, options))
    task = tasks.restored(before.task, before.task_settings)
    comet = settings.scorer(task, folder) or stored.comet(task)
    outputs, ids = stored.outputs, stored.ids
    limit, controls = TokenLimit.recorded(before.decoding), stored.controls
    summary = score_systems(
        stored.identities, outputs, ids, task, settings, controls=controls, comet=comet, limit=limit
    )
    seconds = round(sum(outputs[0][clip].duration for clip in ids), 3)
    scores = before.model_copy(
        update={
            "provenance": provenance(device=before.provenance.device, dtype=before.provenance.dtype),
            "data": before.data.model_copy(update={"clips": len(ids), "seconds": seconds}),
            **settings.intervals,
            **vars(summary),
        }
    )
    _write(folder, ScoredOutputs(scores, outputs, ids, task), settings.exports)
    return scores


def _write(folder: Path, stored: ScoredOutputs, exports: Sequence[str]) -> None:
    stored.scores.save(folder / SCORES_FILE)
    write_exports(folder, stored, exports)
