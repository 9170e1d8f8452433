"""Healing: a pruned model and clips in, a healed checkpoint out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from shoal import tasks
from shoal.data import fingerprint
from shoal.data.splits import split_rows
from shoal.data.subset import evenly_spaced
from shoal.decoder.batches import prepared_batches
from shoal.errors import TrainingError, UsageError
from shoal.healing.chain import fit_chain
from shoal.healing.checkpoints import write_adapters, write_merged
from shoal.healing.choosing import choose_healed
from shoal.healing.cuts import cuts_of, layers_behind
from shoal.healing.job import HealingJob, finished
from shoal.healing.linear import LinearFit, apply_linear, fit_linear
from shoal.healing.settings import HealSettings
from shoal.healing.teacher import PruningHistory, check_teacher, pruning_history, share_weights
from shoal.healing.trained_parts import TrainedParts
from shoal.models.loading import DTYPES, load_model
from shoal.progress import Progress, report_progress, stage
from shoal.provenance import provenance
from shoal.pruning.in_memory import prune_in_place
from shoal.schema import HealRecord, ModelInfo, Plan, read_json
from shoal.selection.choose import layer_count
from shoal.settings import takes
from shoal.training.batches import examples_of, fill_audio_cache, make_batches, response_losses
from shoal.training.examples import Batches, TrainingExample
from shoal.training.loop import TrainingResult, train
from shoal.training.processes import Processes
from shoal.training.run_folder import load_trained, work_folder
from shoal.training.sampling import sample_clips
from shoal.training.step import ModelWithLoss
from shoal.wording import plural

if TYPE_CHECKING:
    from shoal.data import Dataset, Row
    from shoal.models.batch import PreparedBatch
    from shoal.models.loading import LoadedModel
    from shoal.tasks import Task

WORSE = 1.01
"""A loss that rises by less than this factor on a few clips is as good as before."""
HELD_OUT_EVERY = 5
"""One of so many clips of the closed form is held out."""


class _Fitted(NamedTuple):
    """How many parameters were fitted, and on what."""

    parameters: int
    clips: int
    positions: int


@dataclass
class HealedModel:
    """A healed model with its record; straight after healing, low-rank layers are still beside its weights."""

    load: Callable[[], LoadedModel]
    """Gives the model: what is in memory, or where it was healed before, what lies in `folder`."""
    record: HealRecord
    folder: Path | None = None
    plan: Plan | None = None
    """What was removed on the way; None where the checkpoint had been pruned before."""
    whole: tuple[str, ...] = ()
    """Modules that were trained whole."""
    worse: str = ""
    """In which way it is worse than before healing, on clips that it was not fitted on; empty if it is not."""
    finished_before: bool = False
    """Whether it lay in `folder` already, so that nothing was left to do."""

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model in memory."""
        return self.load()


@takes(HealSettings)
def heal(
    model: LoadedModel,
    data: Dataset,
    task: Task | str = "asr",
    settings: HealSettings | None = None,
    *,
    plan: Plan | None = None,
    validation: Dataset | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> HealedModel:
    """Heal a pruned model, which is changed in place (with `replace` it is another that is healed).

    Args:
        model: a checkpoint that Shoal pruned; or, with `plan`, the model to prune first.
        data: clips to train on.
        task: what is asked of the clips, and what the right answer is.
        settings: what is trained, and how.
        plan: what to remove first.
        validation: clips to watch the loss on; default is a twentieth of `data`, which is then not trained on.
        out: the checkpoint folder to make; None keeps the result in memory only. Running again there goes on with an
            unfinished run, and returns a finished one as it is; with other settings it is refused.
        progress: called with (what, done, total).
        **options: fields of `HealSettings`, instead of `settings` or in their place.

    Returns:
        The healed model in memory with its record, and the folder it was written to. Only the first of several
        processes writes it.

    Raises:
        PlanError: no layer is missing where the target needs a cut.
        ModelError: the model does not have what the target trains, or the teacher is another model.
        UsageError: settings that make no sense together, or an output folder that is taken.
        TrainingError: see `shoal.training.loop.train`; or the healed model is worse than the pruned one on clips that
            it was not fitted on, and is not written for that, unless `force` is set.
        VerificationError: the healed checkpoint is not what was in memory; it is not written.
    """
    settings, out = HealSettings.of(settings, options), None if out is None else Path(out)
    task = tasks.get(task) if isinstance(task, str) else task
    job = HealingJob(data, task, settings, plan, validation, out, progress)
    job.check(model.path if model.path != Path() else None)
    source = model.info()
    processes = Processes.now(cpu=model.device.type == "cpu")
    if (record := finished(source, job)) is not None:
        folder = job.out if processes.rank == 0 else None
        return HealedModel(lambda: _load(str(out), model, job), record, folder, finished_before=True)
    if settings.layers is not None:
        job = replace(job, plan=_chosen(model, job, settings.layers))
    history = pruning_history(model, job.plan)
    with work_folder(job.out, "healing", processes) as work:
        student = _student(model, job, history)
        healed = _Healing(job, history, student, work, processes).run(source.fingerprint)
        if job.plan is not None or student is not model:
            healed.plan = None if history.plan is None else job.target.kept(history.plan)
        if job.out is not None and processes.rank == 0:
            if healed.worse and not settings.force:
                raise TrainingError(
                    f"{job.out}: {healed.worse}; it is not written: heal with more clips or other settings, or give "
                    "--force to write it all the same"
                )
            healed.folder = _write(healed, job, model, job.out)
    return healed


def _chosen(model: LoadedModel, job: HealingJob, layers: str) -> Plan:
    """The block that healing leaves best, chosen on clips that the loss is not watched on."""
    size, rows = layer_count(len(model.layers), layers), job.split()[0]
    fit, judge = split_rows(evenly_spaced(rows, job.settings.linear.clips, 0), job.settings.seed)
    return choose_healed(
        model,
        job.data.only(fit),
        job.data.only(judge),
        job.task,
        size,
        input=job.settings.input,
        settings=job.settings.linear,
        progress=job.progress,
    )


def _student(model: LoadedModel, job: HealingJob, history: PruningHistory) -> LoadedModel:
    """The pruned model: `model` itself, or where the target puts layers back, the unpruned one without fewer."""
    plan = history.plan
    kept = None if plan is None else job.target.kept(plan)
    if job.plan is not None:
        assert kept is not None
        prune_in_place(model.model, kept, family=model.family)
        return model
    if plan is None or kept is None or kept.layers == plan.layers:
        return model
    fresh = _load(job.settings.teacher or str(history.teacher), model, job)
    check_teacher(fresh, model, plan)
    prune_in_place(fresh.model, kept, family=fresh.family)
    return fresh


def _load(ref: str, like: LoadedModel, job: HealingJob) -> LoadedModel:
    with stage(job.progress, f"load {ref}"):
        return load_model(
            ref, device=str(like.device), dtype=like.dtype_name, trust_remote_code=job.settings.trust_remote_code
        )


class _Healing:
    """One run, from a pruned model in memory to a healed one.

    Args:
        job: what is asked for.
        history: where the model comes from.
        student: the pruned model.
        work: folder for checkpoints.
        processes: those that train together.
    """

    def __init__(
        self, job: HealingJob, history: PruningHistory, student: LoadedModel, work: Path, processes: Processes
    ) -> None:
        self._job, self._history, self._student, self._work = job, history, student, work
        self._processes, self._target = processes, job.target
        self._plan = None if history.plan is None else self._target.kept(history.plan)
        self._cuts = [] if self._plan is None else cuts_of(self._plan)
        self._teacher: LoadedModel | None = None
        self._linear_tensors: dict[str, torch.Tensor] = {}
        self._fits: list[LinearFit] = []
        self._notes: list[str] = []

    def run(self, source_fingerprint: str) -> HealedModel:
        """Heal, and say how; the fingerprint is that of the model before anything was removed from it."""
        job, first = self._job, self._processes.rank == 0
        info = self._pruned_info()
        rows, held_out = job.split()
        watched = self._watched(held_out)
        parts = self._target.choose(self._student, self._cuts)
        before = self._loss(watched)
        if not self._target.trained or job.settings.start == "linear":
            result, fitted = self._fit_linear(rows)
        if self._target.trained:
            result, fitted = self._train(parts, examples_of(job.data, job.task, rows=rows))
            if result.sharded is not None and first:
                self._student = self._gathered(parts, result.sharded)
        after = self._loss(watched)
        worse = self._worse(watched, before, after)
        record = HealRecord(
            provenance=provenance(device=str(self._student.device), dtype=self._student.dtype_name),
            model=info,
            source_fingerprint=source_fingerprint,
            teacher=None if self._teacher is None else self._teacher.ref,
            target=self._target.name,
            settings=job.described,
            task=job.task.name,
            data=job.data.info().model_copy(update={"clips": len(rows), "fingerprint": fingerprint(rows)}),
            trained_parameters=fitted.parameters,
            fitted_clips=fitted.clips,
            fitted_positions=fitted.positions,
            steps=result.steps,
            clips=result.clips,
            seconds=round(result.seconds, 2),
            last_loss=result.losses[-1] if result.losses else None,
            loss_before=before,
            loss_after=after,
            loss_clips=0 if before is None or watched is None else len(watched.examples),
            notes=[*self._notes, *result.notes, *([f"warning: {worse}"] if worse else [])],
        )
        student = self._student  # and not all that this run holds, such as the teacher
        return HealedModel(lambda: student, record, whole=parts.whole, worse=worse)

    def _pruned_info(self) -> ModelInfo:
        """The pruned model before healing; what `info` says afterwards is of the healed one."""
        self._student.forget_info()
        info = self._student.info()
        self._student.forget_info()
        return info if self._plan is None else info.model_copy(update={"removed_layers": self._plan.layers})

    def _watched(self, held_out: Sequence[Row]) -> Batches | None:
        """Clips that are not trained on, for the loss before and after."""
        validation, task = self._job.validation, self._job.task
        examples = examples_of(validation, task) if validation else examples_of(self._job.data, task, rows=held_out)
        return self._batches(examples) if examples else None

    def _batches(self, examples: Sequence[TrainingExample], *, through: bool = False) -> Batches:
        return make_batches(
            self._student,
            examples,
            input=self._job.settings.input,
            through_projector=through,
            features=self._job.settings.how.features,
            processes=self._processes,
            progress=self._job.progress,
        )

    def _loss(self, watched: Batches | None) -> float | None:
        # Only the first process writes a record.
        if watched is None or self._processes.rank != 0:
            return None
        return response_losses(self._student, watched, progress=self._job.progress).mean

    def _worse(self, watched: Batches | None, before: float | None, after: float | None) -> str:
        """In which way healing did harm, if it did: by the loss, or where none was measured by the fit of states."""
        if watched is not None and before is not None and after is not None:
            clips = plural(len(watched.examples), "clip")
            rose = f"the loss on {clips} that it was not healed on rose from {before:.3f} to {after:.3f} nats a token"
            return rose if after > WORSE * before else ""
        farther = [fit.held_out_words for fit in self._fits if fit.worse and not self._target.trained]
        return f"on clips that were held out it is farther from the unpruned model ({farther[0]})" if farther else ""

    def teacher(self) -> LoadedModel:
        """The unpruned model.

        Raises:
            UsageError: it is not known which that is.
            ModelError: it is another model.
        """
        if self._teacher is None:
            ref = self._job.settings.teacher or self._history.teacher
            if ref is None:
                raise UsageError(
                    "it is not known which model was pruned", where="--teacher", fix="give the unpruned model"
                )
            self._teacher = _load(ref, self._student, self._job)
            check_teacher(self._teacher, self._student, self._plan)
        return self._teacher

    def _fit_linear(self, rows: Sequence[Row]) -> tuple[TrainingResult, _Fitted]:
        """The closed form, as the target itself or as the start of another; its seconds are without encoding."""
        assert self._plan is not None
        job, settings, teacher = self._job, self._job.settings.linear, self.teacher()
        clips = evenly_spaced(rows, settings.clips, 0)
        if job.settings.input == "speech":
            fill_audio_cache(teacher, job.data, clips, features=job.settings.how.features, progress=job.progress)
        begun = time.perf_counter()
        # Of those that are fitted, not of those that the loss is watched on, which shall not decide anything.
        held_out = clips[1::HELD_OUT_EVERY]
        fitted = [row for row in clips if row not in held_out]
        batches, others = (
            _counted(
                prepared_batches(teacher, job.data, job.task, job.settings.input, 8, rows=part),
                done,
                clips,
                job.progress,
            )
            for part, done in ((fitted, 0), (held_out, len(fitted)))
        )
        computed = fit_chain if self._target.name == "chain" else fit_linear
        self._linear_tensors, self._fits = computed(
            teacher,
            self._plan,
            batches,
            held_out=others,
            fit=settings.fit,
            ridge=settings.ridge,
            weighting=settings.weighting,
        )
        apply_linear(self._student.model, self._linear_tensors)
        counts = f"{plural(len(fitted), 'clip')}, held out {plural(len(held_out), 'clip')}"
        name = "linear" if self._target.trained else self._target.name
        self._notes += [f"{name} over {note} ({counts})" for fit in self._fits for note in fit.notes]
        fitted_on = _Fitted(
            sum(fit.parameters for fit in self._fits),
            len(fitted),
            max((fit.positions for fit in self._fits), default=0),
        )
        return TrainingResult(0, [], time.perf_counter() - begun, 0), fitted_on

    def _train(self, parts: TrainedParts, examples: Sequence[TrainingExample]) -> tuple[TrainingResult, _Fitted]:
        """Train what was chosen; also how many parameters that is, and on how much."""
        job, settings, objective = self._job, self._job.settings, self._job.objective
        teacher = self.teacher() if objective.needs_teacher else None
        parts.mark(self._student, settings, settings.seed)
        if teacher is not None and self._plan is not None:
            share_weights(teacher, self._student, self._plan.keep)
        batches = self._batches(examples, through=parts.has_projector(self._student))
        cuts = layers_behind(self._cuts, len(self._student.layers)) if objective.hidden else ()
        student = ModelWithLoss(self._student, batches, objective, teacher=teacher, cuts=cuts)
        parameters = sum(parameter.numel() for parameter in student.trainable().values())
        sampled = sample_clips(
            np.zeros(len(batches.examples), np.int64),
            batches.lengths,
            weights=[None],
            steps=settings.optimisation.steps,
            clips=settings.optimisation.clips,
            seed=settings.seed,
        )
        result = train(
            student,
            sampled,
            settings.optimisation,
            self._work,
            how=job.how,
            settings=self._identity(batches),
            seed=settings.seed,
            what="heal",
            progress=job.progress,
            sharded=True,
        )
        seen = np.unique(sampled.examples)
        # The loss is over the response, and only the distance of hidden states over all positions.
        counted = batches.targets if objective.ce or objective.kl else batches.lengths
        return result, _Fitted(parameters, len(seen), int(counted[seen].sum()))

    def _gathered(self, parts: TrainedParts, trained: Path) -> LoadedModel:
        """The student once more, whole, in this process alone: what was trained of it came back in shards."""
        whole = _load(self._student.ref, self._student, self._job)
        if len(whole.layers) != len(self._student.layers):
            assert self._plan is not None
            prune_in_place(whole.model, self._plan, family=whole.family)
        apply_linear(whole.model, self._linear_tensors)
        parts.mark(whole, self._job.settings, self._job.settings.seed)
        load_trained(whole.model, trained, prefix="model.")
        return whole

    def _identity(self, batches: Batches) -> dict[str, Any]:
        """What an unfinished run must share with this one to be taken up."""
        return {
            "model": self._student.info().fingerprint,
            "clips": batches.fingerprint,
            "task": self._job.task.name,
            "processes": self._processes.world,
            **{key: value for key, value in self._job.described.items() if key != "save_as"},
        }


def _counted(
    batches: Iterable[PreparedBatch], done: int, clips: Sequence[Row], progress: Progress | None
) -> Iterator[PreparedBatch]:
    """The batches; how many of all clips are done is told as each is taken."""
    if done == 0:
        report_progress(progress, "fit", 0, len(clips))
    for batch in batches:
        done += len(batch.ids)
        report_progress(progress, "fit", done, len(clips))
        yield batch


def _write(healed: HealedModel, job: HealingJob, source: LoadedModel, out: Path) -> Path:
    loaded, record, force = healed.loaded, healed.record, job.settings.force
    with stage(job.progress, "write and verify"):
        if job.settings.save == "adapters":
            return write_adapters(
                loaded, out, base=source.ref, record=record, modules_to_save=healed.whole, force=force
            )
        return write_merged(loaded, out, record=record, plan=healed.plan, dtype=stored_dtype(source.path), force=force)


def stored_dtype(folder: Path) -> torch.dtype | None:
    """What a checkpoint is stored in, as its config says; None where it does not."""
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    return DTYPES.get(str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch."))
